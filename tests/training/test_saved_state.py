"""No state is written from which training could not continue, and a callback's state is restored exactly."""

from __future__ import annotations

import warnings
from contextlib import suppress

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError, ModelFileError, TrainingDivergedError
from nnbackend.saving.model_file import read_checkpoint, write_checkpoint
from nnbackend.training.checkpoints.checkpoint import checkpoint_files
from tests.distributed.ranks import run_ranks
from tests.helpers import images, same_weights
from tests.layers.custom import RunningScale
from tests.training.resuming import Killed

X, Y = images(rows=70)
# One of them is predicted wrongly, whatever the weights.
Y[12:14] = 0, 1
#: NetCDF's fill value: its square is beyond the range of float32, and its loss is not.
FILL = 9.96921e36

OPTIMIZERS = {
    "sgd": lambda: nn.SGD(0.01),
    "momentum": lambda: nn.SGD(0.01, momentum=0.9),
    "nesterov": lambda: nn.SGD(0.01, momentum=0.9, nesterov=True),
    "adam": nn.Adam,
    "adamw": nn.AdamW,
    "rmsprop": nn.RMSprop,
    "lion": nn.Lion,
}
LOSS = {"loss": "softmax_cross_entropy", "batch_size": 10}


def rows(fill=FILL, dtype="float32"):
    x = X.astype(dtype) / 255
    x[12:14, 3] = fill
    return x


def network(backend="numpy", dtype="float32"):
    return nn.Network([nn.Dense(4)], 12, backend=backend, seed=3, dtype=dtype)


def test_an_infinite_moment_ends_the_run(backend, tmp_path):
    """It makes updates of 0 and finite losses, so that those weights would silently never change again."""
    net = network(backend)
    good = network(backend)
    net.fit(X / 255.0, Y, epochs=1, callbacks=[nn.Checkpoint(tmp_path / "good")], **LOSS)
    good.set_weights(net.get_weights())
    with pytest.raises(TrainingDivergedError, match=r"second_moment became NaN or infinite in epoch 1") as error:
        net.fit(rows(), Y, epochs=3, callbacks=[nn.Checkpoint(tmp_path / "run", every_steps=1, keep=2)], **LOSS)
    assert error.value.epoch == 1
    assert same_weights(net, good)
    for path in checkpoint_files(tmp_path / "run"):
        contents = read_checkpoint(path)
        assert all(np.isfinite(array).all() for name, array in contents.arrays.items() if name.startswith("slots."))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_checkpoint_of_a_run_that_diverges_can_be_resumed_from(tmp_path, optimizer, dtype):
    """Whatever becomes infinite, and in which step."""
    fill = FILL if dtype == "float32" else 1e200
    x = rows(fill, dtype)
    net = network(dtype=dtype)
    options = {"shuffle": False, **LOSS}
    checkpoint = nn.Checkpoint(tmp_path, every_steps=1, keep=100)
    with suppress(TrainingDivergedError):
        net.fit(x, Y, epochs=3, optimizer=OPTIMIZERS[optimizer](), callbacks=[checkpoint], **options)
    assert checkpoint_files(tmp_path)
    for path in checkpoint_files(tmp_path):
        folder = tmp_path / path.stem
        folder.mkdir()
        path.rename(folder / path.name)
        again = {"epochs": 4, "optimizer": OPTIMIZERS[optimizer](), "callbacks": [Kill()], "resume": folder, **options}
        with pytest.raises(Killed):
            network(dtype=dtype).fit(x, Y, **again)


class Kill(nn.Callback):
    """Ends a run as soon as it was restored."""

    def on_epoch_begin(self, network, epoch):
        raise Killed


def test_ranks_end_together_when_a_moment_becomes_infinite(tmp_path):
    def program(ranks):
        net = network()
        net.fit(rows(), Y, epochs=2, callbacks=[nn.Checkpoint(tmp_path)], communicator=ranks, **LOSS)

    errors = run_ranks(2, program)
    assert [type(error) for error in errors] == [TrainingDivergedError, TrainingDivergedError]
    assert checkpoint_files(tmp_path) == []


def test_batches_with_an_infinite_moment_are_undone(backend):
    net = network(backend)
    adam = nn.Adam()
    net.train_on_batch(X[:10] / 255.0, Y[:10], loss="softmax_cross_entropy", optimizer=adam)
    before = net.get_weights()
    with pytest.raises(TrainingDivergedError, match="this batch made the optimizer's second_moment NaN or infinite"):
        net.train_on_batch(rows()[10:20], Y[10:20])
    assert all((before[name] == weight).all() for name, weight in net.get_weights().items())
    assert net.train_on_batch(X[:10] / 255.0, Y[:10])["loss"] < 10


