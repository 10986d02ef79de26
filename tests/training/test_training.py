"""The training loop on the host: history, callbacks, schedules, Ctrl-C and output."""

from __future__ import annotations

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from tests.helpers import classifier, images, same_weights

X, Y = images(rows=64)
OPTIONS = {"batch_size": 16, "loss": "softmax_cross_entropy"}


def test_history_has_every_metric_of_every_epoch(tmp_path):
    history = classifier().fit(X, Y, epochs=3, validation_data=(X[:20], Y[:20]), **OPTIONS)
    assert history.names() == [
        "epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds", "samples_per_second"
    ]  # fmt: skip
    assert history["epoch"] == [1, 2, 3]
    assert len(history) == 3
    assert all(len(losses) == 4 for losses in history.step_losses)
    assert min(history["seconds"]) > 0
    assert history["samples_per_second"][0] == pytest.approx(64 / history["seconds"][0])
    assert "3 epochs" in repr(history)
    with pytest.raises(KeyError, match="no 'val_los' in this history"):
        history["val_los"]
    history.to_csv(tmp_path / "history.csv")
    history.to_json(tmp_path / "history.json")
    with open(tmp_path / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == history["loss"]
    assert json.loads((tmp_path / "history.json").read_text())["epochs"] == history.epochs


def test_validation_is_what_evaluate_says():
    net = classifier()
    history = net.fit(X, Y, epochs=1, validation_data=(X[:20], Y[:20]), **OPTIONS)
    metrics = net.evaluate(X[:20], Y[:20])
    assert history["val_loss"][0] == pytest.approx(metrics["loss"])
    assert history["val_accuracy"][0] == pytest.approx(metrics["accuracy"])


def test_evaluation_does_not_depend_on_the_batch_size():
    net = classifier()
    whole = net.evaluate(X, Y, loss="softmax_cross_entropy")
    for size in (1, 7, 64, 1000):
        parts = net.evaluate(X, Y, loss="softmax_cross_entropy", batch_size=size)
        assert parts == pytest.approx(whole, rel=1e-6)
        np.testing.assert_allclose(net.predict(X, batch_size=size), net.predict(X), rtol=1e-5, atol=1e-7)


def test_small_data_are_one_batch_by_default():
    history = classifier().fit(X[:10], Y[:10], epochs=1, loss="softmax_cross_entropy")
    assert len(history.step_losses[0]) == 1


def test_weights_of_zero_exclude_rows():
    weight = np.zeros(64)
    weight[:16] = 1
    some, few = classifier(), classifier()
    some.fit(X, Y, epochs=1, sample_weight=weight, optimizer=nn.SGD(0.1), **{**OPTIONS, "batch_size": 64})
    few.fit(X[:16], Y[:16], epochs=1, optimizer=nn.SGD(0.1), **OPTIONS)
    for name, value in few.get_weights().items():
        np.testing.assert_allclose(some.get_weights()[name], value, rtol=1e-5, atol=1e-6)


def test_only_ratios_of_weights_matter():
    weight = np.linspace(1, 3, 64)
    one, double = classifier(dtype="float64"), classifier(dtype="float64")
    one.fit(X, Y, epochs=2, sample_weight=weight, **OPTIONS)
    double.fit(X, Y, epochs=2, sample_weight=2 * weight, **OPTIONS)
    for name, value in one.get_weights().items():
        np.testing.assert_allclose(double.get_weights()[name], value, rtol=1e-9)


def test_one_hot_labels_are_labels():
    one, other = classifier(), classifier()
    one.fit(X, Y, epochs=2, **OPTIONS)
    history = other.fit(X, np.eye(4)[Y], epochs=2, **OPTIONS)
    assert same_weights(one, other)
    assert "accuracy" in history.names()


class TestCallbacks:
    def test_callbacks_are_called_in_order(self):
        seen = []

        class Spy(nn.Callback):
            def on_train_begin(self, network, epochs):
                seen.append(("begin", epochs))

            def on_epoch_begin(self, network, epoch):
                seen.append(("epoch", epoch))

            def on_epoch_end(self, network, epoch, metrics):
                seen.append(("end", epoch, metrics["epoch"]))
                return "enough" if epoch == 2 else None

            def on_train_end(self, network, history):
                seen.append(("over", len(history)))

        history = classifier().fit(X, Y, epochs=5, callbacks=[Spy()], **OPTIONS)
        assert seen == [("begin", 5), ("epoch", 1), ("end", 1, 1), ("epoch", 2), ("end", 2, 2), ("over", 2)]
        assert history.stopped_by == "Spy"

    def test_step_losses_are_reported_before_the_metrics(self):
        seen = []

        class Spy(nn.Callback):
            def on_steps_end(self, network, epoch, losses):
                seen.append((epoch, losses))

            def on_epoch_end(self, network, epoch, metrics):
                assert seen[-1][0] == epoch
                assert np.mean(seen[-1][1]) == pytest.approx(metrics["loss"])

        history = classifier().fit(X, Y, epochs=2, callbacks=[Spy()], **OPTIONS)
        assert [epoch for epoch, _ in seen] == [1, 2]
        np.testing.assert_array_equal([losses for _, losses in seen], history.step_losses)

    def overfitted(self, callbacks, epochs=60):
        """Random labels: validation soon gets worse."""
        generator = np.random.default_rng(0)
        x, y = generator.normal(size=(40, 12)), generator.integers(0, 4, 40)
        net = classifier()
        history = net.fit(
            x[:20], y[:20], epochs=epochs, batch_size=10, loss="softmax_cross_entropy", optimizer=nn.Adam(0.05),
            validation_data=(x[20:], y[20:]), callbacks=callbacks,
        )  # fmt: skip
        return net, history, net.evaluate(x[20:], y[20:])["loss"]

    def test_early_stopping_stops_and_restores_the_best(self):
        stopping = nn.EarlyStopping(patience=4)
        _, history, loss = self.overfitted([stopping])
        best = int(np.argmin(history["val_loss"])) + 1
        assert stopping.best_epoch == best
        assert len(history) == best + 4 < 60
        assert loss == pytest.approx(min(history["val_loss"]))
        assert stopping.best_value == min(history["val_loss"])
        assert history.stopped_by == "EarlyStopping"

    def test_the_best_is_restored_also_after_the_last_epoch(self):
        _, history, loss = self.overfitted([nn.EarlyStopping(patience=1000)], epochs=20)
        assert len(history) == 20
        assert loss == pytest.approx(min(history["val_loss"]))
        assert history["val_loss"][-1] > min(history["val_loss"])

    def test_a_reused_callback_starts_over(self):
        stopping = nn.EarlyStopping(patience=4)
        _, first, _ = self.overfitted([stopping])
        _, second, loss = self.overfitted([stopping])
        assert second["val_loss"] == first["val_loss"]
        assert loss == pytest.approx(min(second["val_loss"]))

    def test_the_last_result_is_kept_on_request(self):
        _, history, loss = self.overfitted([nn.EarlyStopping(patience=4, restore_best=False)])
        assert loss == pytest.approx(history["val_loss"][-1])

    @pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy", "accuracy"])
    def test_the_last_of_the_best_epochs_is_kept_and_none_ends_the_run(self, monitor):
        keeper = nn.KeepBest(monitor)
        net, history, _ = self.overfitted([keeper], epochs=30)
        metrics = history[monitor]
        best = min(metrics) if monitor == "val_loss" else max(metrics)
        assert len(history) == 30
        assert keeper.best_value == best
        assert keeper.best_epoch == 30 - metrics[::-1].index(best)
        shorter, _, _ = self.overfitted([], epochs=keeper.best_epoch)
        assert same_weights(net, shorter)

    def test_accuracy_is_better_when_it_rises(self):
        stopping = nn.EarlyStopping(monitor="val_accuracy", patience=3)
        _, history, _ = self.overfitted([stopping])
        assert stopping.best_value == max(history["val_accuracy"])

    def test_a_missing_metric_is_named(self):
        net = classifier()
        for callback in (nn.EarlyStopping(), nn.KeepBest(), nn.ModelCheckpoint("never-written")):
            with pytest.raises(InvalidInputError, match=r"cannot monitor 'val_loss'.*give validation_data"):
                net.fit(X, Y, epochs=1, callbacks=[callback], **OPTIONS)
        with pytest.raises(InvalidInputError, match="cannot monitor 'val_acc'"):
            net.fit(X, Y, epochs=1, optimizer=nn.SGD(nn.ReduceOnPlateau(0.1, monitor="val_acc")), **OPTIONS)
        assert same_weights(net, classifier())
        assert net.loss is None

    def test_nan_is_never_the_best(self):
        stopping = nn.EarlyStopping(patience=5)
        with pytest.warns(UserWarning, match="val_loss is NaN after epoch 1"):
            stopping.on_epoch_end(classifier(), 1, {"val_loss": float("nan")})
        for epoch, value in enumerate([1.0, 0.5], start=2):
            stopping.on_epoch_end(classifier(), epoch, {"val_loss": value})
        assert (stopping.best_epoch, stopping.best_value) == (3, 0.5)

    def test_callbacks_may_come_from_a_generator(self, tmp_path):
        path = tmp_path / "log.csv"
        classifier().fit(X, Y, epochs=1, callbacks=(nn.CSVLogger(name) for name in [path]), **OPTIONS)
        assert path.exists()

    def test_the_network_cannot_be_moved_or_trained_during_training(self):
        class Meddle(nn.Callback):
            def on_epoch_end(self, network, epoch, metrics):
                with pytest.raises(InvalidInputError, match="is being trained; move it"):
                    network.to("numba")
                with pytest.raises(InvalidInputError, match="is being trained already"):
                    network.fit(X, Y, epochs=1, **OPTIONS)

        net, plain = classifier(), classifier()
        net.fit(X, Y, epochs=2, callbacks=[Meddle()], **OPTIONS)
        plain.fit(X, Y, epochs=2, **OPTIONS)
        assert same_weights(net, plain)
        assert net.to("numba").backend.name == "numba"

    def test_a_checkpoint_keeps_the_best(self, tmp_path):
        path = tmp_path / "best.safetensors"
        net, history, _ = self.overfitted([nn.ModelCheckpoint(path)], epochs=20)
        best = nn.Network.load(path, backend="numpy")
        assert best.epochs_trained == int(np.argmin(history["val_loss"])) + 1
        assert not same_weights(net, best)

    def test_a_checkpoint_of_every_epoch(self, tmp_path):
        checkpoint = nn.ModelCheckpoint(tmp_path / "epoch-{epoch}.safetensors", best_only=False)
        classifier().fit(X, Y, epochs=3, callbacks=[checkpoint], **OPTIONS)
        assert sorted(os.listdir(tmp_path)) == [f"epoch-{epoch}.safetensors" for epoch in (1, 2, 3)]

    def test_a_csv_log_is_complete_after_every_epoch(self, tmp_path):
        path = tmp_path / "log.csv"
        lines = []

        class Reader(nn.Callback):
            def on_epoch_end(self, network, epoch, metrics):
                lines.append(len(path.read_text().splitlines()))

        history = classifier().fit(X, Y, epochs=3, callbacks=[nn.CSVLogger(path), Reader()], **OPTIONS)
        assert lines == [2, 3, 4]
        with open(path, newline="") as file:
            assert [float(row["loss"]) for row in csv.DictReader(file)] == history["loss"]


class TestSchedules:
    @pytest.mark.parametrize(
        ("schedule", "expected"),
        [
            (nn.StepDecay(1.0, factor=0.5, every=2), [1, 1, 0.5, 0.5, 0.25]),
            (nn.ExponentialDecay(1.0, decay=0.5), [1, 0.5, 0.25, 0.125, 0.0625]),
            (nn.CosineDecay(1.0, epochs=4), [1, 0.853553, 0.5, 0.146447, 0]),
            (nn.CosineDecay(1.0, epochs=2, final=0.1), [1, 0.55, 0.1, 0.1, 0.1]),
            (nn.Warmup(2, 1.0, start=0.5), [0.5, 0.75, 1, 1, 1]),
            (nn.Warmup(2, nn.StepDecay(1.0, 0.5, 1), start=0.5), [0.5, 0.75, 1, 0.5, 0.25]),
        ],
    )
    def test_rates_by_epoch(self, schedule, expected):
        np.testing.assert_allclose([schedule.rate(epoch) for epoch in range(5)], expected, atol=1e-6)
        history = classifier().fit(X, Y, epochs=5, optimizer=nn.SGD(schedule), **OPTIONS)
        np.testing.assert_allclose(history["learning_rate"], expected, atol=1e-6)

    def test_rates_change_from_step_to_step(self):
        np.testing.assert_allclose(nn.ExponentialDecay(1.0, 0.5).epoch_rates(1, 2), [0.5, 0.5**1.5])
        assert np.ptp(nn.CosineDecay(1.0, 1).epoch_rates(0, 50)) > 0.9

    def test_a_step_really_takes_its_own_rate(self):
        class SecondStepOnly(nn.Schedule):
            def rate(self, epoch):
                return 0.1 if 0.5 <= epoch < 1 else 0.0

        net, reference = classifier(), classifier()
        net.fit(X[:32], Y[:32], epochs=1, optimizer=nn.SGD(SecondStepOnly()), shuffle=False, **OPTIONS)
        reference.fit(X[16:32], Y[16:32], epochs=1, optimizer=nn.SGD(0.1), shuffle=False, **OPTIONS)
        assert same_weights(net, reference)

    def test_a_plateau_lowers_the_rate(self):
        schedule = nn.ReduceOnPlateau(1.0, factor=0.1, patience=2, minimum=0.01)
        rates = []
        for loss in (3, 2, 2, 2, 2, 2, 2, 2, 1):
            schedule.observe({"loss": 9, "val_loss": loss})
            rates.append(schedule.rate(0))
        np.testing.assert_allclose(rates, [1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01])
        schedule.start()
        assert schedule.rate(0) == 1.0
        schedule.observe({"loss": 1})
        assert schedule.rate(0) == 1.0
        rising = nn.ReduceOnPlateau(1.0, patience=1, monitor="val_accuracy")
        for accuracy in (0.5, 0.6, 0.7):
            rising.observe({"loss": 1, "accuracy": accuracy})
        assert rising.rate(0) == 1.0

    def test_fit_passes_metrics_to_a_plateau_and_a_new_run_resets_it(self):
        schedule = nn.ReduceOnPlateau(1e-9, factor=0.5, patience=1, monitor="loss")
        # With this rate nothing improves beyond rounding.
        options = {"epochs": 8, "shuffle": False, **OPTIONS}
        first = classifier().fit(X, Y, optimizer=nn.SGD(schedule), **options)["learning_rate"]
        assert first[0] == 1e-9
        assert first[-1] < 1e-9
        assert classifier().fit(X, Y, optimizer=nn.SGD(schedule), **options)["learning_rate"] == first


class CtrlC(nn.Layer):
    """Sends Ctrl-C in a training step, counted from 1."""

    def __init__(self, at):
        self.at, self.steps = at, itertools.count(1)

    def forward(self, step, x):
        if step.training:
            step.call(self.interrupt)
        return x, None

    def interrupt(self, backend):
        if next(self.steps) == self.at:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    def backward(self, step, saved, upstream, need_input_gradient):
        return upstream


class TestInterrupt:
    def test_ctrl_c_ends_the_epoch_cleanly(self):
        """The signal comes during an epoch: the current step is finished, and the metrics cover the completed steps."""
        before = signal.getsignal(signal.SIGINT)
        net = nn.Network([CtrlC(3), nn.Dense(4)], 12, backend="numpy")
        history = net.fit(X, Y, epochs=5, validation_data=(X, Y), **{**OPTIONS, "batch_size": 1})
        assert history.interrupted
        assert len(history) == 1
        assert 3 <= len(history.step_losses[0]) < 64
        assert net.steps_trained == len(history.step_losses[0])
        assert np.isfinite(history["val_loss"][0])
        assert signal.getsignal(signal.SIGINT) is before
        net.fit(X, Y, epochs=1, **OPTIONS)

    @pytest.mark.parametrize(("monitor", "seen"), [("accuracy", [1]), ("val_accuracy", [1, 2])])
    def test_an_epoch_that_was_cut_is_not_the_best_in_training(self, monitor, seen):
        """A few easy rows could have the best training metrics; validation metrics remain valid."""

        class Spy(nn.KeepBest):
            def on_epoch_end(self, network, epoch, metrics):
                judged.append(epoch)
                return super().on_epoch_end(network, epoch, metrics)

        judged = []
        net = nn.Network([CtrlC(64 + 10), nn.Dense(4)], 12, backend="numpy")
        options = {**OPTIONS, "batch_size": 1}
        history = net.fit(X, Y, epochs=3, validation_data=(X, Y), callbacks=[Spy(monitor)], **options)
        assert history.interrupted
        assert len(history) == 2
        assert 10 <= len(history.step_losses[1]) < 64
        assert judged == seen

    def test_a_real_ctrl_c_leaves_a_network_that_saves(self, tmp_path):
        script = f"""
import numpy as np, nnbackend as nn
net = nn.Network([nn.Dense(300, activation="relu"), nn.Dense(10)], 784, backend="numpy", input_scale=1 / 255)
x, y = np.zeros((20000, 784), np.uint8), np.zeros(20000, int)
class Ready(nn.Callback):
    def on_epoch_begin(self, network, epoch):
        print("ready", flush=True)
history = net.fit(x, y, epochs=1000, batch_size=32, loss="softmax_cross_entropy", callbacks=[Ready()], verbose=False)
net.save({str(tmp_path / "model.safetensors")!r})
print("interrupted" if history.interrupted else "went on", flush=True)
"""
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
        assert out.splitlines()[-1] == "interrupted"
        assert process.returncode == 0
        assert nn.Network.load(tmp_path / "model.safetensors", backend="numpy").steps_trained < 1000 * 625

    def test_ctrl_c_in_a_callback_counts_and_an_epoch_without_a_step_does_not(self):
        class Stop(nn.Callback):
            def __init__(self, occasion):
                self.occasion = occasion

            def on_epoch_begin(self, network, epoch):
                if (self.occasion, epoch) == ("begin", 2):
                    signal.raise_signal(signal.SIGINT)

            def on_epoch_end(self, network, epoch, metrics):
                if (self.occasion, epoch) == ("end", 3):
                    signal.raise_signal(signal.SIGINT)

        for occasion, epochs in (("begin", 1), ("end", 3)):
            net = classifier()
            history = net.fit(X, Y, epochs=3, callbacks=[Stop(occasion)], **OPTIONS)
            assert history.interrupted
            assert len(history) == net.epochs_trained == epochs

    def test_a_process_that_ignores_ctrl_c_continues_to_ignore_it(self):
        class Stop(nn.Callback):
            def on_epoch_begin(self, network, epoch):
                signal.raise_signal(signal.SIGINT)

        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            assert len(classifier().fit(X, Y, epochs=2, callbacks=[Stop()], **OPTIONS)) == 2
        finally:
            signal.signal(signal.SIGINT, before)

    def test_training_in_another_thread_works(self):
        net = classifier()
        thread = threading.Thread(target=lambda: net.fit(X, Y, epochs=1, **OPTIONS))
        thread.start()
        thread.join()
        assert net.epochs_trained == 1


class TestOutput:
    def test_nothing_is_printed_where_there_is_no_terminal(self, capsys):
        classifier().fit(X, Y, epochs=1, **OPTIONS)
        assert capsys.readouterr() == ("", "")

    def test_a_line_per_epoch_on_request(self, capsys):
        classifier().fit(X, Y, epochs=2, verbose=True, validation_data=(X, Y), **OPTIONS)
        head, *lines = capsys.readouterr().out.splitlines()
        assert head.split() == [
            "epoch", "loss", "accuracy", "val_loss", "val_accuracy", "rate", "seconds", "samples/s"
        ]  # fmt: skip
        assert [line.split()[0] for line in lines] == ["1", "2"]
        # Right-aligned columns end where their headings end.
        assert {len(line) for line in lines} == {len(head)}
        assert len(head) <= 80

    def test_the_reason_for_stopping_early_is_printed(self, capsys):
        class Stop(nn.Callback):
            def on_epoch_end(self, network, epoch, metrics):
                return "it is good enough"

        classifier().fit(X, Y, epochs=9, verbose=True, callbacks=[Stop()], **OPTIONS)
        assert capsys.readouterr().out.splitlines()[-1] == "stopped after epoch 1: it is good enough"
