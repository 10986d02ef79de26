"""Checks of the Numba backend on an emulated 64-bit Arm CPU, run only when asked for: see `run.sh`."""
