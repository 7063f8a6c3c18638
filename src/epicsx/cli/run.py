"""Run a Python script in which `import epics` is answered by epicsx.

The script stays as it is. It sees what it would under `python script.py ARGS`:
sys.argv, sys.path, __name__, __file__; its exit code is that of this command,
Ctrl-C included; and processes that it starts by multiprocessing get the same
`epics`. Only in a stack that it looks at itself are the frames of this command
below its own.
"""

from __future__ import annotations

import argparse
import builtins
import io
import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader, SourcelessFileLoader
from types import CodeType, ModuleType
from typing import Any

from ._tools import complain

__all__ = ["arguments", "run", "split"]

_former: list[ModuleType] = []  # the `__main__` before the script's, whose code is still running


def split(parser: argparse.ArgumentParser, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of a command line that are for this command, and those that are the script's, untouched."""
    n = len(words)
    for i, word in enumerate(words):
        if word == "-m":
            n = i + 2
            break
        if word == "-" or word.startswith("-m") or not word.startswith("-"):
            n = i + 1
            break
    return list(words[:n]), list(words[n:])


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is to be run. What follows it has been split off: ``options.rest``."""
    parser.usage = "epicsx run [-h] (SCRIPT | - | -m MODULE) [ARGS ...]"
    parser.add_argument(
        "-m",
        dest="module",
        metavar="MODULE",
        help="run a module, found as `import` would; what follows is its arguments",
    )
    parser.add_argument(
        "script",
        nargs="?",
        metavar="SCRIPT",
        help="a file, a folder or zip file with a __main__.py, or - for standard input;\n"
        "what follows is its arguments",
    )
    parser.set_defaults(complain=parser.error)


class _Missing(Exception):
    """There is nothing to run, and why; with Python's exit code for that."""

    code = 2


class _NoModule(_Missing):
    code = 1


def _of_module(name: str) -> tuple[CodeType, dict[str, Any], str]:
    """Code, ``__main__``'s attributes and ``sys.argv[0]`` of a module."""
    from importlib.util import find_spec

    try:
        spec = find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = find_spec(f"{name}.__main__")
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise _NoModule(f"cannot find module {name}: {error}") from None
    if spec is None:
        raise _NoModule(f"no module named {name}, or it is a package without a __main__")
    code = _code(spec)
    names = {"__spec__": spec, "__package__": spec.parent, "__file__": spec.origin}
    return code, {**names, "__loader__": spec.loader, "__cached__": spec.cached}, spec.origin or ""


def _code(spec: ModuleSpec) -> CodeType:
    get_code = getattr(spec.loader, "get_code", None)
    code = get_code(spec.name) if get_code is not None else None
    if not isinstance(code, CodeType):
        raise _NoModule(f"{spec.name} has no code to run")
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
            raise _NoModule(f"{path!r} has no __main__ module")
        names.update(__spec__=spec, __package__="", __loader__=spec.loader, __file__=spec.origin)
        return _code(spec), names, path
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        raise _Missing(f"cannot open {path!r}: {error.strerror}") from None
    full = _full(path)
    code = pkgutil.read_code(io.BytesIO(source))  # of a .pyc
    loader = SourceFileLoader if code is None else SourcelessFileLoader
    names.update(__file__=full, __loader__=loader("__main__", full))
    return code or compile(source, full, "exec", dont_inherit=True), names, path


def _full(path: str) -> str:
    return os.path.join(os.getcwd(), path)  # as Python does, which keeps a ./ in it


def _holds_main(path: str) -> bool:
    """Whether it is a folder or a zip file, which Python runs by the ``__main__.py`` in it."""
    return pkgutil.get_importer(path) is not None


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
    target = options.module or options.script
    sys.argv = [target, *options.rest]
    main = ModuleType("__main__")
    _former.append(sys.modules["__main__"])
    sys.modules["__main__"] = main
    try:
        code, names, sys.argv[0] = (_of_module if options.module else _of_file)(target)
        if sys.version_info < (3, 14):
            names["__annotations__"] = {}
        vars(main).update(names, __builtins__=builtins)
        exec(code, vars(main))
    except SystemExit:
        raise
    except _Missing as error:
        return complain("run", error, error.code)
    except BaseException as error:
        # Shown as Python itself does it, but without our own frames at the beginning.
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        if isinstance(
            error, KeyboardInterrupt
        ):  # Python ends by the signal, so that a shell's loop ends too
            sys.excepthook = lambda *shown: None
            raise
        return 1
    return 0