def test_an_infinite_state_of_a_layer_ends_the_run(backend, tmp_path):
    """It divides by its state: all outputs are 0, and all losses finite."""

    def make():
        return nn.Network([RunningScale(), nn.Dense(4)], 12, backend=backend)

    x = np.full((70, 12), 1e37, np.float32)
    net = make()
    with pytest.raises(TrainingDivergedError, match=r"layers.0.mean became NaN or infinite in epoch 1;"):
        net.fit(x, Y, epochs=2, callbacks=[nn.Checkpoint(tmp_path, every_steps=1)], **LOSS)
    assert same_weights(net, make())
    assert checkpoint_files(tmp_path) == []


def test_steps_with_an_infinite_moment_are_skipped(tmp_path):
    net = network()
    history = net.fit(rows(), Y, epochs=2, on_nan="skip", callbacks=[nn.Checkpoint(tmp_path)], **LOSS)
    assert min(history["skipped"]) >= 1
    assert len(checkpoint_files(tmp_path)) == 2


@pytest.mark.parametrize("slot", ["slots.second_moment.layers.0.weight", "weight", "trace"])
def test_what_is_not_written_is_not_read(tmp_path, slot):
    """An older version wrote such checkpoints. The one before is used."""
    options = {"epochs": 3, "resume": True, **LOSS}
    x = X / 255.0
    expected = network()
    expected.fit(x, Y, epochs=3, **LOSS)
    network().fit(x, Y, callbacks=[nn.Checkpoint(tmp_path, every_steps=5)], **{**options, "epochs": 2})
    path = checkpoint_files(tmp_path)[0]
    contents = read_checkpoint(path)
    if slot == "trace":
        contents.arrays["trace"] = np.full((3, 3), np.inf)
    elif slot == "weight":
        contents.config["steps_trained"] = -1
    else:
        contents.arrays[slot][0, 0] = np.inf
    write_checkpoint(path, contents)
    net = network()
    with pytest.warns(RuntimeWarning, match="does not hold what a run needs.*trying the one before"):
        net.fit(x, Y, callbacks=[nn.Checkpoint(tmp_path, every_steps=5)], **options)
    assert same_weights(net, expected)


class Remembers(nn.Callback):
    """Has any state, which is restored in a resumed run."""

    def __init__(self, kept):
        self.kept = kept
        self.restored = None

    def state(self, network):
        return self.kept

    def set_state(self, network, state):
        self.restored = state


class Unready(nn.Callback):
    """Has a state only after training has begun."""

    def __init__(self, value):
        self.value = value

    def on_train_begin(self, network, epochs):
        self.kept = {"value": self.value}

    def state(self, network):
        return self.kept


STATES = {
    "arrays": {
        "transposed": np.arange(6.0).reshape(2, 3).T,
        "every other": np.arange(9)[::2],
        "none": np.empty((0, 2)),
    },
    "numbers of other machines": {"a": np.arange(3, dtype=">i4"), "b": [np.arange(2, dtype=">f8")]},
    "other kinds": {"a": np.array(["a", "bc"]), "b": np.array([1 + 2j]), "c": np.array(["2020-01-02"], "M8[D]")},
    "scalars": {"a": np.float32(0.1), "b": [np.int64(3), np.bool_(True)], "c": np.array(2.5)},
    "nested": {"a": [(1, 2), {"b": (np.arange(3), {3, 4})}], "d": {"$": 1}, "$0": np.arange(2), "e": b"\0\xff"},
    "keys": {"counts": {1: 2, None: 3, (4, 5): 6}},
    "floats": {"a": [float("nan"), float("inf"), -0.0, 0.1], "b": 10**1000, "c": None, "d": "π"},
}


def same(one, other):
    """Whether two states are equal, with the types of everything in them."""
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other)


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_a_state_is_restored_exactly(tmp_path, state):
    options = {**LOSS, "resume": True}
    callback = Remembers(state)
    network().fit(X, Y, epochs=1, callbacks=[callback, nn.Checkpoint(tmp_path)], **options)
    again = Remembers({})
    network().fit(X, Y, epochs=2, callbacks=[again, nn.Checkpoint(tmp_path)], **options)
    assert same(again.restored, state)
    for value in again.restored.values():
        assert not isinstance(value, np.ndarray) or value.flags.writeable


