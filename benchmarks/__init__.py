"""The asv benchmark suites: every backend, side by side."""
