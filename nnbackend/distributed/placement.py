"""Assign cores or a GPU to each rank of a machine."""

from __future__ import annotations

from nnbackend.backends.contract import Backend
from nnbackend.backends.registry import get_backend
from nnbackend.distributed.communicator import Communicator

__all__ = ["local_backend"]


def local_backend(backend: str | Backend, communicator: Communicator) -> Backend:
    """The backend of that name, limited to this rank's share of the cores, or to its GPU.

    Without this, every rank would use all cores, and all ranks the same GPU.

    Parameters
    ----------
    backend : str or Backend
        A `Backend` is returned unchanged.
    communicator : Communicator

    Raises
    ------
    UnknownNameError, BackendUnavailableError
        As :func:`nnbackend.get_backend`.
    """
    chosen = get_backend(backend)
    if isinstance(backend, Backend) or communicator.size == 1:
        return chosen
    if chosen.name == "numpy":
        from nnbackend.backends.numpy import NumpyBackend

        return NumpyBackend(threads=communicator.cores)
    if chosen.name == "numba":
        from nnbackend.backends.numba import NumbaBackend

        return NumbaBackend(threads=communicator.cores)
    if chosen.name == "cupy":
        from nnbackend.backends.cupy import CupyBackend
        from nnbackend.backends.cupy.runtime import CudaRuntime, device_count

        # A launcher may make only one GPU visible to each rank, which then has number 0.
        return CupyBackend(CudaRuntime(communicator.local_rank % device_count()))
    return chosen
