"""Configurations for training runs: streams, ranks, callbacks, checkpoints, files, changes of the backend."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import nnbackend as nn

from .common import CLASSES, FEATURES, backend_of, images, rich_network, table, train
from .digest import Outcome, configuration
from .ranks import run_ranks

__all__: list[str] = []

Program = Callable[..., None]


def _on(*backends: str) -> Callable[[Program], Program]:
    """Register a program on several backends, with its own name."""

    def register(program: Program) -> Program:
        for backend in backends:
            configuration(f"{backend}/{program.__name__.strip('_').replace('_', '-')}", backend)(program)
        return program

    return register


_plain = _on("numpy", "numba")


@_plain
def _streamed(outcome: Outcome, backend: str) -> None:
    """Rows streamed in portions, from memory and from a file."""
    x, y = images(rows=203)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.npy")
        np.save(path, x)
        for rows, options in ((x, {}), (np.load(path, mmap_mode="r").view(type(x)), {"shuffle": False})):
            network = rich_network(backend)
            validation = (x[:20], y[:20])
            outcome.run(network, train(network, rows, y, stream=True, validation_data=validation, **options))


@_on("numpy", "numba", "numba-padded")
def _batch_stream(outcome: Outcome, backend: str) -> None:
    x, y = table(rows=150)

    def pieces(epoch: int) -> Iterator[tuple[Any, ...]]:
        for start in range(0, 150, 23):
            rows = slice(start, start + 23)
            yield x[rows] + 0.01 * epoch, y[rows], np.linspace(0.5, 1.5, 150)[rows]

    stream = nn.BatchStream(pieces, 150)
    for shuffle in (True, False):
        network = rich_network(backend)
        outcome.run(network, train(network, stream, shuffle=shuffle, validation_data=stream))
        outcome.add("outputs", network.evaluate(stream))


@_plain
def _steps_per_epoch(outcome: Outcome, backend: str) -> None:
    x, y = images()
    for steps, stream in ((3, None), (11, None), (7, True)):
        network = rich_network(backend)
        outcome.run(network, train(network, x, y, epochs=3, steps_per_epoch=steps, stream=stream))


@_plain
def _single_batches(outcome: Outcome, backend: str) -> None:
    """Steps on the caller's batches of two sizes, with weights, followed by more training."""
    x, y = images()
    network, optimizer = rich_network(backend), nn.Adam(0.01)
    for start in (0, 16, 32, 48, 64):
        rows = slice(start, start + 16)
        weights = np.linspace(0.5, 2, len(y[rows])) if start == 32 else None
        figures = network.train_on_batch(
            x[rows], y[rows], loss="softmax_cross_entropy", optimizer=optimizer, sample_weight=weights
        )
        outcome.add("outputs", figures)
    outcome.run(network, train(network, x, y, optimizer=optimizer))


@_plain
def _fits_in_a_row(outcome: Outcome, backend: str) -> None:
    """Training continued with the same optimiser, a new optimiser, and another loss."""
    x, y = images()
    network, optimizer = rich_network(backend), nn.Adam(nn.CosineDecay(0.02, 4))
    outcome.run(network, train(network, x, y, epochs=1, optimizer=optimizer))
    outcome.run(network, train(network, x, y, epochs=2, optimizer=optimizer, batch_size=25))
    outcome.run(network, train(network, x, y, epochs=1, optimizer="rmsprop"))
    outcome.run(network, train(network, x, y, epochs=1, optimizer="sgd", loss="mean_squared_error", shuffle=False))


@_plain
def _skipped_steps(outcome: Outcome, backend: str) -> None:
    """Targets so large that their step must be skipped."""
    x, _ = table(rows=80)
    y = np.sin(x[:, :2])
    y[[5, 61]] = 1e30
    layers = [nn.Dense(9, activation="relu"), nn.Dropout(0.2), nn.Dense(2)]
    for stream in (None, True):
        network = nn.Network(layers, FEATURES, backend=backend_of(backend), seed=1)
        options = {"loss": "mean_squared_error", "optimizer": nn.Adam(0.01), "on_nan": "skip", "stream": stream}
        outcome.run(network, train(network, x, y, batch_size=10, **options))


