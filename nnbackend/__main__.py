"""The command ``nnbackend``, also as ``python -m nnbackend``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line; return the exit code, also if Ctrl-C comes before everything is imported."""
    try:
        from nnbackend.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("\nnnbackend: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
