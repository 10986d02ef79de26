"""Tests of the CUDA kernels without a GPU: built for the CPU, compiled for GPUs, and with checks of all CuPy names
used."""
