"""The CUDA kernels without a GPU: built for the CPU, compiled for GPUs, and every name we call checked."""
