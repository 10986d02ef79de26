"""Checkpoints: contents, when they are written, and what resuming accepts and rejects."""

from __future__ import annotations

import json
import os
import signal
import warnings

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError, ModelFileError
from nnbackend.saving.model_file import (
    MOST_DESCRIPTION,
    CheckpointContents,
    read_checkpoint,
    write_checkpoint,
    write_model,
)
from nnbackend.training.checkpoints.checkpoint import checkpoint_files
from tests.helpers import classifier, rich_network, same_weights
from tests.training.resuming import STEPS, X, Y, assert_same_end, kept, killed_at, metrics, options, undisturbed

LOSS = {"loss": "softmax_cross_entropy"}

OPTIMIZERS = {
    "sgd": lambda: nn.SGD(0.2),
    "nesterov": lambda: nn.SGD(nn.CosineDecay(0.1, epochs=3), momentum=0.9, nesterov=True),
    "adamw": lambda: nn.AdamW(nn.StepDecay(0.01, every=1)),
    "one cycle": lambda: nn.Adam(nn.OneCycle(0.02, epochs=3)),
    # So slow that no image changes its class, and the rate is reduced after every epoch.
    "lion": lambda: nn.Lion(1e-3),
    "rmsprop": lambda: nn.RMSprop(nn.Warmup(1, nn.ReduceOnPlateau(1e-7, patience=1, monitor="val_accuracy"))),
}


def steps_in(folder) -> list[int]:
    return [read_checkpoint(path).config["steps_trained"] for path in checkpoint_files(folder)]


def a_run(folder, **others):
    """The checkpoints of a short run."""
    kept(folder, every=4, epochs=1, **others)
    return checkpoint_files(folder)


class TestEveryState:
    @pytest.mark.parametrize("step", [1, STEPS - 1, STEPS, STEPS + 1, 3 * STEPS])
    def test_any_interruption(self, tmp_path, monkeypatch, step):
        """At the first and last step of a run and an epoch, and in between."""
        expected = undisturbed()
        killed_at(monkeypatch, step, lambda: kept(tmp_path))
        assert_same_end(kept(tmp_path), expected)

    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_of_an_optimiser_and_its_schedule(self, tmp_path, monkeypatch, optimizer):
        make = OPTIMIZERS[optimizer]
        expected = undisturbed(optimizer=make())
        if optimizer == "rmsprop":
            assert expected[1]["learning_rate"][2] < 1e-7
        killed_at(monkeypatch, 2 * STEPS + 2, lambda: kept(tmp_path, optimizer=make()))
        assert_same_end(kept(tmp_path, optimizer=make()), expected)

    @pytest.mark.parametrize("data", [{"shuffle": False}, {"steps_per_epoch": 5}, {"sample_weight": np.arange(1, 71)}])
    def test_of_the_order_of_the_rows(self, tmp_path, monkeypatch, data):
        expected = undisturbed(**data)
        killed_at(monkeypatch, 7, lambda: kept(tmp_path, **data))
        assert_same_end(kept(tmp_path, **data), expected)

    def test_of_callbacks(self, tmp_path, monkeypatch):
        def callbacks(name):
            folder = tmp_path / name
            # Two callbacks of one class have separate state; the rate is so high that the first epochs are the best.
            return [
                nn.KeepBest("loss"), nn.KeepBest("val_accuracy"), nn.ModelCheckpoint(folder / "best.safetensors"),
                nn.CSVLogger(folder / "log.csv"), nn.EarlyStopping("val_loss", patience=2),
            ]  # fmt: skip

        def optimizer():
            return nn.SGD(1.5)

        alone, others = callbacks("alone"), callbacks("others")
        expected = undisturbed(callbacks=alone, epochs=9, optimizer=optimizer())
        assert expected[1].stopped_by == "EarlyStopping"
        assert alone[4].best_epoch < len(expected[1])
        last = STEPS * len(expected[1])
        for step in (STEPS + 2, last - 3):
            again = callbacks("others")
            killed_at(
                monkeypatch, step,
                lambda again=again: kept(tmp_path / "run", callbacks=again, epochs=9, optimizer=optimizer()),
            )  # fmt: skip
        assert_same_end(kept(tmp_path / "run", callbacks=others, epochs=9, optimizer=optimizer()), expected)
        assert [(one.best_epoch, one.best_value) for one in (others[0], others[1], others[4])] == [
            (one.best_epoch, one.best_value) for one in (alone[0], alone[1], alone[4])
        ]
        models = [nn.Network.load(tmp_path / name / "best.safetensors", "numpy") for name in ("alone", "others")]
        assert same_weights(*models)
        tables = [(tmp_path / name / "log.csv").read_text().splitlines() for name in ("alone", "others")]
        assert [line.split(",")[:5] for line in tables[0]] == [line.split(",")[:5] for line in tables[1]]

    def test_of_a_network_that_was_trained_before(self, tmp_path, monkeypatch):
        """The network's epochs and steps determine orders and masks; the run has its own counts."""

        def trained():
            network = rich_network("numpy")
            network.fit(X, Y, **options(epochs=2))
            return network

        def run(network, **more):
            return network, network.fit(X, Y, **options(), **more)

        def keeping():
            return run(trained(), callbacks=[nn.Checkpoint(tmp_path, every_steps=1)], resume=True)

        expected = run(trained())
        killed_at(monkeypatch, 3 * STEPS + 2, keeping)
        assert_same_end(run(rich_network("numpy"), resume=tmp_path), expected)

    def test_of_a_run_that_had_ended(self, tmp_path):
        """The network gets its earlier state, including the best weights, and `epochs` may be larger."""
        first = kept(tmp_path, callbacks=[nn.KeepBest("loss")], epochs=2)
        assert_same_end(kept(tmp_path, callbacks=[nn.KeepBest("loss")], epochs=2), first)
        longer = kept(tmp_path, callbacks=[nn.KeepBest("loss")], epochs=3)
        assert_same_end(longer, undisturbed(callbacks=[nn.KeepBest("loss")], epochs=3))


