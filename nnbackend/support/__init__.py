"""Utilities for the whole package: checks, files, HTML, memory, locks and install hints."""
