"""The output of the TensorBoard callback, read with TensorBoard's own reader."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError, TrainingDivergedError
from tests.helpers import classifier, images, same_weights

pytest.importorskip("tensorboard", reason='needs TensorBoard: pip install -e ".[tensorboard]"')

X, Y = images(rows=70)
OPTIONS = {"batch_size": 16, "loss": "softmax_cross_entropy"}


def read(folder: Path):
    """All events in a folder, without sampling."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    accumulator.Reload()
    return accumulator


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = read(folder)
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def numbered(values, start: int = 1) -> list[tuple[int, float]]:
    """Values as stored in a file, in float32."""
    return [(step, float(np.float32(value))) for step, value in enumerate(values, start)]


def test_every_metric_and_step_loss_is_recorded(backend, tmp_path):
    history = classifier(backend).fit(
        X, Y, epochs=3, validation_data=(X[:20], Y[:20]), callbacks=[nn.TensorBoard(tmp_path / "run")], **OPTIONS
    )
    assert scalars(tmp_path / "run" / "validation") == {
        f"epoch/{name}": numbered(history[f"val_{name}"]) for name in ("loss", "accuracy")
    }
    names = ("loss", "accuracy", "learning_rate", "seconds", "samples_per_second")
    train = {f"epoch/{name}": numbered(history[name]) for name in names}
    train["step/loss"] = numbered(np.concatenate(history.step_losses))
    assert scalars(tmp_path / "run" / "train") == train
    assert len(train["step/loss"]) == 15


def test_further_training_continues_the_curves(tmp_path):
    net, board = classifier(), nn.TensorBoard(tmp_path)
    first = net.fit(X, Y, epochs=2, callbacks=[board], **OPTIONS)
    second = net.fit(X, Y, epochs=1, callbacks=[board], **OPTIONS)
    found = scalars(tmp_path / "train")
    assert found["epoch/loss"] == numbered([*first["loss"], *second["loss"]])
    assert found["step/loss"] == numbered(np.concatenate(first.step_losses + second.step_losses))
    # Without validation data there is nothing to compare with.
    assert [path.name for path in tmp_path.iterdir()] == ["train"]
    assert len(list((tmp_path / "train").iterdir())) == 2


def test_it_changes_nothing(tmp_path):
    watched, alone = classifier(), classifier()
    watched.fit(X, Y, epochs=2, callbacks=[nn.TensorBoard(tmp_path, weights_every=1)], **OPTIONS)
    alone.fit(X, Y, epochs=2, **OPTIONS)
    assert same_weights(watched, alone)


def test_weights_are_histograms_at_an_interval_of_epochs(tmp_path):
    net = classifier()
    net.fit(X, Y, epochs=5, callbacks=[nn.TensorBoard(tmp_path, weights_every=2)], **OPTIONS)
    events = read(tmp_path / "train")
    assert set(events.Tags()["histograms"]) == {f"weights/{name}" for name in net.get_weights()}
    for tag in events.Tags()["histograms"]:
        assert [event.step for event in events.Histograms(tag)] == [2, 4]

    further = classifier()
    further.fit(X, Y, epochs=2, callbacks=[nn.TensorBoard(tmp_path / "other", weights_every=2)], **OPTIONS)
    weight = further.get_weights()["layers.0.weight"]
    (event,) = read(tmp_path / "other" / "train").Histograms("weights/layers.0.weight")
    histogram = event.histogram_value
    assert (histogram.min, histogram.max, histogram.num) == (weight.min(), weight.max(), weight.size)
    assert histogram.sum == pytest.approx(weight.sum(dtype=float))
    assert histogram.sum_squares == pytest.approx((weight.astype(float) ** 2).sum())
    limits, counts = np.array(histogram.bucket_limit), np.array(histogram.bucket)
    for limit, count in zip(limits, counts.cumsum(), strict=True):
        assert abs(int((weight <= limit).sum()) - count) <= 1  # one that lies on the limit


def test_equal_weights_have_a_histogram_too(tmp_path):
    net = classifier()
    net.fit(X, Y, epochs=1, optimizer=nn.SGD(0.0), callbacks=[nn.TensorBoard(tmp_path, weights_every=1)], **OPTIONS)
    (event,) = read(tmp_path / "train").Histograms("weights/layers.0.bias")
    assert not net.get_weights()["layers.0.bias"].any()
    assert sum(event.histogram_value.bucket) == event.histogram_value.num == 9
    assert event.histogram_value.min < 0 < event.histogram_value.max


def test_an_epoch_is_on_disk_when_it_has_ended(tmp_path):
    seen = []

    class Look(nn.Callback):
        def on_epoch_end(self, network, epoch, metrics):
            seen.append(len(scalars(tmp_path / "train")["epoch/loss"]))

    classifier().fit(X, Y, epochs=3, callbacks=[nn.TensorBoard(tmp_path), Look()], **OPTIONS)
    assert seen == [1, 2, 3]


def test_a_run_that_diverges_leaves_whole_files_and_nothing_open(tmp_path):
    threads = threading.active_count()
    x = np.random.default_rng(0).normal(size=(64, 12))
    with pytest.raises(TrainingDivergedError):
        classifier().fit(x, Y[:64], epochs=50, optimizer=nn.SGD(1e12), callbacks=[nn.TensorBoard(tmp_path)], **OPTIONS)
    (file,) = (tmp_path / "train").iterdir()
    assert file.stat().st_size > 20
    read(tmp_path / "train")
    assert threading.active_count() == threads
    if os.path.isdir("/proc/self/fd"):
        names = {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
        assert not any(name.startswith(str(tmp_path)) for name in names)


def test_a_file_instead_of_the_folder_is_rejected_before_training(tmp_path):
    (tmp_path / "run").write_text("mine")
    net = classifier()
    with pytest.raises(InvalidInputError, match=r"needs a folder, but '.*run' is a file"):
        net.fit(X, Y, epochs=1, callbacks=[nn.TensorBoard(tmp_path / "run")], **OPTIONS)
    assert net.loss is None
    assert (tmp_path / "run").read_text() == "mine"


def test_a_wrong_interval_is_refused():
    with pytest.raises(InvalidInputError, match="weights_every must be a whole number of at least 1, received 0"):
        nn.TensorBoard("never-made", weights_every=0)


def test_without_the_package_the_error_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['tensorboard'] = None\n"
        "import nnbackend as nn\n"
        f"try: nn.TensorBoard({str(tmp_path)!r})\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    command = 'pip install -e ".[tensorboard]" in your checkout of nnbackend'
    assert done.stdout == f"TensorBoard needs the package tensorboard: {command}\n"