class TestWhen:
    def test_checkpoints_change_nothing(self, tmp_path):
        assert_same_end(kept(tmp_path, every=2), undisturbed())

    @pytest.mark.parametrize(
        ("rule", "steps"),
        [
            # 27 steps in three epochs; the last step always has a checkpoint.
            ({}, [27, 18, 9]),
            ({"every_steps": 4}, [27, 24, 20, 16, 12, 8, 4]),
            ({"every_steps": 9}, [27, 18, 9]),
            ({"every_steps": 4, "keep": 2}, [27, 24]),
            ({"every_minutes": 60}, [27]),
        ],
    )
    def test_checkpoints_are_written_at_the_given_intervals(self, tmp_path, rule, steps):
        checkpoint = nn.Checkpoint(tmp_path, **{"keep": 99, **rule})
        rich_network("numpy").fit(X, Y, callbacks=[checkpoint], **options())
        assert steps_in(tmp_path) == steps
        # Neither the lock nor a temporary file remains.
        assert len(os.listdir(tmp_path)) == len(steps)

    def test_the_clock_may_request_a_checkpoint_within_an_epoch(self, tmp_path):
        checkpoint = nn.Checkpoint(tmp_path, every_minutes=1e-9, keep=99)
        rich_network("numpy").fit(X, Y, callbacks=[checkpoint], **options())
        found = steps_in(tmp_path)
        assert found[-1] == 1
        assert {27, 18, 9} < set(found)

    def test_ctrl_c_leaves_a_checkpoint_at_the_current_step(self, tmp_path):
        class Stop(nn.Layer):
            calls = 0

            def forward(self, step, x):
                if step.training:
                    step.call(self.interrupt)
                return x, None

            def interrupt(self, backend):
                Stop.calls += 1
                if Stop.calls == 12:
                    signal.raise_signal(signal.SIGINT)

            def backward(self, step, saved, upstream, need_input_gradient):
                return upstream

        def run(**more):
            network = nn.Network([Stop(), nn.Dense(4)], 12, backend="numpy")
            return network, network.fit(X, Y, **options(), **more)

        _, interrupted = run(callbacks=[nn.Checkpoint(tmp_path, every_minutes=60)])
        assert interrupted.interrupted
        assert len(steps_in(tmp_path)) == 1
        assert 12 <= steps_in(tmp_path)[0] < 18
        resumed = run(resume=tmp_path)
        Stop.calls = 100
        assert_same_end(resumed, run())

    def test_a_diverging_run_keeps_its_last_good_checkpoint(self, tmp_path):
        with pytest.raises(nn.errors.TrainingDivergedError):
            kept(tmp_path, optimizer=nn.SGD(1e15), epochs=30)
        for path in checkpoint_files(tmp_path):
            assert all(np.isfinite(array).all() for array in read_checkpoint(path).weights.values())