CIRCLE: list = []
CIRCLE.append(CIRCLE)

UNSTORABLE = {
    "objects": np.array([None, {}]),
    "masked": np.ma.array([1.0], mask=[True]),
    "records": np.zeros(2, "i4,f4"),
    "generator": (each for each in ()),
    "function": print,
    "class of ours": nn.Zeros(),
    "subclass": type("Own", (dict,), {})(),
    "circle": CIRCLE,
    "huge": 10**5000,
    "surrogate": "\ud800",
}


@pytest.mark.parametrize("value", UNSTORABLE.values(), ids=UNSTORABLE)
@pytest.mark.parametrize("make", [lambda value: Remembers({"value": value}), Unready], ids=["before", "at the start"])
def test_what_cannot_be_stored_is_an_error_before_training(tmp_path, value, make):
    net = network()
    before = net.get_weights()
    with pytest.raises(InvalidInputError, match=r"cannot hold the state of (Remembers|Unready): value"):
        net.fit(X, Y, callbacks=[make(value), nn.Checkpoint(tmp_path)], **LOSS)
    assert all((before[name] == weight).all() for name, weight in net.get_weights().items())
    assert (net.steps_trained, net.optimizer_state, checkpoint_files(tmp_path)) == (0, None, [])
    # Without checkpoints nothing is stored.
    net.fit(X, Y, epochs=1, callbacks=[make(value)], **LOSS)


@pytest.mark.parametrize("state", [{1: 2}, {None: 1}, [1], None, 3])
def test_a_state_is_a_dict_with_text_as_keys(tmp_path, state):
    with pytest.raises(InvalidInputError, match="the state of Remembers must"):
        network().fit(X, Y, callbacks=[Remembers(state), nn.Checkpoint(tmp_path)], **LOSS)


def test_a_state_that_can_no_longer_be_stored_does_not_end_training(tmp_path):
    class Later(nn.Callback):
        epoch = 0

        def on_epoch_end(self, network, epoch, metrics):
            self.epoch = epoch

        def state(self, network):
            return {"value": print if self.epoch == 2 else self.epoch}

    with pytest.warns(RuntimeWarning, match="no checkpoint written: a checkpoint cannot hold the state of Later"):
        network().fit(X, Y, epochs=3, callbacks=[Later(), nn.Checkpoint(tmp_path)], **LOSS)
    assert [read_checkpoint(path).training["callbacks"]["Later.0"]["value"] for path in checkpoint_files(tmp_path)] == [
        3, 1,
    ]  # fmt: skip


def test_the_state_of_a_schedule_is_restored_exactly(tmp_path):
    class Own(nn.Schedule):
        seen = ()

        def rate(self, epoch):
            return 0.01

        def observe(self, logs):
            self.seen = (*self.seen, np.float32(logs["loss"]))

        def state(self):
            return {"seen": self.seen, "last": np.array(self.seen)[::-1]}

        def set_state(self, state):
            self.seen, self.last = state["seen"], state["last"]

    first, second = Own(), Own()
    for epochs, schedule in ((2, first), (3, second)):
        optimizer, callbacks = nn.SGD(schedule), [nn.Checkpoint(tmp_path)]
        network().fit(X, Y, epochs=epochs, optimizer=optimizer, callbacks=callbacks, resume=True, **LOSS)
    assert second.seen[:2] == first.seen
    assert second.last.tolist() == list(first.seen)[::-1]


def test_a_damaged_state_of_a_callback_is_an_error(tmp_path):
    options = {**LOSS, "resume": True}
    network().fit(X, Y, epochs=1, callbacks=[Remembers({"a": (1, 2)}), nn.Checkpoint(tmp_path)], **options)
    path = checkpoint_files(tmp_path)[0]
    contents = read_checkpoint(path)
    for broken in ({"$": "tuple"}, {"$": "array", "name": "x", "dtype": "O", "shape": []}, {"$": []}):
        contents.training["callbacks"]["Remembers.0"] = {"a": broken}
        write_checkpoint(path, contents)
        with pytest.raises(ModelFileError, match="does not hold what Remembers needs"), warnings.catch_warnings():
            network().fit(X, Y, epochs=2, callbacks=[Remembers({}), nn.Checkpoint(tmp_path)], **options)
