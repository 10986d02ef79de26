"""Utilities for the whole package: checks, files, HTML, memory, locks and install hints."""

#: The package's version.
VERSION = "0.1.0"
