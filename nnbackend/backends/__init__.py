"""Where arrays live and the kernels that run there; see :mod:`nnbackend.backends.contract` for the contract."""
