"""The command ``nnbackend``, also as ``python -m nnbackend``."""

from __future__ import annotations

import sys
import warnings

__all__ = ["main"]


def main() -> int:
    """Run the command line; return the exit code, also if Ctrl-C comes before everything is imported."""
    # The process is ours. The place in the code where a checkpoint could not be written helps no user of the command.
    warnings.formatwarning = lambda message, *place, **line: f"nnbackend: warning: {message}\n"
    try:
        from nnbackend.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("\nnnbackend: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
