"""Fuzz all readers of untrusted files and descriptions.

``python -m tests.fuzz --seconds 60 --seed 0`` tries mutated inputs on all targets. Each input must end in a result, an
error of nnbackend or an OSError of the system, within a time limit and within the memory limit of its target. An input
that violates this is written to a file; move it to ``found``, where ``tests/saving/test_hostile_files.py`` tries it.
"""
