"""Checksums of the results of small training runs, to verify that a change of the code changes no result.

    python -m benchmarks.golden [--only PATTERN] [--json] [--twice]

prints one line for each configuration: its name and checksums of its weights, history and outputs.

    python -m benchmarks.golden --against COMMIT

also runs the configurations with the package of another commit, in a temporary worktree, and prints the differences.
Each package runs in new processes until two consecutive ones agree. The results of the other commit are cached in
`build/golden`.

Checksums depend on the processor and on the versions of NumPy and Numba, so compare only runs on the same machine; they
are not stored in the repository. The configurations use only public names of the package, because its internals may
differ between the commits.
"""
