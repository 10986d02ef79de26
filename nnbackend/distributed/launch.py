"""Which ranks there are: what the program was started with."""

from __future__ import annotations

import os
from collections.abc import Mapping

from nnbackend.distributed.communicator import Alone, Communicator
from nnbackend.errors import DistributedError
from nnbackend.support.checks import above_zero
from nnbackend.support.extras import install_command

__all__ = ["launched_ranks", "world"]

#: What the launchers of MPI tell a process: MPICH, Intel MPI, Cray MPI and `srun --mpi=pmi2`; Open MPI; MVAPICH. Those
#: of SLURM alone say nothing: it sets them for programs that are no MPI programs, too.
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
#: `srun --mpi=pmix` and others say which rank it is, and SLURM how many there are.
_PMIX = ("PMIX_RANK", "SLURM_STEP_NUM_TASKS")

_EXTRA = install_command("mpi")

_world: Communicator | None = None


def launched_ranks(environment: Mapping[str, str] = os.environ) -> int:
    """How many ranks the launcher says that it started; 1 without one."""
    for name in _SIZES:
        if environment.get(name, "").isdecimal():
            return max(1, int(environment[name]))
    if all(environment.get(name, "").isdecimal() for name in _PMIX):
        return max(1, int(environment[_PMIX[1]]))
    return 1


def world(timeout: float = 300.0) -> Communicator:
    """The communicator of all processes that were started together; the same one every time.

    Parameters
    ----------
    timeout : float
        Seconds that a rank waits for another. Whoever does not come within that time, and some seconds, has hung, and
        all ranks end with an error that names it; a rank that has died is missed at once by those of its machine. It
        must be longer than anything one rank does alone: compiling, writing files. Only the first call's counts.

    Returns
    -------
    Communicator
        Of one rank, without any library, in a program that no launcher of MPI has started.

    Raises
    ------
    ImportError
        There are several ranks, but mpi4py is not installed.
    DistributedError
        The launcher is of another MPI than the one mpi4py has: every process would believe itself alone.

    Notes
    -----
    An exception that nobody catches ends all ranks, not only its own.
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
            f"{ranks} ranks were started together, and they need the package mpi4py to talk: {_EXTRA}"
        ) from error
    if communicator.size != ranks:
        raise DistributedError(
            f"{ranks} ranks were started together, but mpi4py sees {communicator.size}: its MPI is not the launcher's. "
            "Start them with the mpiexec of mpi4py's MPI, or build mpi4py with the launcher's: "
            "MPICC=mpicc pip install --no-binary mpi4py mpi4py"
        )
    return communicator