@_plain
def _callbacks(outcome: Outcome, backend: str) -> None:
    """Early stopping, keeping the best epoch, and the files of both."""
    x, y = table(rows=60)
    options = {"epochs": 12, "validation_data": (x[:20][::-1], y[:20]), "optimizer": nn.SGD(0.3)}
    with tempfile.TemporaryDirectory() as folder:
        path, log = Path(folder, "best-{epoch}.safetensors"), Path(folder, "log.csv")
        for callback in (
            nn.EarlyStopping(patience=2),
            nn.EarlyStopping("val_accuracy", patience=3, restore_best=False),
            nn.EarlyStopping("loss", patience=1, minimum_change=0.05),
            nn.KeepBest("val_accuracy"),
            nn.KeepBest("loss"),
        ):
            network = rich_network(backend, seed=1)
            files = [nn.ModelCheckpoint(path, best_only=False), nn.CSVLogger(log)]
            outcome.run(network, train(network, x, y, callbacks=[callback, *files], **options))
            outcome.add("history", [callback.best_epoch, callback.best_value])
        for file in sorted(Path(folder).glob("*.safetensors")):
            outcome.network(nn.Network.load(file, backend=backend_of(backend)))
        names = log.read_text(encoding="utf-8").splitlines()[0]
        outcome.add("outputs", names)


class _Steps(nn.Callback):
    """Records its calls."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def on_train_begin(self, network: nn.Network, epochs: int) -> None:
        self.calls.append(["begin", epochs])

    def on_epoch_begin(self, network: nn.Network, epoch: int) -> None:
        self.calls.append(["epoch", epoch])

    def on_steps_end(self, network: nn.Network, epoch: int, losses: Any) -> None:
        self.calls.append(["steps", epoch, losses.copy()])

    def on_epoch_end(self, network: nn.Network, epoch: int, figures: Any) -> str | None:
        self.calls.append(["end", epoch, figures["loss"]])
        return "enough" if epoch == 3 else None

    def on_train_end(self, network: nn.Network, history: nn.History) -> None:
        self.calls.append(["finished", len(history)])


@_plain
def _own_callback(outcome: Outcome, backend: str) -> None:
    x, y = images()
    network, steps = rich_network(backend), _Steps()
    outcome.run(network, train(network, x, y, epochs=5, callbacks=[steps]))
    outcome.add("history", steps.calls)


@_plain
def _resumed(outcome: Outcome, backend: str) -> None:
    """Two epochs, continued by a new network to four; with checkpoints at the ends of epochs and within."""
    x, y = images()
    for every_steps in (None, 3):
        with tempfile.TemporaryDirectory() as folder:
            for epochs in (2, 4):
                network = rich_network(backend)
                options = {
                    "optimizer": nn.Adam(nn.Warmup(0.5, nn.ReduceOnPlateau(0.02, patience=1))),
                    "validation_data": (x[:30], y[:30]),
                    "callbacks": [nn.EarlyStopping(patience=4), nn.Checkpoint(folder, every_steps=every_steps)],
                }
                outcome.run(network, train(network, x, y, epochs=epochs, resume=True, **options))
            for file in sorted(Path(folder).glob("*.safetensors")):
                outcome.add("outputs", file.name)
                outcome.network(nn.Network.load(file, backend=backend_of(backend)))


class _Cut(nn.Callback):
    """Ends the run like a crash."""

    def on_epoch_begin(self, network: nn.Network, epoch: int) -> None:
        if epoch == 3:
            raise RuntimeError("a crash")


@_plain
def _resumed_after_a_crash(outcome: Outcome, backend: str) -> None:
    x, y = images()
    with tempfile.TemporaryDirectory() as folder:
        for crash in (True, False):
            network = rich_network(backend, "float64")
            checkpoint = nn.Checkpoint(folder, every_steps=4, keep=2)
            options = {"epochs": 4, "optimizer": nn.AdamW(0.01), "resume": True, "steps_per_epoch": 7}
            try:
                callbacks = [checkpoint, _Cut()] if crash else [checkpoint]
                outcome.history(train(network, x, y, callbacks=callbacks, **options))
            except RuntimeError as error:
                outcome.add("history", str(error))
            outcome.network(network)


def _on_ranks(outcome: Outcome, backend: str, size: int) -> None:
    x, y = images()

    def program(communicator: nn.distributed.Communicator) -> tuple[nn.Network, nn.History]:
        network = rich_network(backend)
        weights = np.linspace(0.5, 2, 70)
        options = {"optimizer": nn.Adam(0.01), "validation_data": (x[:21], y[:21]), "sample_weight": weights}
        return network, train(network, x, y, communicator=communicator, **options)

    for network, history in run_ranks(size, program):
        outcome.run(network, history)


@_plain
def _two_ranks(outcome: Outcome, backend: str) -> None:
    _on_ranks(outcome, backend, 2)


@_plain
def _three_ranks(outcome: Outcome, backend: str) -> None:
    _on_ranks(outcome, backend, 3)


@_on("numpy", "numba")
def _two_shards(outcome: Outcome, backend: str) -> None:
    """Each rank has its own, different number of rows; in memory and as a stream."""
    x, y = images()

    def program(communicator: nn.distributed.Communicator) -> tuple[nn.Network, nn.History]:
        own = slice(0, 45) if communicator.rank == 0 else slice(45, 70)
        network = rich_network(backend)
        options: dict[str, Any] = {"communicator": communicator, "shard": True, "validation_data": (x[own], y[own])}
        train(network, x[own], y[own], epochs=1, **options)
        stream = nn.BatchStream(lambda epoch: [(x[own], y[own])], len(y[own]))
        return network, train(network, stream, **options)

    for network, history in run_ranks(2, program):
        outcome.run(network, history)


@_plain
def _moved(outcome: Outcome, backend: str) -> None:
    """Change the backend in the middle of a run and back, with the optimiser's state."""
    x, y = images()
    other = "numba" if backend == "numpy" else "numpy"
    network, optimizer = rich_network(backend), nn.Adam(0.01)
    outcome.run(network, train(network, x, y, optimizer=optimizer))
    for place in (f"{other}-padded", other, backend):
        network.to(backend_of(place))
        outcome.run(network, train(network, x, y, epochs=1, optimizer=optimizer))
    outcome.add("outputs", network.predict(x))


