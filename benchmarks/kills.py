"""Kill a training run at random times, resume it, and compare the result with that of an uninterrupted run.

    python -m benchmarks.kills [--kills 50] [--backends numpy numba] [--networks dense convolutional] [--out FILE]

Each process trains in the same folder, resuming from the newest checkpoint, and is killed with SIGKILL, which a program
cannot handle, at a random time after training starts. When a run has finished, its weights, optimizer state and all
metrics of its history except the seconds are compared bit by bit. Then another run starts in an empty folder, until the
requested number of kills is reached.

    python -m benchmarks.kills train FOLDER BACKEND NETWORK ROWS EPOCHS

is one such process; without a folder (``-``) it writes no checkpoints.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import nnbackend as nn
from benchmarks.common import images
from nnbackend.training.checkpoints.checkpoint import checkpoint_files
from nnbackend.training.history import History

#: The run uses every feature that has state. The last batch of an epoch is shorter.
_BATCH, _EVERY_STEPS, _SIZES = 128, 5, (200, 80)
#: Seconds from the start of training to the kill.
_SOONEST, _LATEST = 0.0, 0.6
_READY = "training\n"


def _dense() -> list[nn.Layer]:
    return [
        nn.Dense(_SIZES[0], activation="gelu", l2=1e-4),
        nn.Dropout(0.2),
        nn.Dense(_SIZES[1], activation="relu", l1=1e-6),
        nn.Dense(10),
    ]


def _convolutional() -> list[nn.Layer]:
    return [
        nn.Conv2D(16, 3, activation="relu"),
        nn.MaxPool2D(4),
        nn.Conv2D(16, 3, l2=1e-4),
        nn.BatchNormalization(),
        nn.Activation("relu"),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Dense(10),
    ]


#: By name: the layers, the random transformations of the images, and a description.
_NETWORKS: dict[str, tuple[Callable[[], list[nn.Layer]], list[nn.augment.Augmentation], str]] = {
    "dense": (_dense, [], f"784-{_SIZES[0]}-{_SIZES[1]}-10, dropout, L1 and L2"),
    "convolutional": (
        _convolutional,
        [nn.augment.Shift(2), nn.augment.Rotate(10)],
        "two convolutions of 16 kernels of 3x3, batch normalisation, dropout, L2, shifts and rotations",
    ),
}


def train(folder: str, backend: str, kind: str, rows: int, epochs: int) -> dict[str, str]:
    """Train or resume, and print checksums of all results of the run."""
    layers, augment, _ = _NETWORKS[kind]
    x, y = images(rows + 500)
    if kind == "convolutional":
        x = x.reshape(-1, 28, 28, 1)
    network = nn.Network(layers(), x.shape[1:], backend=backend, seed=3, input_scale=1 / 255)
    optimizer = nn.Adam(nn.Warmup(1, nn.ReduceOnPlateau(2e-3, patience=1, factor=0.7)))

    class Ready(nn.Callback):
        def on_epoch_begin(self, network: nn.Network, epoch: int) -> None:
            if not said:
                said.append(epoch)
                print(_READY, end="", flush=True)

    said: list[int] = []
    callbacks: list[nn.Callback] = [nn.EarlyStopping("loss", patience=epochs), Ready()]
    if folder != "-":
        callbacks.append(nn.Checkpoint(folder, every_steps=_EVERY_STEPS))
    history = network.fit(
        x[:rows],
        y[:rows],
        epochs=epochs,
        batch_size=_BATCH,
        loss="softmax_cross_entropy",
        optimizer=optimizer,
        validation_data=(x[rows:], y[rows:]),
        callbacks=callbacks,
        augment=augment,
        resume=folder != "-",
        verbose=False,
    )
    return _checksums(network, history)


def _checksums(network: nn.Network, history: History) -> dict[str, str]:
    memory = network.optimizer_state
    assert memory is not None
    slots = {name: network.backend.to_host(slot) for name, slot in memory.slots.items()}
    figures = [
        {name: float(value).hex() for name, value in epoch.items() if name not in ("seconds", "samples_per_second")}
        for epoch in history.epochs
    ]
    counts = [network.steps_trained, network.epochs_trained, memory.steps, memory.epochs]
    parts = {
        "weights": [array.tobytes() for array in network.get_weights().values()],
        "optimiser slots": [array.tobytes() for array in slots.values()],
        "counts of steps and epochs": [json.dumps(counts).encode()],
        "history": [json.dumps(figures).encode(), history.stopped_by.encode()],
        "losses of all steps": [losses.tobytes() for losses in history.step_losses],
    }
    return {name: hashlib.sha256(b"".join(found)).hexdigest() for name, found in parts.items()}


@dataclass
class Findings:
    """The results of one backend and network.

    Attributes
    ----------
    backend, network : str
    kills, runs : int
        Processes killed during training, and finished runs.
    writing : int
        Kills during the writing of a checkpoint.
    steps : int
        Steps of a run.
    lost : list of float
        Seconds between the newest checkpoint, or the start of training, and the kill.
    different : list of str
        Results that were not bit-identical, over all runs.
    """

    backend: str
    network: str = "dense"
    kills: int = 0
    runs: int = 0
    writing: int = 0
    steps: int = 0
    lost: list[float] = field(default_factory=list)
    different: list[str] = field(default_factory=list)


def kill_and_resume(
    backend: str, kills: int, seed: int, rows: int = 4000, epochs: int = 40, network: str = "dense"
) -> Findings:
    """Kill `kills` processes at random times, and return the findings."""
    findings = Findings(backend, network)
    moments = random.Random(seed)
    undisturbed = _ended(_process("-", backend, network, rows, epochs))
    findings.steps = epochs * -(-rows // _BATCH)
    while findings.kills < kills or not findings.runs:
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent, "run")
            while True:
                process, said = _process(str(folder), backend, network, rows, epochs), ""
                if findings.kills >= kills or (said := _kill(process, moments, folder, findings)) is not None:
                    break
            found = _ended(process, said)
        findings.runs += 1
        findings.different += [name for name, checksum in undisturbed.items() if found.get(name) != checksum]
    return findings


def _process(folder: str, backend: str, network: str, rows: int, epochs: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.kills", "train", folder, backend, network, str(rows), str(epochs)]
    return subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True)


def _kill(process: subprocess.Popen[str], moments: random.Random, folder: Path, findings: Findings) -> str | None:
    """Kill a process some time after training starts.

    Returns
    -------
    str or None
        None if it was killed. If it ended before, the output that was read: its result if the run was finished when the
        process started.
    """
    assert process.stdout is not None
    line = process.stdout.readline()
    if line != _READY:
        return line
    began = time.time()
    time.sleep(moments.uniform(_SOONEST, _LATEST))
    if process.poll() is not None:
        return line
    process.kill()
    process.communicate()
    killed = time.time()
    newest = max([began, *(path.stat().st_mtime for path in checkpoint_files(folder)[:1])])
    findings.kills += 1
    findings.lost.append(max(0.0, killed - newest))
    findings.writing += any(name.endswith(".tmp") for name in os.listdir(folder)) if folder.exists() else 0
    return None


def _ended(process: subprocess.Popen[str], said: str = "") -> dict[str, str]:
    """The result of a process that is not killed, of whose output `said` was read before."""
    output = said + process.communicate()[0]
    if process.returncode:
        raise RuntimeError(f"the training process ended with code {process.returncode}")
    found: dict[str, str] = json.loads(output.splitlines()[-1])
    return found


def report(findings: Findings) -> str:
    """The findings as text."""
    lost = sorted(findings.lost) or [0.0]
    verdict = "bit-identical: weights, optimiser slots, counts, history, losses of all steps"
    if findings.different:
        verdict = f"DIFFERENT: {', '.join(sorted(set(findings.different)))}"
    return (
        f"{findings.network}, {findings.backend}: {findings.kills} kills in {findings.runs} runs of "
        f"{findings.steps:,} steps, {findings.writing} of them while a checkpoint was written\n"
        f"  every resumed run against the undisturbed one: {verdict}\n"
        f"  training lost in a kill: median {1000 * lost[len(lost) // 2]:.0f} ms, at most {1000 * lost[-1]:.0f} ms"
    )


def main() -> None:
    if sys.argv[1:2] == ["train"]:
        folder, backend, kind, rows, epochs = sys.argv[2:]
        print(json.dumps(train(folder, backend, kind, int(rows), int(epochs))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--backends", nargs="+", default=["numpy", "numba"])
    parser.add_argument("--networks", nargs="+", default=list(_NETWORKS), choices=_NETWORKS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a file for what is printed")
    options = parser.parse_args()
    lines = [
        f"{time.strftime('%Y-%m-%d')}: python -m benchmarks.kills --kills {options.kills} --backends "
        f"{' '.join(options.backends)} --networks {' '.join(options.networks)} --seed {options.seed}; "
        f"Python {platform.python_version()}, NumPy {np.__version__}",
        f"Adam, warm-up, ReduceOnPlateau, EarlyStopping; batches of {_BATCH}, a checkpoint every {_EVERY_STEPS} steps; "
        f"SIGKILL {_SOONEST:g} to {_LATEST:g} s after training began",
        *(f"{name}: {_NETWORKS[name][2]}" for name in options.networks),
    ]
    found = []
    for network in options.networks:
        for backend in options.backends:
            found.append(kill_and_resume(backend, options.kills, options.seed, network=network))
            lines.append(report(found[-1]))
    print("\n".join(lines))
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if any(findings.different for findings in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
