"""What callbacks monitor, write and change: names of metrics, paths of files, metrics of their own, learning rates."""

from __future__ import annotations

import csv
import math
import os

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidAttributeError, InvalidInputError, UnknownNameError
from nnbackend.training.checkpoints.checkpoint import checkpoint_files
from tests.helpers import classifier, images, rich_network, same_weights
from tests.training.resuming import assert_same_end, kept, killed_at, undisturbed

X, Y = images(rows=70)
LOSS = {"loss": "softmax_cross_entropy", "batch_size": 10, "verbose": False}
VALIDATION = {"validation_data": (X[:20], Y[:20]), **LOSS}


class Auc(nn.Callback):
    """Adds a metric that rises and falls."""

    values = (0.5, 0.9, 0.7, 0.6, 0.5)

    def on_epoch_end(self, network, epoch, metrics):
        metrics["val_auc"] = np.float32(self.values[epoch - 1])


class TestMonitors:
    def monitoring(self, tmp_path, name, **others):
        return [
            {"callbacks": [nn.EarlyStopping(name, **others)]},
            {"callbacks": [nn.KeepBest(name, **others)]},
            {"callbacks": [nn.ModelCheckpoint(tmp_path / "a", name, **others)]},
            {"optimizer": nn.SGD(nn.ReduceOnPlateau(0.1, monitor=name, **others))},
            {"optimizer": nn.SGD(nn.Warmup(1, nn.ReduceOnPlateau(0.1, monitor=name, **others)))},
        ]

    def test_a_name_that_does_not_exist_lists_those_that_do(self, tmp_path):
        net = classifier()
        for options in self.monitoring(tmp_path, "val_auc"):
            with pytest.raises(InvalidInputError) as error:
                net.fit(X, Y, **options, **VALIDATION)
            message = str(error.value)
            assert "cannot monitor 'val_auc': the metrics are loss, accuracy, val_loss, val_accuracy" in message
            assert "metrics['val_auc'] = ... in on_epoch_end" in message
            assert "give validation_data" not in message
        for options in self.monitoring(tmp_path, "val_acuracy"):
            with pytest.raises(InvalidInputError, match="did you mean 'val_accuracy'"):
                net.fit(X, Y, **options, **VALIDATION)
        assert net.loss is None
        assert os.listdir(tmp_path) == []

    def test_validation_data_are_asked_for_where_there_are_none(self, tmp_path):
        for options in self.monitoring(tmp_path, "val_auc"):
            with pytest.raises(InvalidInputError, match="the metrics are loss, accuracy; give validation_data to fit"):
                classifier().fit(X, Y, **options, **LOSS)

    def test_a_metric_of_an_earlier_callback(self, tmp_path):
        for options in self.monitoring(tmp_path, "val_auc"):
            callbacks = [Auc(), *options.pop("callbacks", ())]
            history = classifier().fit(X, Y, epochs=3, callbacks=callbacks, **options, **VALIDATION)
            assert history["val_auc"] == [pytest.approx(value) for value in Auc.values[:3]]
            if isinstance(callbacks[-1], nn.KeepBest):
                assert callbacks[-1].best_epoch == 2
        with pytest.raises(InvalidInputError, match="cannot monitor 'val_auc'"):
            classifier().fit(X, Y, callbacks=[nn.EarlyStopping("val_auc"), Auc()], **VALIDATION)

    def test_a_name_that_an_earlier_callback_does_not_add(self):
        """Found after the first epoch, or before training if the callback says what it adds."""
        with pytest.raises(InvalidInputError, match="cannot monitor 'val_auk': this epoch has 'epoch', 'loss'"):
            classifier().fit(X, Y, callbacks=[Auc(), nn.EarlyStopping("val_auk", mode="max")], **VALIDATION)

        class Declared(Auc):
            adds_metrics = ("val_auc",)

        with pytest.raises(InvalidInputError, match="val_accuracy, val_auc; did you mean 'val_auc'"):
            classifier().fit(X, Y, callbacks=[Declared(), nn.EarlyStopping("val_auk")], **VALIDATION)
        classifier().fit(X, Y, epochs=1, callbacks=[Declared(), nn.EarlyStopping("val_auc")], **VALIDATION)
        Declared.adds_metrics = "val_auc"
        with pytest.raises(InvalidInputError, match="adds_metrics of Declared must be a list of names"):
            classifier().fit(X, Y, callbacks=[Declared()], **VALIDATION)

    def test_the_better_direction_is_known_or_given(self, tmp_path):
        class Costs(nn.Callback):
            adds_metrics = ("costs",)

            def on_epoch_end(self, network, epoch, metrics):
                metrics["costs"] = (3, 1, 2)[epoch - 1]

        for options in self.monitoring(tmp_path, "costs"):
            callbacks = [Costs(), *options.pop("callbacks", ())]
            with pytest.raises(InvalidInputError, match="whether 'costs' is better if it is higher; give mode='max'"):
                classifier().fit(X, Y, callbacks=callbacks, **options, **VALIDATION)
        for mode, best in (("min", 2), ("max", 1)):
            keep = nn.KeepBest("costs", mode=mode)
            classifier().fit(X, Y, epochs=3, callbacks=[Costs(), keep], **VALIDATION)
            assert keep.best_epoch == best
        rate = nn.ReduceOnPlateau(0.1, patience=1, monitor="costs", mode="max")
        history = classifier().fit(X, Y, epochs=3, callbacks=[Costs()], optimizer=nn.SGD(rate), **VALIDATION)
        assert history["learning_rate"] == pytest.approx([0.1, 0.1, 0.05])

    @pytest.mark.parametrize("name", [3, None, "", ["loss"]])
    def test_a_monitor_is_text(self, tmp_path, name):
        with pytest.raises(InvalidInputError, match="monitor must be text"):
            self.monitoring(tmp_path, name)
        with pytest.raises(UnknownNameError, match="unknown mode 'up'"):
            self.monitoring(tmp_path, "loss", mode="up")


