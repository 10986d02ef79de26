"""``nnbackend examples``: programs that show how a neuron becomes a fast trained network."""

from __future__ import annotations

import argparse
import ast
import runpy
import sys
from pathlib import Path

from nnbackend.errors import InvalidInputError, UnknownNameError

__all__ = ["DESCRIPTION", "add_options", "folder", "run", "summaries"]

DESCRIPTION = """List the examples, or run one: the systems of five tutorials that build networks from scratch.

  nnbackend examples                                    what there is
  nnbackend examples run circle                         by name or number (S1)
  nnbackend examples run circle --backend numpy --quick
  nnbackend examples run circle --help                  the idea, the formulae, and where its tutorial errs
"""

#: What the examples share, and is none itself.
_SHARED = "tools"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Two commands of its own: nothing lists, `run` runs."""
    commands = parser.add_subparsers(metavar="run NAME")
    command = commands.add_parser("run", help="run one", allow_abbrev=False)
    command.add_argument("name", help="of the example, or its number")
    # What follows the name is the example's own, --help too.
    command.add_argument("options", nargs=argparse.REMAINDER, help="its options; --help shows them")


def run(options: argparse.Namespace) -> int:
    """List them, or run one."""
    if hasattr(options, "name"):
        return _run(options.name, options.options)
    print("nnbackend examples run NAME [--backend NAME] [--seed N] [--quick] [--out FOLDER]\n")
    for name, summary in summaries().items():
        number, _, line = summary.partition(": ")
        print(f"  {number:4} {name:16} {line.rstrip('.')}")
    return 0


def folder() -> Path:
    """Where the examples lie: within an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for place in (package / "examples", package.parent / "examples"):
        if (place / f"{_SHARED}.py").is_file():
            return place
    raise InvalidInputError(
        f"there are no examples beside {package}; install the package again, or clone its repository"
    )


def summaries() -> dict[str, str]:
    """The first line of every example by its name, in the order of their numbers."""
    found = {}
    for path in folder().glob("*.py"):
        if path.stem != _SHARED:
            # Read and not imported: listing runs nothing.
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
