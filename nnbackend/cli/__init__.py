"""The command ``nnbackend``: train, search, evaluate, predict, demo, export, examples, info, bench and warmup."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from nnbackend.cli.parser import make_parser
from nnbackend.cli.text import error_text
from nnbackend.errors import NNBackendError

__all__ = ["main"]

#: The exit codes that shells report after Ctrl-C (SIGINT) and after a closed pipe (SIGPIPE).
_INTERRUPTED = 130
_PIPE_CLOSED = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: the arguments of the process.

    Returns
    -------
    int
        Exit code: 0, 2 after an error, 130 after Ctrl-C; others as the help of a command says.
    """
    try:
        options = make_parser().parse_args(arguments)
        code: int = options.run(options)
        if sys.stdout is not None:
            # It is None if the process was started without one.
            sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        print(f"\nnnbackend: interrupted {interrupt}".rstrip(), file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # `nnbackend predict ... | head` closes the pipe early, which is not an error. Python would complain when it
        # flushes stdout at exit, so redirect the rest to the null device.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except (NNBackendError, OSError, ImportError) as error:
        print(f"nnbackend: error: {error_text(error)}", file=sys.stderr)
        return 2
    return code
