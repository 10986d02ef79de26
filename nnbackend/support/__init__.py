"""Checks, files, HTML, memory and locks: what any part of the package may use."""

#: Of the package.
VERSION = "0.1.0"
