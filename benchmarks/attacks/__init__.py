"""Attacks on files and run folders: kills at every write, full disks, damage, two runs at once, hostile folders.

    python -m benchmarks.attacks [writes] [disk] [damage] [two-runs] [folders] [--count 50] [--seed 0] [--out FILE]

Each attack prints one line for each kind of work: how often it was tried and what violates the guarantees of
`docs/checkpoints.md` and `SECURITY.md`. The exit code is 1 if anything does. ``python -m benchmarks.kills`` kills runs
at random times instead.
"""
