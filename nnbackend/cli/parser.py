"""The options of all commands. Reading them imports nothing heavy, so that --help and mistakes answer at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

import nnbackend
from nnbackend.cli import bench, demo, evaluate, examples, export, info, predict, train, warmup

__all__ = ["make_parser"]

_EXAMPLES = """examples:
  nnbackend train                       MNIST, or 5,000 of its digits
  nnbackend train --backend numpy --epochs 3 --out runs/first
  nnbackend train --preset 784-40-10 --dataset fashion-mnist
  nnbackend evaluate runs/first
  nnbackend predict runs/first seven.png
  nnbackend demo                        draw digits in the browser
  nnbackend examples                    tutorials to run and read
  nnbackend info                        what can run here, and how fast it could
"""


class _Parser(argparse.ArgumentParser):
    """Its errors look like all others: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"nnbackend: error: {message} (see '{self.prog} --help')\n")


def _help(parser: argparse.ArgumentParser) -> int:
    """What a command line without a command gets."""
    parser.print_help()
    return 2


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; what it returns has a function ``run(options) -> exit code``."""
    parser = _Parser(
        prog="nnbackend",
        # A shortened option would turn into another one as soon as an option is added.
        allow_abbrev=False,
        description="Train dense neural networks on NumPy, Numba or a CUDA GPU, and use them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"nnbackend {nnbackend.__version__}")
    parser.set_defaults(run=lambda options: _help(parser))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    modules: dict[str, tuple[Any, str]] = {
        "train": (train, "train a network and keep model, history and pictures in a folder"),
        "evaluate": (evaluate, "loss and accuracy of a model on a data set's test rows"),
        "predict": (predict, "classes of images in PNG or IDX files"),
        "demo": (demo, "a page to draw digits on, and to watch a network learn"),
        "export": (export, "write a model as an ONNX file, for other runtimes"),
        "examples": (examples, "programs that show how a neuron becomes a fast trained network"),
        "info": (info, "what can run on this machine, versions, BLAS, threads, caches"),
        "bench": (bench, "training speed of every backend that can run here"),
        "warmup": (warmup, "compile the Numba backend's kernels now, and keep them for later"),
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
        command.set_defaults(run=module.run)
    return parser
