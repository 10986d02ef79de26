"""Public objects show themselves, and reject misspelt attributes and changes that would have no effect."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidAttributeError, InvalidInputError
from nnbackend.losses import LOSSES
from nnbackend.schedules import Constant

OBJECTS = [
    nn.EarlyStopping("loss", patience=4, mode="min"),
    nn.KeepBest(),
    nn.ModelCheckpoint("a-{epoch}", best_only=False),
    nn.CSVLogger("a.csv"),
    nn.Checkpoint("folder", every_minutes=2.5),
    nn.SGD(0.5, momentum=0.9, nesterov=True),
    nn.Adam(nn.Warmup(2, nn.CosineDecay(0.1, 5))),
    nn.AdamW(),
    nn.RMSprop(),
    nn.StepDecay(0.1),
    nn.ExponentialDecay(0.1),
    nn.OneCycle(0.1, 3, anneal="linear", cycle_momentum=False),
    nn.ReduceOnPlateau(0.1, monitor="loss", mode="min"),
    nn.Dense(3, activation="relu", use_bias=False, l2=0.5, trainable=False),
    nn.Dense(3, "leaky_relu", alpha=0.2, weight_initializer="zeros", bias_initializer=nn.Normal(0.0, 2.0), l1=0.1),
    nn.Dropout(0.5),
    nn.Activation("tanh"),
    nn.Activation("elu", alpha=0.5),
    nn.Flatten(),
    nn.MaxAbsNorm(),
    nn.HeNormal(),
    nn.Uniform(-1.0, 1.0),
]


INNER = (nn.Normal(), nn.Zeros(), nn.CosineDecay(1, 1), nn.Warmup(1, 1), Constant(1))
NAMES = {type(made).__name__: type(made) for made in (*OBJECTS, *INNER)}


@pytest.mark.parametrize("made", OBJECTS, ids=lambda made: type(made).__name__)
def test_the_repr_makes_an_equal_object(made):
    text = repr(made)
    again = eval(text, NAMES)
    assert type(again) is type(made)
    assert repr(again) == text
    assert " at 0x" not in text
    if isinstance(made, nn.Layer):
        assert again.config() == made.config()


def test_the_repr_of_every_public_object_says_what_it_is():
    net = nn.Network([nn.Dense(2)], 3, backend="numpy")
    others = [
        *LOSSES.values(),
        net,
        net.snapshot(),
        nn.History(),
        nn.Callback(),
        net.layers,
        nn.Parameter("a", (1,), nn.Zeros()),
    ]
    for made in (*OBJECTS, *others):
        assert " object at 0x" not in repr(made), type(made)


@pytest.mark.parametrize("made", OBJECTS, ids=lambda made: type(made).__name__)
def test_unknown_attributes_are_rejected(made):
    made = copy.deepcopy(made)
    before = repr(made)
    with pytest.raises(InvalidAttributeError, match=f"unknown attribute of {type(made).__name__} 'lerning_rate'"):
        made.lerning_rate = 3
    with pytest.raises(AttributeError):
        made.lerning_rate = 3
    assert repr(made) == before
    assert repr(pickle.loads(pickle.dumps(made))) == before


@pytest.mark.parametrize(
    ("made", "name", "value", "message"),
    [
        (nn.Dense(3), "units", 4, "make a new layer, and a new network with it"),
        (nn.Dropout(0.5), "rate", 0.2, "make a new layer"),
        (nn.Dropout(0.5), "rat", 0.2, "did you mean 'rate'"),
        (nn.SGD(), "momentum", 1.5, r"make a new one: SGD\(momentum=...\)"),
        (nn.Adam(), "learning_rat", 0.1, "did you mean 'learning_rate'"),
        (nn.CosineDecay(0.1, 3), "initial", 0.2, r"make a new one: CosineDecay\(initial=...\)"),
        (nn.Normal(), "mean", 2, r"make a new one: Normal\(mean=...\)"),
        (nn.KeepBest(), "best_epoch", 2, "it can only be read"),
        (nn.EarlyStopping(), "mode", "max", "make a new one"),
        (nn.Conv2D(3, 2), "strides", 2, "make a new layer"),
        (nn.Conv1D(3, 2), "padding", "same", "make a new layer"),
        (nn.MaxPool2D(), "pool_size", 3, "make a new layer"),
    ],
)
def test_changes_without_effect_are_rejected(made, name, value, message):
    with pytest.raises(InvalidAttributeError, match=message):
        setattr(made, name, value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("learning_rate", 1, "unknown attribute of Network 'learning_rate'.*network.optimizer.learning_rate"),
        ("epochs", 3, r"Give it to fit\(...\)"),
        ("layers", [], r"layers of <Network.* cannot be changed; make a new network"),
        ("seed", 2, "make a new network"),
        ("dtype", "float64", "make a new network"),
        ("backend", "numba", r"move the network with to\(backend\)"),
        ("optimizer", nn.Adam(), r"give it to fit\(optimizer=...\)"),
        ("output_shape", (3,), "can only be read"),
        ("los", "mean_squared_error", "did you mean 'loss'"),
    ],
)
def test_attributes_of_a_network(name, value, message):
    net = nn.Network([nn.Dense(2)], 3, backend="numpy")
    with pytest.raises(InvalidAttributeError, match=message):
        setattr(net, name, value)


def test_the_loss_of_a_network_can_be_set():
    net = nn.Network([nn.Dense(2)], 3, backend="numpy")
    net.loss = "softmax_cross_entropy"
    np.testing.assert_allclose(net.predict(np.ones((1, 3))).sum(), 1, rtol=1e-6)
    for wrong in ("softmax", None, 3):
        with pytest.raises(InvalidInputError, match="unknown loss"):
            net.loss = wrong
    assert net.loss.name == "softmax_cross_entropy"


def test_the_input_scale_of_a_network_can_be_set():
    net = nn.Network([nn.Dense(2)], 3, backend="numpy")
    expected = net.predict(np.full((1, 3), 0.5))
    net.input_scale = 0.5
    np.testing.assert_allclose(net.predict(np.ones((1, 3))), expected, rtol=1e-6)
    with pytest.raises(InvalidInputError, match="input_scale must be a finite number"):
        net.input_scale = "large"


def test_layers_of_a_network_say_what_to_do_instead():
    net = nn.Network([nn.Dense(2)], 3, backend="numpy")
    for change in (
        lambda: net.layers.append(nn.Dense(3)),
        lambda: net.layers.insert(0, nn.Dense(3)),
        lambda: net.layers.pop(),
        lambda: net.layers.__setitem__(0, nn.Dense(3)),
    ):
        with pytest.raises(InvalidAttributeError, match=r"make a new one: Network\(\[\*network.layers, layer\], ...\)"):
            change()
    assert len(nn.Network([*net.layers, nn.Dense(4)], 3, backend="numpy").layers) == 2


def test_classes_of_users_set_what_they_want():
    class Own(nn.EarlyStopping):
        def on_train_begin(self, network, epochs):
            self.whatever = epochs

    class Layer(nn.Dense):
        pass

    own, layer = Own(), Layer(3)
    own.whatever = layer.other = 3
    assert repr(own).startswith("Own(monitor='val_loss'")


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.SGD(momentum=0.9, nesterov="no"),
        lambda: nn.SGD(momentum=1.5),
        lambda: nn.SGD(float("nan")),
        lambda: nn.SGD(None),
        lambda: nn.SGD("0.1"),
        lambda: nn.SGD(True),
        lambda: nn.Adam(-1e-3),
        lambda: nn.Adam(beta1=1),
        lambda: nn.Adam(beta2=float("inf")),
        lambda: nn.Adam(epsilon=0),
        lambda: nn.RMSprop(weight_decay=-1),
        lambda: nn.Dropout(1.0),
        lambda: nn.Dropout(-0.1),
        lambda: nn.Dropout(None),
        lambda: nn.Dense(3, l1=-1),
        lambda: nn.Dense(3, use_bias="yes"),
        lambda: nn.Dense(3, "leaky_relu", alpha=-1),
        lambda: nn.Dense(3, "leaky_relu", alpha=float("nan")),
        lambda: nn.Dense(0),
        lambda: nn.Dense(3.5),
        lambda: nn.Dense(3, trainable=1),
        lambda: nn.EarlyStopping(restore_best="no"),
        lambda: nn.EarlyStopping(patience=0),
        lambda: nn.EarlyStopping(minimum_change=-1),
        lambda: nn.ModelCheckpoint("a", best_only=2),
        lambda: nn.Checkpoint("a", keep=0),
        lambda: nn.Warmup(0, 0.1),
        lambda: nn.Warmup(1, "0.1"),
        lambda: nn.Warmup(1, 0.1, start=float("nan")),
        lambda: nn.StepDecay(0.1, every=0),
        lambda: nn.CosineDecay(0.1, epochs=None),
        lambda: nn.ReduceOnPlateau(0.1, factor=1),
    ],
)
def test_a_configuration_is_checked_when_it_is_made(make):
    with pytest.raises(InvalidInputError, match=r"received|needs"):
        make()


@pytest.mark.parametrize("name", ["shuffle", "shard", "stream", "verbose"])
@pytest.mark.parametrize("value", ["no", 3, -1, 0.5, []])
def test_flags_of_fit_are_true_or_false(name, value):
    net = nn.Network([nn.Dense(2)], 3, backend="numpy")
    with pytest.raises(InvalidInputError, match=f"{name} must be True or False, received"):
        net.fit(np.ones((4, 3)), [0, 1, 0, 1], loss="softmax_cross_entropy", **{name: value})
    assert net.loss is None


@pytest.mark.parametrize(("verbose", "printed"), [(0, False), (1, True), (2, True), ("auto", False), (None, False)])
def test_verbose_may_be_what_keras_takes(verbose, printed, capsys):
    net = nn.Network([nn.Dense(2)], 3, backend="numpy")
    net.fit(np.ones((4, 3)), [0, 1, 0, 1], epochs=1, loss="softmax_cross_entropy", shuffle=1, verbose=verbose)
    assert bool(capsys.readouterr().out) is printed
