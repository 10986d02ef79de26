"""A run resumes only with the data, the weights and the callbacks that it had; the error names what differs."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from nnbackend.saving.model_file import read_checkpoint, write_checkpoint
from nnbackend.training.checkpoints.checkpoint import checkpoint_files
from tests.distributed.ranks import run_ranks, worked
from tests.helpers import classifier, images, same_weights

X, Y = images(rows=300)
WEIGHTS = np.linspace(1, 2, 300)


def changed(array):
    """A copy that differs in one value, in a row that no sample of 64 rows has."""
    copy = array.copy()
    copy[2] = copy[3] + 1 if copy.dtype.kind == "f" else 1 - copy[2] % 2
    return copy


def given(**others):
    """Arguments of `fit`, with everything that can differ."""
    return {
        "x": X,
        "y": Y,
        "sample_weight": WEIGHTS,
        "class_weight": {0: 2.0, 1: 1.0},
        "validation_data": (X, Y),
        "epochs": 1,
        "batch_size": 100,
        "loss": "softmax_cross_entropy",
        **others,
    }


def run(folder, callbacks=(), network=None, **others):
    net = classifier() if network is None else network
    net.fit(callbacks=[*callbacks, nn.Checkpoint(folder)], resume=True, verbose=False, **given(**others))
    return net


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": changed(X)}, "its x had other values"),
        ({"y": changed(Y)}, "its y had other values"),
        ({"sample_weight": changed(WEIGHTS)}, "its sample_weight had other values"),
        ({"sample_weight": None}, "it had a sample_weight"),
        ({"class_weight": {0: 2.0, 1: 1.5}}, "class_weight was {0: 2.0, 1: 1.0} there and is {0: 2.0, 1: 1.5} here"),
        (
            {"class_weight": pd.Series([2.0, 1.0], index=[1, 0])},
            "class_weight was {0: 2.0, 1: 1.0} there and is {0: 1.0, 1: 2.0} here",
        ),
        ({"class_weight": None}, "it had a class_weight"),
        ({"validation_data": (changed(X), Y)}, "its validation x had other values"),
        ({"validation_data": (X, changed(Y))}, "its validation y had other values"),
        ({"validation_data": (X[:50], Y[:50])}, "its validation x had other values, and its validation y"),
        ({"validation_data": None}, "it had a validation x"),
        ({"callbacks": [nn.EarlyStopping()]}, "it had no EarlyStopping"),
        ({"callbacks": [nn.ModelCheckpoint("never-written")]}, "it had no ModelCheckpoint"),
        ({"optimizer": nn.SGD(0.1)}, "optimizer was"),
        ({"network": classifier(seed=4)}, "seed was 0 there and is 4 here. To resume"),
        (
            {"network": nn.Network([nn.Dense(9, "relu"), nn.Dense(4, l2=0.1)], 12, "numpy")},
            "layers[1].l2 was 0.0 there",
        ),
        (
            {"network": nn.Network([nn.Dense(8, "tanh"), nn.Dense(4)], 12, "numpy")},
            "layers[0].units was 9 there and is 8",
        ),
    ],
)
def test_what_differs_is_named(tmp_path, change, message):
    run(tmp_path)
    net = change.pop("network", None) or classifier()
    before = net.get_weights()
    with pytest.raises(InvalidInputError) as error:
        run(tmp_path, network=net, **{"epochs": 2, **change})
    assert "belongs to another run: " in str(error.value)
    assert message in str(error.value)
    assert len(str(error.value)) < 600
    assert all((before[name] == value).all() for name, value in net.get_weights().items())


def test_what_was_not_given_is_named(tmp_path):
    none = {"sample_weight": None, "class_weight": None, "validation_data": None}
    run(tmp_path, **none)
    for name, value in (("sample_weight", WEIGHTS), ("class_weight", {0: 2}), ("validation_data", (X, Y))):
        with pytest.raises(InvalidInputError, match=f"it had no {name.removesuffix('_data')}"):
            run(tmp_path, epochs=2, **{**none, name: value})


@pytest.mark.parametrize(
    ("callback", "other", "message"),
    [
        (nn.EarlyStopping(patience=4), nn.EarlyStopping(), "EarlyStopping.0.patience was 4 there and is 3 here"),
        (nn.EarlyStopping(), nn.EarlyStopping(restore_best=False), "restore_best was True there"),
        (nn.EarlyStopping(), nn.EarlyStopping(minimum_change=0.1), "minimum_change was 0.0 there"),
        (nn.KeepBest(), nn.KeepBest("val_accuracy"), "monitor was 'val_loss' there and is 'val_accuracy'"),
        (nn.KeepBest("loss"), nn.KeepBest("loss", mode="max"), "mode was 'auto' there"),
    ],
)  # fmt: skip
def test_callbacks_with_other_arguments(tmp_path, callback, other, message):
    run(tmp_path, [callback])
    with pytest.raises(InvalidInputError) as error:
        run(tmp_path, [other], epochs=2)
    assert message in str(error.value)


def test_paths_and_callbacks_that_decide_nothing_may_change(tmp_path):
    run(tmp_path / "run", [nn.ModelCheckpoint(tmp_path / "a")])
    run(tmp_path / "run", [nn.ModelCheckpoint(tmp_path / "b"), nn.CSVLogger(tmp_path / "c"), nn.Callback()], epochs=2)


@pytest.mark.parametrize(
    "same",
    [
        {"x": X.tolist()},
        {"y": Y.astype(np.int16)},
        {"y": Y.tolist()},
        {"sample_weight": WEIGHTS.tolist()},
        {"class_weight": {1: 1.0, 0: 2.0}},
        {"class_weight": {0: 2, 1: 1}},
        {"class_weight": pd.Series([1.0, 2.0], index=[1, 0])},
        {"stream": True},
        {"validation_data": [X, Y.astype(np.uint8)]},
    ],
)
def test_the_same_values_in_another_form(tmp_path, same):
    if "x" in same:
        same = {"x": X[:, ::-1][:, ::-1]}
    expected = classifier()
    expected.fit(verbose=False, **given(epochs=2))
    run(tmp_path)
    assert same_weights(run(tmp_path, epochs=2, **same), expected)


def test_data_in_a_file_are_sampled_and_the_log_says_so(tmp_path, caplog):
    def stored(name, values):
        array = np.memmap(tmp_path / name, np.float32, "w+", shape=values.shape)
        array[...] = values
        return array

    first, other, quite_other = (
        stored(str(number), values / 255.0) for number, values in enumerate((X, changed(X), X[::-1]))
    )
    run(tmp_path / "run", x=first)
    with caplog.at_level(logging.INFO, "nnbackend"):
        run(tmp_path / "run", x=other, epochs=2)
    assert "x is not in memory, so at most 64 of its rows were compared" in caplog.text
    assert "validation x" not in caplog.text
    with pytest.raises(InvalidInputError, match="its x had other values"):
        run(tmp_path / "run", x=quite_other, epochs=3)


def test_streams_are_not_compared_and_the_log_says_so(tmp_path, caplog):
    def stream(x):
        return nn.BatchStream(lambda epoch: [(x, Y)], 300)

    options = {"y": None, "sample_weight": None, "class_weight": None}
    run(tmp_path, x=stream(X), **options)
    with caplog.at_level(logging.INFO, "nnbackend"):
        run(tmp_path, x=stream(changed(X)), epochs=2, **options)
    assert "x is not in memory" in caplog.text


def test_a_checkpoint_of_an_older_version_is_compared_as_far_as_it_can(tmp_path, caplog):
    run(tmp_path)
    path = checkpoint_files(tmp_path)[0]
    contents = read_checkpoint(path)
    for name in ("hashes", "callbacks"):
        del contents.training["settings"][name]
    write_checkpoint(path, contents)
    with caplog.at_level(logging.INFO, "nnbackend"):
        run(tmp_path, x=changed(X), epochs=2)
    assert "is of an older version: only 64 rows of the data were compared" in caplog.text
    with pytest.raises(InvalidInputError, match="its x had other values"):
        run(tmp_path, epochs=3)


def test_shards_are_compared_rank_by_rank(tmp_path):
    def program(ranks, last, epochs):
        rows = slice(150 * ranks.rank, 150 * ranks.rank + 150)
        x = X[rows] if ranks.rank == 0 else last
        net = classifier()
        net.fit(
            x, Y[rows], shard=True, communicator=ranks, epochs=epochs, loss="softmax_cross_entropy",
            callbacks=[nn.Checkpoint(tmp_path)], resume=True,
        )  # fmt: skip
        return net

    worked(run_ranks(2, lambda ranks: program(ranks, X[150:], 1)))
    errors = run_ranks(2, lambda ranks: program(ranks, changed(X[150:]), 2))
    assert all("on rank 1 its x had other values" in str(error) for error in errors)
    worked(run_ranks(2, lambda ranks: program(ranks, X[150:], 2)))


def test_a_run_resumes_with_code_for_the_same_cpu(backend, tmp_path, monkeypatch):
    """Unless it is told that the bits may differ, and on a backend whose code is for a CPU."""
    net = classifier(backend=backend)
    on = net.backend
    run(tmp_path, network=net)
    monkeypatch.setattr(on, "target", "x86-64-v3" if on.target else "")
    if not on.target:
        run(tmp_path, network=classifier(backend=backend))
        return
    here = read_checkpoint(checkpoint_files(tmp_path)[0]).training["target"]
    with pytest.raises(
        InvalidInputError, match=rf"was written by code for '{here}', and this process .* 'x86-64-v3'"
    ) as refused:
        run(tmp_path, network=classifier(backend=backend))
    assert "accept that with Checkpoint(folder, any_target=True)" in str(refused.value)
    assert "NNBACKEND_TARGET" not in str(refused.value)
    again = classifier(backend=backend)
    longer = given(epochs=2)
    again.fit(callbacks=[nn.Checkpoint(tmp_path, any_target=True)], resume=True, verbose=False, **longer)
    assert read_checkpoint(checkpoint_files(tmp_path)[0]).training["target"] == "x86-64-v3"
    # Code for a generic CPU can be asked for.
    monkeypatch.setattr(on, "target", here)
    with pytest.raises(InvalidInputError, match="set NNBACKEND_TARGET=x86-64-v3 in the environment to get them"):
        classifier(backend=backend).fit(resume=tmp_path, verbose=False, **longer)
    # Another backend rounds differently anyway.
    classifier(backend="numpy").fit(resume=tmp_path, verbose=False, **longer)
