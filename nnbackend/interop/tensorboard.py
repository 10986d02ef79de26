"""Write training runs for TensorBoard."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nnbackend.errors import InvalidInputError
from nnbackend.support.checks import positive_integer
from nnbackend.support.extras import install_command
from nnbackend.support.files import path_text
from nnbackend.training.callbacks.base import Callback, warn_if_not_written

if TYPE_CHECKING:
    from nnbackend.network import Network

__all__ = ["TensorBoard"]

#: The number of buckets in TensorBoard's own histograms.
_BUCKETS = 30


class TensorBoard(Callback):
    """Write metrics after every epoch to a folder that TensorBoard reads (extra ``tensorboard``).

    ``tensorboard --logdir runs`` shows all runs in the folder ``runs`` side by side, also during training. Each metric
    has the curve "train" and, with validation data, "validation". The tags ``epoch/...`` are the metrics of
    :class:`~nnbackend.History` over the epochs of the network, ``step/loss`` is the loss of every minibatch over its
    steps, and ``weights/...`` are histograms of the parameters. If a network is trained further, epochs and steps
    continue to count, and so do its curves.

    Parameters
    ----------
    folder : str or path-like
        The folder of this run, such as ``runs/first``. Each fit adds new files to it.
    weights_every : int, optional
        Number of epochs between histograms of the parameters. Default: no histograms.

    Raises
    ------
    ImportError
        TensorBoard is not installed.
    InvalidInputError
        `weights_every` is not an integer above 0; at the start of training: the folder is a file.
    OSError
        When training begins: the files cannot be written. Later (disk full, folder read-only), the values of an epoch
        that cannot be written are left out, with a RuntimeWarning, and training continues.
    """

    first_rank_only = True

    def __init__(self, folder: str | os.PathLike[str], weights_every: int | None = None) -> None:
        self.folder = path_text("folder", folder)
        self.weights_every = None if weights_every is None else positive_integer("weights_every", weights_every)
        # Raise ImportError now, not after the data have been loaded.
        _library()
        self._files: dict[str, _EventFile] = {}

    def check(self, metrics: Sequence[str]) -> None:
        if os.path.exists(self.folder) and not os.path.isdir(self.folder):
            raise InvalidInputError(f"TensorBoard needs a folder, but {self.folder!r} is a file; choose another name")

    def on_train_begin(self, network: Network, epochs: int) -> None:
        self._files = {"train": _EventFile(os.path.join(self.folder, "train"))}

    def on_steps_end(self, network: Network, epoch: int, losses: npt.NDArray[np.float64]) -> None:
        first = network.steps_trained - len(losses) + 1
        self._files["train"].append((step, {"step/loss": loss}) for step, loss in enumerate(losses, start=first))

    def on_epoch_end(self, network: Network, epoch: int, metrics: dict[str, float]) -> str | None:
        values: dict[str, dict[str, Any]] = {"train": {}, "validation": {}}
        for name, value in metrics.items():
            if name != "epoch":
                run = "validation" if name.startswith("val_") else "train"
                values[run][f"epoch/{name.removeprefix('val_')}"] = value
        if self.weights_every is not None and epoch % self.weights_every == 0:
            values["train"] |= {f"weights/{name}": array for name, array in network.get_weights().items()}
        for run, found in values.items():
            if found:
                if run not in self._files:
                    self._files[run] = _EventFile(os.path.join(self.folder, run))
                self._files[run].append([(network.epochs_trained, found)])
        return None


class _EventFile:
    """A new TensorBoard event file.

    It is open only while values are added, so that everything is on disk after every epoch, and no file stays open if
    an error ends the run.

    Parameters
    ----------
    folder : str
        Created if it is missing.
    """

    def __init__(self, folder: str) -> None:
        os.makedirs(folder, exist_ok=True)
        # TensorBoard recognises its files by "tfevents" in the name, and reads the files of a folder alphabetically.
        self._path = os.path.join(folder, f"events.out.tfevents.{time.time_ns()}.{os.getpid()}.nnbackend")
        self._write([{"file_version": "brain.Event:2"}])

    def append(self, entries: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """Add values by tag, each with its step: numbers as scalars and arrays as histograms."""
        with warn_if_not_written():
            self._write({"step": step, "summary": {"value": _values(found)}} for step, found in entries)

    def _write(self, events: Iterable[Mapping[str, Any]]) -> None:
        event, writer = _library()
        now = time.time()
        records = io.BytesIO()
        add = writer(records)
        for fields in events:
            add.write(event(wall_time=now, **fields).SerializeToString())
        # In one piece, and removed if it is incomplete, because readers stop at a record that is damaged.
        with open(self._path, "ab", buffering=0) as stream:
            size = stream.tell()
            try:
                _write_all(stream, records.getbuffer())
            except OSError as error:
                with suppress(OSError):
                    stream.truncate(size)
                raise OSError(error.errno, error.strerror, self._path) from error


def _write_all(stream: io.FileIO, contents: memoryview) -> None:
    """All bytes: a nearly full disk takes some of them, without an error."""
    while len(contents):
        contents = contents[stream.write(contents) :]


def _values(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"tag": tag, **_value(value)} for tag, value in found.items()]


def _value(value: Any) -> dict[str, Any]:
    return {"histo": _histogram(value)} if isinstance(value, np.ndarray) else {"simple_value": value}


def _histogram(array: npt.NDArray[Any]) -> dict[str, Any]:
    """The fields of TensorBoard's HistogramProto, which stores the upper limits of its buckets."""
    values = array.ravel().astype(np.float64)
    counts, edges = np.histogram(values, _BUCKETS)
    return {
        # The limits of the buckets, not of the values: equal values have buckets around them.
        "min": edges[0],
        "max": edges[-1],
        "num": values.size,
        "sum": values.sum(),
        "sum_squares": values @ values,
        "bucket_limit": edges[1:],
        "bucket": counts,
    }


def _library() -> tuple[Any, Any]:
    """TensorBoard's classes for events and for writing records, which PyTorch's writer uses, too."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError as error:
        raise ImportError(f"TensorBoard needs the package tensorboard: {install_command('tensorboard')}") from error
    return Event, RecordWriter