class TestPaths:
    def test_placeholders_are_formatted_as_in_keras(self, tmp_path):
        path = tmp_path / "run" / "w-{epoch:02d}-{val_loss:.3f}-{{x}}.safetensors"
        history = classifier().fit(X, Y, epochs=3, callbacks=[nn.ModelCheckpoint(path, best_only=False)], **VALIDATION)
        wanted = [f"w-{epoch:02d}-{loss:.3f}-{{x}}.safetensors" for epoch, loss in enumerate(history["val_loss"], 1)]
        assert sorted(os.listdir(tmp_path / "run")) == wanted
        nn.Network.load(tmp_path / "run" / wanted[-1], backend="numpy")

    def test_metrics_of_callbacks_and_of_every_epoch(self, tmp_path):
        path = tmp_path / "{val_auc:.2f}-{learning_rate}-{loss:8.1e}.safetensors"
        classifier().fit(
            X, Y, epochs=1, callbacks=[Auc(), nn.ModelCheckpoint(path, "val_auc")], optimizer=nn.SGD(0.5), **VALIDATION
        )
        assert os.listdir(tmp_path)[0].startswith("0.50-0.5-")

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("{epok}", r"placeholder \{epok\}; unknown metric 'epok': did you mean 'epoch'"),
            ("{val_acc}", "did you mean 'val_accuracy'"),
            ("{}", "has the placeholder"),
            ("{0}", "has the placeholder"),
            ("{epoch.real}", "has the placeholder"),
            ("{epoch:.3q}", "cannot be formatted"),
            ("{val_loss:02d}", "cannot be formatted.*decimals"),
            ("{val_loss:{nothing}}", "has the placeholder"),
            ("{loss!q}", "cannot be formatted"),
            ("{", r"cannot be formatted.*write a brace of the name itself as \{\{"),
            ("a}", "cannot be formatted"),
        ],
    )
    @pytest.mark.parametrize("best_only", [True, False])
    def test_what_cannot_be_formatted_is_an_error_before_training(self, tmp_path, name, message, best_only):
        net = classifier()
        with pytest.raises(InvalidInputError, match=message):
            net.fit(X, Y, callbacks=[nn.ModelCheckpoint(tmp_path / name, best_only=best_only)], **VALIDATION)
        assert (net.steps_trained, os.listdir(tmp_path)) == (0, [])

    @pytest.mark.parametrize("kind", [nn.ModelCheckpoint, nn.CSVLogger])
    def test_a_path_that_cannot_be_written_is_an_error_before_training(self, tmp_path, kind):
        (tmp_path / "file").write_text("kept")
        (tmp_path / "folder").mkdir()
        for path, message in (
            (tmp_path / "file" / "a", "not a folder"),
            (tmp_path / "file" / "b" / "c", "not a folder"),
            (tmp_path / "folder", "a folder"),
        ):
            net = classifier()
            with pytest.raises(OSError, match=message):
                net.fit(X, Y, callbacks=[kind(path)], **VALIDATION)
            assert net.steps_trained == 0
        assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
        # As in Keras, missing folders are made.
        classifier().fit(X, Y, epochs=1, callbacks=[kind(tmp_path / "new" / "folder" / "a")], **VALIDATION)
        assert os.listdir(tmp_path / "new" / "folder") == ["a"]

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_without_permission(self, tmp_path):
        tmp_path.chmod(0o500)
        with pytest.raises(PermissionError, match="no file can be created"):
            classifier().fit(X, Y, callbacks=[nn.CSVLogger(tmp_path / "a")], **VALIDATION)

    @pytest.mark.parametrize("path", [3, None, "", ["a"], "a\0b"])
    @pytest.mark.parametrize("kind", [nn.ModelCheckpoint, nn.CSVLogger, nn.Checkpoint])
    def test_a_path_is_a_path(self, kind, path):
        with pytest.raises(InvalidInputError, match="must be a path, received"):
            kind(path)

    def test_two_callbacks_do_not_write_one_file(self, tmp_path):
        """One of them would be lost without a word."""
        one, other = nn.ModelCheckpoint(tmp_path / "a"), nn.CSVLogger(os.path.join(tmp_path, "b", "..", "a"))
        for callbacks in ([one, other], [one, nn.ModelCheckpoint(tmp_path / "a", "val_accuracy")], [other, other]):
            with pytest.raises(InvalidInputError, match="two callbacks would write the same file"):
                classifier().fit(X, Y, callbacks=callbacks, **VALIDATION)
        assert os.listdir(tmp_path) == []
        several = [one, nn.ModelCheckpoint(tmp_path / "c", "val_accuracy"), nn.CSVLogger(tmp_path / "d")]
        classifier().fit(X, Y, epochs=1, callbacks=several, **VALIDATION)
        assert sorted(os.listdir(tmp_path)) == ["a", "c", "d"]


