"""Kinds of input at every public entry point, on every backend.

`kinds.py` generates them, `table.txt` says which are taken and which are refused and why, `test_doors.py` compares.
``python -m tests.doors`` prints the table as the package behaves now, for a review with ``git diff``.
"""
