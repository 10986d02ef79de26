"""Detect whether an MPI launcher started the program, and with how many ranks."""

from __future__ import annotations

import os
from collections.abc import Mapping

from nnbackend.distributed.communicator import Alone, Communicator
from nnbackend.errors import DistributedError
from nnbackend.support.checks import above_zero
from nnbackend.support.extras import install_command

__all__ = ["launched_ranks", "world"]

#: The number of ranks in the environment variables of MPI launchers: MPICH, Intel MPI, Cray MPI and `srun --mpi=pmi2`;
#: Open MPI; MVAPICH. SLURM's own variables are not sufficient: it sets them for programs without MPI, too.
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
#: `srun --mpi=pmix` and others set the rank, and SLURM the number of ranks.
_PMIX = ("PMIX_RANK", "SLURM_STEP_NUM_TASKS")

_EXTRA = install_command("mpi")

_world: Communicator | None = None


def launched_ranks(environment: Mapping[str, str] = os.environ) -> int:
    """The number of ranks that the launcher started; 1 without a launcher."""
    for name in _SIZES:
        if environment.get(name, "").isdecimal():
            return max(1, int(environment[name]))
    if all(environment.get(name, "").isdecimal() for name in _PMIX):
        return max(1, int(environment[_PMIX[1]]))
    return 1


def world(timeout: float = 300.0) -> Communicator:
    """The communicator of all processes that were started together; every call returns the same object.

    Parameters
    ----------
    timeout : float
        Seconds that a rank waits for another. If a rank does not respond within this time and a few more seconds, it
        is considered hung, and all ranks end with an error that names it. Ranks on the same machine detect a rank that
        has died at once. The timeout must be longer than anything that one rank does alone, such as compiling or
        writing files. Only the first call's value is used.

    Returns
    -------
    Communicator
        In a program that no MPI launcher has started, a communicator of one rank that needs no library.

    Raises
    ------
    ImportError
        There are several ranks, but mpi4py is not installed.
    DistributedError
        The launcher belongs to another MPI than mpi4py, so every process would be a single rank.

    Notes
    -----
    An uncaught exception ends all ranks, not only its own.
    """
    global _world
    if _world is None:
        seconds = above_zero("timeout", timeout)
        ranks = launched_ranks()
        _world = Alone() if ranks == 1 else _mpi(ranks, seconds)
    return _world


def _mpi(ranks: int, timeout: float) -> Communicator:
    try:
        from nnbackend.distributed.mpi import MpiCommunicator

        communicator = MpiCommunicator(timeout)
    except ImportError as error:
        raise ImportError(
            f"{ranks} ranks were started together, and they need the package mpi4py to communicate: {_EXTRA}"
        ) from error
    if communicator.size != ranks:
        raise DistributedError(
            f"{ranks} ranks were started together, but mpi4py sees {communicator.size}: its MPI is not the launcher's. "
            "Start them with the mpiexec of mpi4py's MPI, or build mpi4py with the launcher's: "
            "MPICC=mpicc pip install --no-binary mpi4py mpi4py"
        )
    return communicator