class TestMetrics:
    def test_added_metrics_are_everywhere(self, tmp_path, capsys):
        logger, stop = nn.CSVLogger(tmp_path / "log.csv"), nn.EarlyStopping("val_auc", patience=2)
        options = {**VALIDATION, "verbose": True}
        history = classifier().fit(X, Y, epochs=5, callbacks=[logger, Auc(), stop], **options)
        assert (history["val_auc"], stop.best_epoch) == (pytest.approx([0.5, 0.9, 0.7, 0.6]), 2)
        with (tmp_path / "log.csv").open() as stream:
            assert [float(row["val_auc"]) for row in csv.DictReader(stream)] == history["val_auc"]
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split()[-1] == "val_auc"
        assert [line.split()[-1] for line in lines[1:5]] == ["0.5", "0.9", "0.7", "0.6"]
        assert lines[5] == "stopped after epoch 4: val_auc has not improved since epoch 2"
        assert "val_auc" in history._repr_html_()
        assert "val_auc" in history.names()

    def test_they_are_restored(self, tmp_path, monkeypatch):
        def callbacks():
            return [Auc(), nn.EarlyStopping("val_auc", patience=2)]

        expected = undisturbed(callbacks=callbacks(), epochs=5)
        killed_at(monkeypatch, 21, lambda: kept(tmp_path, callbacks=callbacks(), epochs=5))
        assert_same_end(kept(tmp_path, callbacks=callbacks(), epochs=5), expected)
        assert len(expected[1]) == 4

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda metrics: metrics.update(a="b"), r"metrics\['a'\] to 'b'"),
            (lambda metrics: metrics.update(a=None), r"metrics\['a'\] to None"),
            (lambda metrics: metrics.update(a=np.ones(2)), r"metrics\['a'\]"),
            (lambda metrics: metrics.update({3: 1.0}), r"metrics\[3\]"),
            (lambda metrics: metrics.update(a=10**400), r"metrics\['a'\] to 1000.*fits into a float"),
            (lambda metrics: metrics.update({"a\udcff": 1.0}), r"metrics\['a.udcff'\].*printable"),
            (lambda metrics: metrics.clear(), "removed the metric 'epoch'"),
            (lambda metrics: metrics.update(epoch=7), r"metrics\['epoch'\] to 7"),
        ],
    )
    def test_a_metric_is_a_number(self, change, message):
        class Wrong(nn.Callback):
            def on_epoch_end(self, network, epoch, metrics):
                change(metrics)

        with pytest.raises(InvalidInputError, match=f"the callback Wrong has .*{message}"):
            classifier().fit(X, Y, callbacks=[Wrong()], **LOSS)

    def test_numbers_of_any_kind(self):
        class Kinds(nn.Callback):
            def on_epoch_end(self, network, epoch, metrics):
                metrics |= {"a": np.float32(0.5), "b": np.array(2), "c": True, "d": 3, "e": math.nan}
                metrics["loss"] = 7.0

        history = classifier().fit(X, Y, epochs=1, callbacks=[Kinds()], **LOSS)
        entry = history.epochs[0]
        assert [entry[name] for name in "abcd"] == [0.5, 2, 1, 3]
        assert entry["loss"] == 7
        assert {type(value) for value in entry.values()} == {int, float}


