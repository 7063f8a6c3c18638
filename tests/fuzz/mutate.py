"""What a lying server sends: true answers of a `FakeServer`, mutated by a seeded generator.

Structured: frames keep their form, and one thing or several about them are wrong. Their counts, sizes, types, commands
and identifiers are drawn from values at which arithmetic breaks, and from those of other requests of the same circuit.
Then the bytes are cut, doubled, joined or held back.

Answers to searches name loopback addresses only, and ports that are the server's own or closed: a client of a fuzzed
server shall connect to nobody else.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from epicsx import _wire
from epicsx._wire import Command, Frame
from epicsx.testing._fakeengine import Part, Request

EDGES = (
    *(0, 1, 2, 3, 7, 8, 35, 38, 39, 40, 77, 255, 256, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF),
    *(0x10000, 0xFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFF8, 0xFFFFFFFF),
)
FIELDS = ("command", "data_type", "count", "parameter1", "parameter2", "size")
WIDE = 0xFFFFFFFF
STATUS = (0, 1, 2, 48, 72, 106, 114, 142, 152, 160, 176, 192, 410, 480, 0x7FFF, 0xFFFF, WIDE)
CLOSED = (1, 7, 9, 0)  # ports on which nobody listens
LOCAL = 0x7F000001
LARGE = 200_000


class Mutator:
    """The lies of one seed."""

    def __init__(self, seed: int, port: int) -> None:
        self.random = random.Random(f"server {seed}")
        self.port = port
        #: How often an answer is a lie.
        self.rate = self.random.choice((0.03, 0.1, 0.25, 0.5, 0.9))
        kinds: list[Callable[[Request, list[Part]], list[Part]]] = [
            self.field, self.field, self.field, self.payload, self.flipped, self.other_id,
            self.other_kind, self.error, self.unasked, self.doubled, self.joined, self.cut,
            self.nothing, self.garbage, self.pieces,
        ]  # fmt: skip
        self.kinds = self.random.sample(kinds, self.random.randint(2, len(kinds)))
        self.ids: deque[int] = deque([0], maxlen=64)
        self.before: deque[Frame] = deque(maxlen=16)

    def __call__(self, request: Request) -> list[Part] | None:
        """What is sent in place of an answer; None if it stays true."""
        self.ids += [request.frame.parameter1, request.frame.parameter2]
        self.before.extend(request.answer)
        if self.random.random() > self.rate:
            return None
        parts: list[Part] = list(request.answer)
        for _ in range(self.random.choice((1, 1, 1, 2, 3))):
            parts = self.random.choice(self.kinds)(request, parts)
        if request.circuit == 0:
            parts = [part for part in parts if isinstance(part, Frame)]
        return [self.local(part) for part in parts]

    def local(self, part: Part) -> Part:
        """A part by which a client does not go elsewhere."""
        if isinstance(part, Frame) and part.command == Command.SEARCH:
            port = part.data_type if part.data_type in (self.port, *CLOSED) else self.port
            address = self.random.choice((_wire.SAME_ADDRESS, LOCAL, LOCAL + 1))
            return replace(part, data_type=port, parameter1=address)
        if isinstance(part, bytes) and part[:2] == b"\0\6":
            return b"\0\0" + part[2:]
        return part

    # -- one lie each

    def number(self, most: int, near: int = 0) -> int:
        pick = self.random.random()
        if pick < 0.6:
            value = self.random.choice(EDGES)
        elif pick < 0.8:
            value = near + self.random.choice((-8, -1, 1, 2, 8, 1000))
        else:
            value = self.random.getrandbits(self.random.choice((4, 8, 16, 32)))
        return value & most

    def one(self, parts: list[Part]) -> tuple[int, Frame] | None:
        frames = [(at, part) for at, part in enumerate(parts) if isinstance(part, Frame)]
        return self.random.choice(frames) if frames else None

    def field(self, request: Request, parts: list[Part]) -> list[Part]:
        """Another number in a header."""
        if (found := self.one(parts)) is None:
            return parts
        at, frame = found
        name = self.random.choice(FIELDS)
        most = 0xFFFF if name in ("command", "data_type") else WIDE
        near = len(frame.payload) if name == "size" else getattr(frame, name)
        changed = {name: self.number(most, near)}
        return [*parts[:at], replace(frame, **changed), *parts[at + 1 :]]  # type: ignore[arg-type]

    def payload(self, request: Request, parts: list[Part]) -> list[Part]:
        """A payload that is longer, shorter, or other; the header says its size truly, or as it was."""
        if (found := self.one(parts)) is None:
            return parts
        at, frame = found
        size = self.random.choice((0, 1, 8, 16, len(frame.payload) // 2, 4096, LARGE))
        data = self.random.choice((frame.payload, b"\xff" * 8, self.random.randbytes(16)))
        data = (data * (size // len(data) + 1) if data else b"")[:size]
        kept = self.random.choice((None, len(frame.payload)))
        return [*parts[:at], replace(frame, payload=data, size=kept), *parts[at + 1 :]]

    def flipped(self, request: Request, parts: list[Part]) -> list[Part]:
        """A few bits the other way."""
        if (found := self.one(parts)) is None:
            return parts
        at, frame = found
        data = bytearray(frame.encode())
        for _ in range(self.random.randint(1, 4)):
            data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        return [*parts[:at], bytes(data), *parts[at + 1 :]]

    def other_id(self, request: Request, parts: list[Part]) -> list[Part]:
        """An identifier of something else on this circuit."""
        if (found := self.one(parts)) is None:
            return parts
        at, frame = found
        name = self.random.choice(("parameter1", "parameter2"))
        changed = {name: (self.random.choice(self.ids) + self.random.choice((0, 0, 1, -1))) & WIDE}
        return [*parts[:at], replace(frame, **changed), *parts[at + 1 :]]  # type: ignore[arg-type]

    def other_kind(self, request: Request, parts: list[Part]) -> list[Part]:
        """The answer to another kind of request under this one's identifier."""
        if (found := self.one(parts)) is None:
            return parts
        at, frame = found
        commands = (Command.EVENT_ADD, Command.READ_NOTIFY, Command.WRITE_NOTIFY, Command.READ)
        other = replace(frame, command=int(self.random.choice((*commands, Command.CLEAR_CHANNEL))))
        return [*parts[:at], other, *parts[at + self.random.choice((0, 1)) :]]

    def error(self, request: Request, parts: list[Part]) -> list[Part]:
        """An error of any status, about any command, with or without an end of its text."""
        asked = replace(request.frame, payload=b"")
        if self.random.random() < 0.5:
            asked = replace(
                asked,
                command=self.random.choice((self.number(0xFFFF), *map(int, Command))),
                parameter2=self.random.choice(self.ids),
            )
        cid = self.random.choice((*self.ids, WIDE))
        text = b"%s%n\x1b[2J" * self.random.choice((0, 1, 400))
        made = _wire.error(asked, self.random.choice(STATUS), text, cid)
        if self.random.random() < 0.5:
            short = self.random.choice((0, 8, 16, 24))
            made = replace(made, payload=made.payload[:short] or text[: short or 8])
        return [*parts, made] if self.random.random() < 0.5 else [made]

    def unasked(self, request: Request, parts: list[Part]) -> list[Part]:
        """What nobody asked for."""
        ids = [self.random.choice(self.ids) for _ in range(2)]
        command = int(self.random.choice(tuple(Command)))
        kind, count = self.number(0xFFFF), self.number(WIDE)
        data = self.random.randbytes(self.random.choice((0, 8, 24, 512)))
        made = Frame(command, kind, count, ids[0], ids[1], data)
        return [made, *parts] if self.random.random() < 0.5 else [*parts, made]

    def doubled(self, request: Request, parts: list[Part]) -> list[Part]:
        """The same again."""
        return parts * self.random.choice((2, 2, 3, 20))

    def joined(self, request: Request, parts: list[Part]) -> list[Part]:
        """With answers of before."""
        return [*parts, *self.random.sample(list(self.before), min(3, len(self.before)))]

    def cut(self, request: Request, parts: list[Part]) -> list[Part]:
        """The first bytes of it."""
        if (found := self.one(parts)) is None:
            return parts
        at, frame = found
        data = frame.encode()
        return [*parts[:at], data[: self.random.randrange(len(data))], *parts[at + 1 :]]

    def nothing(self, request: Request, parts: list[Part]) -> list[Part]:
        """Silence."""
        return []

    def garbage(self, request: Request, parts: list[Part]) -> list[Part]:
        """Bytes without sense."""
        made = self.random.randbytes(self.random.choice((1, 15, 16, 17, 64, 3000)))
        return [*parts, made] if self.random.random() < 0.7 else [made, *parts]

    def pieces(self, request: Request, parts: list[Part]) -> list[Part]:
        """Late, and in two pieces."""
        if (found := self.one(parts)) is None:
            return parts
        at, frame = found
        data = frame.encode()
        where = self.random.randrange(len(data))
        return [*parts[:at], data[:where], 0.01, data[where:], *parts[at + 1 :]]
