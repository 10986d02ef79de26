"""``nnbackend examples``: small programs, from a single neuron to MNIST."""

from __future__ import annotations

import argparse
import ast
import runpy
import sys
from pathlib import Path

from nnbackend.errors import InvalidInputError, UnknownNameError

__all__ = ["DESCRIPTION", "add_options", "folder", "run", "summaries"]

DESCRIPTION = """List the examples or run one. They rebuild the networks of five tutorials.

  nnbackend examples                                    list all examples
  nnbackend examples run circle                         run by name or number (S1)
  nnbackend examples run circle --backend numpy --quick
  nnbackend examples run circle --help                  idea, formulae and the tutorial's errors
"""

#: The module that the examples share; not an example itself.
_SHARED = "tools"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand ``run``; without it, the examples are listed."""
    commands = parser.add_subparsers(metavar="run NAME")
    command = commands.add_parser("run", help="run an example", allow_abbrev=False)
    command.add_argument("name", help="name or number of the example")
    # Everything after the name, including --help, is passed to the example.
    command.add_argument("options", nargs=argparse.REMAINDER, help="options of the example; --help lists them")


def run(options: argparse.Namespace) -> int:
    """List the examples or run one, and return the exit code."""
    if hasattr(options, "name"):
        return _run(options.name, options.options)
    print("nnbackend examples run NAME [--backend NAME] [--seed N] [--quick] [--out FOLDER]\n")
    for name, summary in summaries().items():
        number, _, line = summary.partition(": ")
        print(f"  {number:4} {name:16} {line.rstrip('.')}")
    return 0


def folder() -> Path:
    """The folder of the examples: inside an installed package, or beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for place in (package / "examples", package.parent / "examples"):
        if (place / f"{_SHARED}.py").is_file():
            return place
    raise InvalidInputError(
        f"there are no examples beside {package}; install the package again from a complete checkout"
    )


def summaries() -> dict[str, str]:
    """Map the name of each example to the first line of its docstring, ordered by number."""
    found = {}
    for path in folder().glob("*.py"):
        if path.stem != _SHARED:
            # Parse instead of importing, so that listing runs no example.
            doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            found[path.stem] = doc.partition("\n")[0]
    return dict(sorted(found.items(), key=lambda item: int(item[1].partition(":")[0].removeprefix("S"))))


def _run(name: str, options: list[str]) -> int:
    numbers = {summary.partition(":")[0].lower(): stem for stem, summary in summaries().items()}
    stem = numbers.get(name.lower(), name)
    if stem not in numbers.values():
        raise UnknownNameError("example", name, numbers.values())
    path = folder() / f"{stem}.py"
    sys.path.insert(0, str(path.parent))
    arguments, sys.argv = sys.argv, [str(path), *options]
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1
    finally:
        sys.argv = arguments
        sys.path.remove(str(path.parent))
    return 0
