"""Where arrays live and the kernels that run there; see :mod:`nnbackend.backends.base` for the contract."""
