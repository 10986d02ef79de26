"""Checks, files, HTML, memory and locks: what any part of the package may use."""