class Halve(nn.Callback):
    """Halves the learning rate after every epoch."""

    def on_epoch_end(self, network, epoch, metrics):
        network.optimizer.learning_rate /= 2


class TestLearningRate:
    def test_it_changes_from_the_next_epoch_on(self, backend):
        net, other = rich_network(backend), rich_network(backend)
        options = {"epochs": 3, **LOSS}
        history = net.fit(X, Y, optimizer=nn.Adam(0.02), callbacks=[Halve()], **options)
        assert history["learning_rate"] == [0.02, 0.01, 0.005]
        other.fit(X, Y, optimizer=nn.Adam(nn.StepDecay(0.02, every=1)), **options)
        assert same_weights(net, other)

    def test_it_is_part_of_a_checkpoint(self, tmp_path, monkeypatch):
        """In the middle of an epoch, and at its end."""
        expected = undisturbed(callbacks=[Halve()], optimizer=nn.Adam(0.02))
        for step in (12, 18):
            folder = tmp_path / str(step)

            def run(folder=folder):
                return kept(folder, callbacks=[Halve()], optimizer=nn.Adam(0.02))

            killed_at(monkeypatch, step, run)
            assert_same_end(run(), expected)
        assert expected[1]["learning_rate"] == [0.02, 0.01, 0.005]

    def test_a_schedule_is_replaced(self):
        class Set(nn.Callback):
            def on_epoch_begin(self, network, epoch):
                if epoch == 2:
                    network.optimizer.learning_rate = 1e-4

        optimizer = nn.SGD(nn.CosineDecay(0.1, epochs=3))
        history = classifier().fit(X, Y, epochs=3, optimizer=optimizer, callbacks=[Set()], **LOSS)
        assert history["learning_rate"] == [0.1, 1e-4, 1e-4]
        assert optimizer.learning_rate == 1e-4

    @pytest.mark.parametrize("rate", [-1, math.nan, math.inf, "0.1", None, True, nn.CosineDecay(0.1, 3)])
    def test_a_rate_that_cannot_be_used_is_an_error_at_once(self, rate):
        class Set(nn.Callback):
            def on_epoch_end(self, network, epoch, metrics):
                network.optimizer.learning_rate = rate

        with pytest.raises(InvalidInputError, match=r"learning.rate"):
            classifier().fit(X, Y, callbacks=[Set()], **LOSS)

    def test_it_may_be_set_before_and_after(self):
        optimizer = nn.SGD(0.1)
        optimizer.learning_rate = nn.StepDecay(0.4, every=1)
        net = classifier()
        assert net.fit(X, Y, epochs=2, optimizer=optimizer, **LOSS)["learning_rate"] == [0.4, 0.2]
        assert net.optimizer is optimizer
        optimizer.learning_rate = 0.3
        net.train_on_batch(X[:5], Y[:5])
        assert net.fit(X, Y, epochs=1, optimizer=optimizer, **LOSS)["learning_rate"] == [0.3]

    def test_a_schedule_of_the_user_must_give_numbers(self):
        class Wrong(nn.Schedule):
            def __init__(self, value):
                self.value = value

            def rate(self, epoch):
                return self.value

        for value in (math.nan, -0.1, math.inf, None):
            net = classifier()
            with pytest.raises(InvalidInputError, match=r"Wrong.*learning rate"):
                net.fit(X, Y, optimizer=nn.SGD(Wrong(value)), **LOSS)
            assert same_weights(net, classifier())