@_plain
def _predictions(outcome: Outcome, backend: str) -> None:
    """Predictions before and after training with several batch sizes, and those of copies, pickles and files."""
    x, y = images(rows=1100)
    network = rich_network(backend)
    outcome.add("outputs", network.predict(x[:50]))
    snapshot = network.snapshot()
    outcome.run(network, train(network, x, y, epochs=1, batch_size=64))
    for size in (None, 1, 7, 4000):
        outcome.add("outputs", [network.predict(x[:200], size), network.predict_classes(x, size)])
        outcome.add("outputs", network.evaluate(x, y, batch_size=size))
    outcome.add("outputs", network.evaluate(x, y, loss="mean_squared_error"))
    if "padded" not in backend:
        outcome.add("outputs", pickle.loads(pickle.dumps(network)).predict(x[:9]))
        outcome.add("outputs", copy.deepcopy(network).predict(x[:9]))
    network.restore(snapshot)
    outcome.network(network)


@configuration("numpy/files")
def _files(outcome: Outcome) -> None:
    """The bytes of a model file, a network loaded from it, and one created from its configuration."""
    x, y = images()
    network = rich_network("numpy")
    history = train(network, x, y)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        network.save(path)
        outcome.add("files", path.read_bytes())
        again = nn.Network.load(path, backend=backend_of("numpy"))
        outcome.run(again, train(again, x, y))
        history.to_csv(Path(folder, "history.csv"))
        table_of = Path(folder, "history.csv").read_text(encoding="utf-8").splitlines()
        outcome.add("files", [table_of[0], len(table_of)])
    outcome.add("files", network.config())
    outcome.network(nn.Network.from_config(network.config(), backend_of("numpy")))
    outcome.network(nn.Network.from_config(network.config(), backend_of("numpy"), seed=3))
    weights = {name: value[::-1].copy() for name, value in network.get_weights().items()}
    network.set_weights(weights)
    outcome.network(network)


@configuration("numpy/onnx-file")
def _onnx_file(outcome: Outcome) -> None:
    network = rich_network("numpy")
    train(network, *images())
    with tempfile.TemporaryDirectory() as folder:
        network.to_onnx(Path(folder, "model.onnx"))
        outcome.add("files", Path(folder, "model.onnx").read_bytes())


@configuration("numpy/data-sets")
def _data_sets(outcome: Outcome) -> None:
    for name in ("circle", "and", "or", "not", "xor", "ten-points", "people", "iris", "digits"):
        data = nn.datasets.load(name, download=False)
        outcome.add("outputs", [data.x_train, data.y_train, data.x_test, data.y_test, list(data.classes)])
    predicted = np.arange(40) % CLASSES
    wanted = images(40)[1]
    outcome.add("outputs", [nn.metrics.accuracy(wanted, predicted), nn.metrics.confusion_matrix(wanted, predicted, 4)])


def _command_line(outcome: Outcome, backend: str, *options: str) -> None:
    """The files of ``nnbackend train``."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "nnbackend", "train", "--backend", backend, "--out", f"{folder}/run"]
        done = subprocess.run(
            [*command, "--no-plots", "--quiet", *options], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        outcome.add("outputs", done.stdout)
        outcome.network(nn.Network.load(f"{folder}/run/model.safetensors", backend=backend_of(backend)))
        for line in Path(folder, "run", "history.csv").read_text(encoding="utf-8").splitlines()[1:]:
            # Without the last columns, seconds and rows per second.
            outcome.add("history", line.split(",")[:5])


for _backend, _name, _options in (
    ("numpy", "command-line", "--dataset circle --epochs 3"),
    ("numpy", "command-line-patience", "--dataset iris --patience 2 --epochs 8 --batch-size 16"),
    ("numba", "command-line", "--dataset digits --epochs 2 --dropout 0.2 --optimizer adamw"),
):
    configuration(f"{_backend}/{_name}", _backend, *_options.split())(_command_line)