class TestFiles:
    def test_a_checkpoint_is_a_model_file(self, tmp_path):
        network, _ = kept(tmp_path, epochs=1)
        loaded = nn.Network.load(checkpoint_files(tmp_path)[0], backend="numpy")
        assert same_weights(network, loaded)
        assert loaded.config() == network.config()

    def test_a_model_file_is_no_checkpoint(self, tmp_path):
        network = classifier()
        write_model(tmp_path / "model", network.config(), network.get_weights())
        with pytest.raises(ModelFileError, match="a model, not a checkpoint"):
            read_checkpoint(tmp_path / "model")

    def test_every_damaged_byte_is_found(self, tmp_path):
        """One bit in each of 60 bytes throughout the file: in the description, weights and slots."""
        path = a_run(tmp_path)[0]
        good = path.read_bytes()
        for place in np.linspace(0, len(good) - 1, 60).astype(int):
            bad = bytearray(good)
            bad[place] ^= 1
            path.write_bytes(bad)
            with pytest.raises(ModelFileError):
                read_checkpoint(path)

    def test_a_damaged_one_falls_back_to_the_one_before(self, tmp_path):
        expected = undisturbed(epochs=2)
        newest, second, _ = a_run(tmp_path)
        newest.write_bytes(newest.read_bytes()[:-100])
        with second.open("r+b") as stream:
            stream.seek(-5, os.SEEK_END)
            stream.write(b"?")
        with pytest.warns(RuntimeWarning, match="trying the one before") as warned:
            assert_same_end(kept(tmp_path, epochs=2), expected)
        assert len(warned) == 2
        # Neither blocks later checkpoints.
        assert steps_in(tmp_path) == [18, 17, 16]

    def test_newer_damaged_checkpoints_are_removed(self, tmp_path):
        newest, second, _ = a_run(tmp_path)
        newest.write_bytes(b"")
        second.write_bytes(b"")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            network = rich_network("numpy")
            checkpoint = nn.Checkpoint(tmp_path, every_steps=1, keep=1)

            class Look(nn.Callback):
                def on_steps_end(self, network, epoch, losses):
                    seen.append(steps_in(tmp_path))

            seen = []
            network.fit(X, Y, callbacks=[checkpoint, Look()], resume=True, **options(epochs=1))
        assert seen == [[8]]

    def test_all_damaged_is_an_error(self, tmp_path):
        for path in a_run(tmp_path):
            path.write_bytes(b"")
        with (
            pytest.warns(RuntimeWarning, match="trying the one before"),
            pytest.raises(ModelFileError, match="all of its 3 checkpoints are damaged"),
        ):
            kept(tmp_path)


