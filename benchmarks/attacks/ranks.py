"""Let one of several ranks fail in the middle of a run, and resume the run with another number of ranks.

    python -m benchmarks.attacks.ranks FOLDER KIND RANK EPOCH

is the program of a rank: the rank with that number fails in that way at the end of that epoch. With the kind "none"
none fails, and the run is resumed and ends.
"""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

import nnbackend as nn
from nnbackend.training.checkpoints.checkpoint import checkpoint_files
from nnbackend.training.history import History

__all__ = ["KINDS", "fail_ranks", "mpi_is_missing"]

KINDS = ("kill", "terminate", "raise", "leave", "sleep")

#: Of this Python; another one may belong to another MPI than mpi4py's.
_MPIEXEC = Path(sys.executable).parent / "mpiexec"

_EPOCHS, _ROOT = 4, Path(__file__).resolve().parents[2]


def mpi_is_missing() -> bool:
    """Whether there is no MPI to start ranks with."""
    return importlib.util.find_spec("mpi4py") is None or not _MPIEXEC.exists()


def fail_ranks(count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Let ranks fail `count` times in random ways, at random times.

    Returns
    -------
    outcomes : Counter
        How often the failure was reported in which way.
    wrong : list of str
        Runs that did not end, did not report the failure, or ended with other results when they were resumed.
    """
    draw = random.Random(seed)
    whole = _train(None, None)
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    for attempt in range(count):
        kind, size = KINDS[attempt % len(KINDS)], draw.choice((2, 3))
        rank, epoch = draw.randrange(size), draw.randint(1, _EPOCHS - 1)
        where = f"{kind} on rank {rank} of {size} in epoch {epoch}"
        with tempfile.TemporaryDirectory() as folder:
            try:
                done = _start(size, folder, kind, rank, epoch)
            except subprocess.TimeoutExpired:
                wrong.append(f"{where}: did not end")
                continue
            outcomes[_outcome(done, kind, rank)] += 1
            # If a rank leaves without an error, some launchers end the others and report none.
            if done.returncode == 0 and kind != "leave":
                wrong.append(f"{where}: exit code 0")
            if not checkpoint_files(folder):
                wrong.append(f"{where}: no checkpoint is left")
            resumed = _start(draw.choice((1, 2, 3)), folder, "none", 0, 0)
            if resumed.returncode:
                wrong.append(f"{where}: cannot be resumed: {resumed.stderr[-300:]!r}")
            elif (found := _difference(Path(folder), whole)) > 1e-12:
                wrong.append(f"{where}: other results, by {found:.1e}")
    return outcomes, wrong


def _start(size: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "benchmarks.attacks.ranks", *map(str, arguments)]
    return subprocess.run(
        [str(_MPIEXEC), "-n", str(size), *program], cwd=_ROOT, capture_output=True, text=True, timeout=100
    )


def _outcome(done: subprocess.CompletedProcess[str], kind: str, rank: int) -> str:
    if f"rank {rank}" in done.stderr and "nnbackend: error" in done.stderr:
        return "named by another rank"
    # MPI's launcher may end the others before they report it.
    return "ended as a terminated program ends" if kind == "terminate" else "ended by the launcher"


def _difference(folder: Path, whole: tuple[nn.Network, History]) -> float:
    weights = np.load(folder / "weights.npy")
    return float(np.abs(weights - _flat(whole[0])).max())


def _flat(network: nn.Network) -> np.ndarray:
    return np.concatenate([array.ravel() for array in network.get_weights().values()])


class _Failure(nn.Callback):
    """Fails at the end of an epoch."""

    def __init__(self, kind: str, epoch: int) -> None:
        self._kind, self._epoch = kind, epoch

    def on_epoch_end(self, network: nn.Network, epoch: int, metrics: object) -> None:
        if epoch != self._epoch:
            return
        if self._kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._kind == "terminate":
            os.kill(os.getpid(), signal.SIGTERM)
        if self._kind == "raise":
            raise OSError("the disk is full")
        if self._kind == "leave":
            os._exit(0)
        time.sleep(1000)


def _train(
    communicator: nn.distributed.Communicator | None, folder: str | None, *failure: nn.Callback
) -> tuple[nn.Network, History]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 60)
    rows = generator.normal(size=(60, 5)) + labels[:, None]
    layers = [nn.Dense(8, activation="tanh"), nn.Dropout(0.2), nn.Dense(3)]
    network = nn.Network(layers, 5, backend="numpy", dtype="float64", seed=1)
    kept = [] if folder is None else [nn.Checkpoint(folder, every_steps=1)]
    history = network.fit(
        rows, labels, epochs=_EPOCHS, batch_size=16, loss="softmax_cross_entropy", optimizer=nn.Adam(0.01),
        callbacks=[*kept, *failure], resume=folder is not None, communicator=communicator, verbose=False,
    )  # fmt: skip
    return network, history


def _main(folder: str, kind: str, rank: str, epoch: str) -> None:
    world = nn.distributed.world(timeout=2.0 if kind in ("sleep", "leave") else 60.0)
    fails = kind != "none" and world.rank == int(rank)
    network, _ = _train(world, folder, *([_Failure(kind, int(epoch))] if fails else []))
    if kind == "none" and world.rank == 0:
        np.save(Path(folder, "weights.npy"), _flat(network))


if __name__ == "__main__":
    _main(*sys.argv[1:])
