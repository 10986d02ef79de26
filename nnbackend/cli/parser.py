"""The argument parser of all commands. It imports nothing heavy, so --help and usage errors appear at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import nnbackend
from nnbackend.cli import bench, demo, evaluate, examples, export, info, predict, search, train, warmup

__all__ = ["make_parser"]

_EXAMPLES = """examples:
  nnbackend train                       train on MNIST or 5,000 of its digits
  nnbackend train --backend numpy --epochs 3 --out runs/first
  nnbackend train --preset 784-40-10 --dataset fashion-mnist
  nnbackend train houses.csv --target price --out houses
  nnbackend predict houses more_houses.csv --out prices.csv
  nnbackend search --learning-rate 0.001 0.003 --hidden 100 200 --dropout 0 0.2
  nnbackend evaluate runs/first
  nnbackend predict runs/first seven.png
  nnbackend demo                        draw digits in the browser
  nnbackend examples                    list programs to read and run
  nnbackend info                        show what can run on this machine
"""


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser that reports errors like the rest of the program: one line, with a suggestion, exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"nnbackend: error: {message} (see '{self.prog} --help')\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, extra = self.parse_known_args(args, namespace)
        if extra:
            parser: _Parser = getattr(options, "parser", self)
            unknown = [word.partition("=")[0] for word in extra if word.startswith("-")]
            if unknown:
                known = [name for name in parser._option_string_actions if name.startswith("--")]
                parser.error(f"unknown option {unknown[0]}{_suggestion(unknown[0], known)}")
            hint = "; sizes are separated by commas, such as 200,80" if extra[0].isdecimal() else ""
            parser.error(f"unexpected argument {extra[0]!r}{hint}")
        return options

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # argparse's own message lists all choices and suggests none.
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        hint = _suggestion(str(value), choices) or f"; known: {', '.join(choices)}"
        if isinstance(action, argparse._SubParsersAction):
            self.error(f"unknown command {str(value)!r}{hint}")
        name = "/".join(action.option_strings) or action.metavar or action.dest
        self.error(f"{name}: unknown {str(value)!r}{hint}")


def _suggestion(text: str, known: Iterable[str]) -> str:
    """The name that was probably meant, as the end of a message; empty if none is near."""
    import difflib

    # Without the dashes, which all options share.
    names = {name.lstrip("-"): name for name in known}
    near = difflib.get_close_matches(text.lower().lstrip("-"), list(names), n=1, cutoff=0.6)
    return f": did you mean {names[near[0]]}?" if near else ""


def _help(parser: argparse.ArgumentParser) -> int:
    """Print the help and return 2, because no command was given."""
    parser.print_help()
    return 2


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line; parsed options have a function ``run(options) -> exit code``."""
    parser = _Parser(
        prog="nnbackend",
        # An abbreviated option could change its meaning when another option is added.
        allow_abbrev=False,
        description="Train and use dense neural networks on NumPy, Numba or a CUDA GPU.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"nnbackend {nnbackend.__version__}")
    parser.set_defaults(run=lambda options: _help(parser))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    modules: dict[str, tuple[Any, str]] = {
        "train": (train, "train a network; save model, history and pictures"),
        "search": (search, "train with many hyperparameters at once; save the best network"),
        "evaluate": (evaluate, "print loss and accuracy on a data set's test rows, or a table"),
        "predict": (predict, "classify images from files, or predict the rows of a table"),
        "demo": (demo, "open a page to draw digits and watch a network learn"),
        "export": (export, "write a model as an ONNX file or a C header"),
        "examples": (examples, "list or run small programs, from one neuron to MNIST"),
        "info": (info, "show usable backends, versions, BLAS, threads, caches"),
        "bench": (bench, "measure the training speed of every usable backend"),
        "warmup": (warmup, "compile the Numba backend's kernels ahead of time"),
    }
    for name, (module, summary) in modules.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=module.DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        add_options: Callable[[argparse.ArgumentParser], None] = module.add_options
        add_options(command)
        command.set_defaults(run=module.run, parser=command)
    return parser