class TestRefused:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"batch_size": 10}, "batch_size was 8 there and is 10 here"),
            ({"shuffle": False}, "shuffle was True"),
            ({"optimizer": nn.SGD(0.1)}, r"optimizer was .Adam\(.*ReduceOnPlateau.* there and is .SGD\("),
            ({"optimizer": nn.Adam(0.01)}, "optimizer was"),
            ({"loss": "mean_squared_error"}, "loss was"),
            ({"x": X[:-1], "y": Y[:-1]}, "rows was 70 there and is 69 here"),
            ({"x": (255 - X).view(type(X))}, "its x had other values"),
            ({"y": 3 - Y}, "its y had other values"),
        ],
    )
    def test_another_run(self, tmp_path, change, message):
        a_run(tmp_path)
        with pytest.raises(InvalidInputError, match=message):
            kept(tmp_path, **change)

    def test_another_network(self, tmp_path):
        a_run(tmp_path)
        network = nn.Network([nn.Dense(4)], 12, backend="numpy", seed=5)
        before = network.get_weights()
        with pytest.raises(InvalidInputError, match="belongs to another run: layers was"):
            network.fit(X, Y, resume=tmp_path, **options())
        np.testing.assert_array_equal(network.get_weights()["layers.0.weight"], before["layers.0.weight"])
        assert network.optimizer_state is None

    def test_a_callback_is_missing(self, tmp_path):
        a_run(tmp_path, callbacks=[nn.EarlyStopping(), nn.KeepBest()])
        with pytest.raises(InvalidInputError, match="with the callbacks EarlyStopping; use them again"):
            kept(tmp_path, callbacks=[nn.KeepBest()])

    def test_a_new_run_does_not_start_in_the_folder_of_another(self, tmp_path):
        files = a_run(tmp_path)
        with pytest.raises(InvalidInputError, match=r"already contains the checkpoints of a run; .*resume=True"):
            kept(tmp_path, resume=False)
        a_run(tmp_path / "other")
        with pytest.raises(InvalidInputError, match="already contains the checkpoints of a run"):
            kept(tmp_path, resume=tmp_path / "other")
        assert checkpoint_files(tmp_path) == files

    def test_nothing_to_resume_from(self, tmp_path):
        with pytest.raises(InvalidInputError, match="there is no checkpoint in"):
            rich_network("numpy").fit(X, Y, resume=tmp_path / "nothing", **options())
        with pytest.raises(InvalidInputError, match="resume=True needs a Checkpoint among the callbacks"):
            rich_network("numpy").fit(X, Y, resume=True, **options())
        with pytest.raises(InvalidInputError, match="resume must be"):
            rich_network("numpy").fit(X, Y, resume=3, **options())

    def test_wrong_options_of_the_callback(self, tmp_path):
        for wrong in ({"every_steps": 0}, {"every_minutes": 0}, {"keep": 0}):
            with pytest.raises(InvalidInputError):
                nn.Checkpoint(tmp_path, **wrong)
        two = [nn.Checkpoint(tmp_path / "a"), nn.Checkpoint(tmp_path / "b")]
        with pytest.raises(InvalidInputError, match="a run has one Checkpoint"):
            rich_network("numpy").fit(X, Y, callbacks=two, **options())

    def test_a_state_that_lacks_something_changes_no_weight(self, tmp_path):
        """A complete file, but not one that this version writes."""
        from nnbackend.saving.model_file import write_checkpoint

        files = a_run(tmp_path)
        for path in files:
            contents = read_checkpoint(path)
            del contents.arrays["trace"]
            write_checkpoint(path, contents)
        for path in files[1:]:
            path.unlink()
        network = rich_network("numpy")
        before = network.get_weights()
        with pytest.raises(ModelFileError, match="does not hold what a run needs"):
            network.fit(X, Y, resume=tmp_path, **options())
        assert all((before[name] == array).all() for name, array in network.get_weights().items())

    @pytest.mark.parametrize(
        "state", [{}, 3, {"best_epoch": "first", "best_value": 1}, {"best_epoch": 1, "best_value": 10**400}]
    )
    def test_a_divergence_takes_precedence_over_a_callback(self, tmp_path, state):
        from nnbackend.saving.model_file import write_checkpoint

        def stopping():
            return nn.EarlyStopping(monitor="loss")

        network = classifier()
        network.fit(X, Y, callbacks=[nn.Checkpoint(tmp_path), stopping()], epochs=1, **LOSS)
        path = checkpoint_files(tmp_path)[0]
        contents = read_checkpoint(path)
        contents.training["callbacks"]["EarlyStopping.0"] = state
        write_checkpoint(path, contents)
        other = classifier()
        before = other.get_weights()
        with pytest.raises(ModelFileError, match="does not hold what EarlyStopping needs"):
            other.fit(X, Y, callbacks=[stopping()], epochs=2, resume=tmp_path, **LOSS)
        assert all((before[name] == array).all() for name, array in other.get_weights().items())
        assert (other.steps_trained, other.epochs_trained) == (0, 0)


def test_seconds_cover_both_parts_of_an_epoch(tmp_path, monkeypatch):
    killed_at(monkeypatch, STEPS - 1, lambda: kept(tmp_path))
    saved = read_checkpoint(checkpoint_files(tmp_path)[0]).training["seconds"]
    _, history = kept(tmp_path)
    assert history["seconds"][0] > saved > 0
    assert metrics(history)[0].keys() == metrics(undisturbed()[1])[0].keys()


def test_a_history_of_very_many_epochs_is_kept(tmp_path):
    """It is longer than the limit for the description of a network."""
    metrics = {"loss": 0.123456789012345, "accuracy": 0.5, "learning_rate": 1e-3, "seconds": 0.001}
    training = {"history": {"epochs": [{"epoch": epoch, **metrics} for epoch in range(1, 60_001)]}}
    assert len(json.dumps(training)) > MOST_DESCRIPTION
    network = classifier()
    contents = CheckpointContents(network.config(), network.get_weights(), training, {"trace": np.zeros((2, 3))})
    write_checkpoint(tmp_path / "long.safetensors", contents)
    found = read_checkpoint(tmp_path / "long.safetensors")
    assert found.training == training
    np.testing.assert_array_equal(found.arrays["trace"], np.zeros((2, 3)))
    assert same_weights(nn.Network.load(tmp_path / "long.safetensors", "numpy"), network)
