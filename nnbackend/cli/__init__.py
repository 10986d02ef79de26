"""The command ``nnbackend``: train, evaluate, predict, demo, export, examples, info, bench and warmup."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from nnbackend.cli.parser import make_parser
from nnbackend.cli.text import error_text
from nnbackend.errors import NNBackendError

__all__ = ["main"]

#: What shells report for a program that Ctrl-C ended, and for one whose reader went away.
_INTERRUPTED = 130
_PIPE_CLOSED = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the process if not given.

    Returns
    -------
    int
        Exit code: 0, 2 after an error, 130 after Ctrl-C.
    """
    options = make_parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        print(f"\nnnbackend: interrupted {interrupt}".rstrip(), file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # `nnbackend predict ... | head`: nobody reads on, which is no error of ours. Python would complain again when
        # it flushes at exit, so the rest goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except (NNBackendError, OSError, ImportError) as error:
        print(f"nnbackend: error: {error_text(error)}", file=sys.stderr)
        return 2
    return code
