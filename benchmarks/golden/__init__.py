"""Results of small training runs as checksums, to see that a change of the code changes none of them.

    python -m benchmarks.golden [--only PATTERN] [--json] [--twice]

prints one line for each configuration: its name and checksums of all that it came to, weights, history and outputs.

    python -m benchmarks.golden --against COMMIT

runs the same configurations with the package of another commit too, in a temporary worktree, and prints the
differences. Each package runs in new processes until two in a row agree. The results of the other commit are kept in
`build/golden` for the next comparison.

Checksums depend on the processor and on the versions of NumPy and Numba, so they are compared with those of another run
on the same machine and never kept in the repository. The configurations use public names of the package alone: its
internals may move between the two commits.
"""