class TestAttributesInTraining:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda net: setattr(net, "learning_rate", 1), "unknown attribute of Network 'learning_rate'"),
            (lambda net: setattr(net, "loss", "mean_squared_error"), "is being trained with its loss"),
            (lambda net: net.set_loss("mean_squared_error"), "is being trained with its loss"),
            (lambda net: net.layers.append(nn.Dense(2)), r"cannot be changed; make a new one: Network\("),
            (lambda net: setattr(net.layers[0], "trainable", False), "cannot be changed during training"),
            (lambda net: setattr(net.layers[0], "units", 3), "units of Dense.* cannot be changed"),
            (lambda net: setattr(net.optimizer, "beta1", 0.5), "beta1 of Adam.* cannot be changed; make a new one"),
            (lambda net: setattr(net.optimizer, "momentum", 0.5), "unknown attribute of Adam 'momentum'"),
            (lambda net: setattr(net, "seed", 4), "seed of .* cannot be changed"),
        ],
    )
    def test_changes_without_effect_are_errors(self, tmp_path, change, message):
        class Change(nn.Callback):
            def on_epoch_end(self, network, epoch, metrics):
                change(network)

        with pytest.raises(InvalidInputError, match=message):
            classifier().fit(X, Y, callbacks=[Change(), nn.Checkpoint(tmp_path)], **LOSS)
        assert checkpoint_files(tmp_path) == []

    def test_callbacks_can_be_changed(self):
        stop = nn.EarlyStopping("loss", patience=5)
        stop.patience = 2
        with pytest.raises(InvalidInputError, match="patience must be a whole number"):
            stop.patience = 0
        with pytest.raises(InvalidAttributeError, match="did you mean 'patience'"):
            stop.patiense = 3
        with pytest.raises(InvalidAttributeError, match=r"monitor of EarlyStopping.*; make a new one"):
            stop.monitor = "accuracy"
        assert stop.patience == 2
