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
    if isinstance(backend, Backend) or communicator.size == 1:
        return get_backend(backend)
    if backend in ("cupy", "auto") and _has_gpu():
        _use_own_gpu(communicator)
    chosen = get_backend(backend)
    if chosen.name == "numpy":
        from nnbackend.backends.numpy import NumpyBackend

        return NumpyBackend(threads=communicator.cores)
    if chosen.name == "numba":
        from nnbackend.backends.numba import NumbaBackend

        return NumbaBackend(threads=communicator.cores)
    if chosen.name == "cupy":
        from nnbackend.backends.cupy import CupyBackend
        from nnbackend.backends.cupy.runtime import CudaRuntime

        return CupyBackend(CudaRuntime(_number_of_own_gpu(communicator)))
    return chosen


def _has_gpu() -> bool:
    from nnbackend.backends import cupy

    return cupy.probe()[0] is None


def _use_own_gpu(communicator: Communicator) -> None:
    """Before a backend is made: it would begin on the first GPU, and all ranks would take memory of that one."""
    from nnbackend.backends.cupy.runtime import use_device

    use_device(_number_of_own_gpu(communicator))


def _number_of_own_gpu(communicator: Communicator) -> int:
    from nnbackend.backends.cupy.runtime import device_count

    # A launcher may make only one GPU visible to each rank, which then has number 0.
    return communicator.local_rank % device_count()
