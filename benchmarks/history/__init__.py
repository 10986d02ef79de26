"""Five benchmarks over the history of the project, and the dashboard that shows them.

    python -m benchmarks.history run              measure the commits of `commits.txt` in turns; can be stopped
    python -m benchmarks.history add [COMMIT]     add a commit, HEAD by default, to the stored results
    python -m benchmarks.history compare [BASE]   what HEAD made slower, in about a minute
    python -m benchmarks.history publish          the dashboard, in .asv/html; needs asv and npm

The benchmarks are in `suite.py`, which also runs with older versions of the package. `asv run` runs them, too.
"""
