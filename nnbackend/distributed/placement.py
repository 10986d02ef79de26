"""Each rank's share of the machine it is on."""

from __future__ import annotations

from nnbackend.backends.contract import Backend
from nnbackend.backends.registry import get_backend
from nnbackend.distributed.communicator import Communicator

__all__ = ["local_backend"]


def local_backend(backend: str | Backend, communicator: Communicator) -> Backend:
    """The backend of that name with the cores, or the GPU, that are this rank's among those of its machine.

    Without it every rank takes all cores, and all take the same GPU.

    Parameters
    ----------
    backend : str or Backend
        A `Backend` is passed through.
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

        # A launcher may have left each rank a single one to see, which is then number 0.
        return CupyBackend(CudaRuntime(communicator.local_rank % device_count()))
    return chosen
