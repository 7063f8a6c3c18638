"""Run a Python script in which `import epics` is answered by epicsx.

The script stays as it is. It sees what it would under `python script.py ARGS`:
sys.argv, sys.path, __name__, __file__; its exit code is that of this command;
and processes that it starts by multiprocessing get the same `epics`.
"""

from __future__ import annotations

import argparse
import builtins
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

__all__ = ["arguments", "run"]

_former: list[ModuleType] = []  # the `__main__` before the script's, whose code is still running


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is to be run."""
    parser.usage = "epicsx run [-h] (SCRIPT | - | -m MODULE) [ARGS ...]"
    parser.add_argument(
        "-m",
        dest="module",
        nargs=argparse.REMAINDER,
        metavar="MODULE ...",
        help="run a module, found as `import` would; what follows is its arguments",
    )
    parser.add_argument(
        "script",
        nargs="?",
        metavar="SCRIPT",
        help="a file, a folder or zip file with a __main__.py, or - for standard input",
    )
    parser.add_argument("args", nargs=argparse.REMAINDER, metavar="ARGS", help="its arguments")
    parser.set_defaults(complain=parser.error)


class _Missing(Exception):
    """There is nothing to run, and why."""


def _of_module(name: str) -> tuple[CodeType, dict[str, Any], str]:
    """Code, ``__main__``'s attributes and ``sys.argv[0]`` of a module."""
    from importlib.util import find_spec

    try:
        spec = find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = find_spec(f"{name}.__main__")
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise _Missing(f"cannot find module {name}: {error}") from None
    if spec is None:
        raise _Missing(f"no module named {name}, or it is a package without a __main__")
    code = _code(spec)
    names = {"__spec__": spec, "__package__": spec.parent, "__file__": spec.origin}
    return code, {**names, "__loader__": spec.loader, "__cached__": spec.cached}, spec.origin or ""


def _code(spec: ModuleSpec) -> CodeType:
    get_code = getattr(spec.loader, "get_code", None)
    code = get_code(spec.name) if get_code is not None else None
    if not isinstance(code, CodeType):
        raise _Missing(f"{spec.name} has no code to run")
    return code


def _of_file(path: str) -> tuple[CodeType, dict[str, Any], str]:
    """The same of a script."""
    names: dict[str, Any] = {"__spec__": None, "__package__": None, "__cached__": None}
    if path == "-":
        names["__file__"] = "<stdin>"
        return compile(sys.stdin.buffer.read(), "<stdin>", "exec", dont_inherit=True), names, path
    if _holds_main(path):
        spec = PathFinder.find_spec("__main__", [_full(path)])
        if spec is None:
            raise _Missing(f"{path!r} has no __main__ module")
        names.update(__spec__=spec, __package__="", __loader__=spec.loader, __file__=spec.origin)
        return _code(spec), names, path
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        raise _Missing(f"cannot open {path!r}: {error.strerror}") from None
    full = _full(path)
    names.update(__file__=full, __loader__=SourceFileLoader("__main__", full))
    return compile(source, full, "exec", dont_inherit=True), names, path


def _full(path: str) -> str:
    return os.path.join(os.getcwd(), path)  # as Python does, which keeps a ./ in it


def _holds_main(path: str) -> bool:
    """Whether it is a folder or a zip file, which Python runs by the ``__main__.py`` in it."""
    if os.path.isfile(path):
        with open(path, "rb") as file:
            return file.read(4) == b"PK\x03\x04"
    return os.path.isdir(path)


def _place(options: argparse.Namespace) -> str:
    """What Python puts at the front of `sys.path`."""
    script: str = options.script
    if options.module:
        return os.getcwd()
    if script == "-":
        return ""
    if _holds_main(script):
        return _full(script)
    return os.path.dirname(os.path.realpath(script))


def run(options: argparse.Namespace) -> int:
    """Run the script to its end; 1 if it raised, after its traceback. ``SystemExit`` is the caller's."""
    if not options.module and options.script is None:
        options.complain("a script is wanted, or -m and a module")
    from ..compat import CHILDREN, install_as_epics

    install_as_epics()
    if not getattr(sys.flags, "safe_path", sys.flags.isolated):
        sys.path[0] = _place(options)
        sys.path.insert(1, CHILDREN)
    else:
        sys.path.insert(0, CHILDREN)
    target = options.module[0] if options.module else options.script
    sys.argv = [target, *(options.module[1:] if options.module else options.args)]
    main = ModuleType("__main__")
    _former.append(sys.modules["__main__"])
    sys.modules["__main__"] = main
    try:
        code, names, sys.argv[0] = (_of_module if options.module else _of_file)(target)
        vars(main).update(names, __builtins__=builtins)
        exec(code, vars(main))
    except SystemExit:
        raise
    except _Missing as error:
        print(f"epicsx run: {error}", file=sys.stderr)
        return 2
    except BaseException as error:  # noqa: BLE001 - shown, as Python itself would
        # As Python itself does it, but without our own frames at the beginning.
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0
