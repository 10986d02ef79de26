"""Recipes and presets: what they build, what they reject, and that they learn."""

from __future__ import annotations

import json

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError, UnknownNameError
from nnbackend.presets import DEFAULT, LISTS, PRESETS, SCHEDULES, Recipe, get_preset
from nnbackend.schedules import Constant, CosineDecay, ExponentialDecay, OneCycle, ReduceOnPlateau, StepDecay, Warmup

DENSE = {name: recipe for name, recipe in PRESETS.items() if not recipe.filters}


@pytest.mark.parametrize("name", DENSE)
def test_a_preset_is_the_net_that_its_name_says(name: str) -> None:
    recipe = get_preset(name)
    network = nn.Network(recipe.layers(10), 784, backend="numpy")
    shapes = [array.shape for key, array in network.get_weights().items() if key.endswith("weight")]
    assert "-".join(str(size) for size in (784, *(shape[1] for shape in shapes))) == name


def test_lenet() -> None:
    network = nn.Network(get_preset("lenet").layers(10), 784, backend="numpy")
    assert [type(layer).__name__ for layer in network.layers] == [
        "Reshape", "Conv2D", "MaxPool2D", "Conv2D", "MaxPool2D", "Flatten", "Dense", "Dense",
    ]  # fmt: skip
    shapes = [array.shape for key, array in network.get_weights().items() if key.endswith("weight")]
    assert shapes == [(5, 5, 1, 20), (5, 5, 20, 40), (640, 100), (100, 10)]


def test_kernels_and_strides() -> None:
    """A stride above 1 takes the place of a pool."""
    recipe = Recipe(filters=(4, 6, 8), kernels=(5, 3, 2), strides=(2, 1, 3), hidden=())
    network = nn.Network(recipe.layers(10), 784, backend="numpy")
    kinds = ["Reshape", "Conv2D", "Conv2D", "MaxPool2D", "Conv2D", "Flatten", "Dense"]
    assert [type(layer).__name__ for layer in network.layers] == kinds
    shapes = [array.shape for key, array in network.get_weights().items() if key.endswith("weight")]
    assert shapes == [(5, 5, 1, 4), (3, 3, 4, 6), (2, 2, 6, 8), (32, 10)]
    assert recipe.changed(filters=(5, 5)) == Recipe(filters=(5, 5), hidden=())
    assert recipe.changed(filters=(5, 5, 5)).strides == (2, 1, 3)


@pytest.mark.slow
def test_lenet_learns_real_digits() -> None:
    data, recipe = nn.datasets.load("mnist-5k"), get_preset("lenet").changed(filters=(6, 10))
    network = nn.Network(recipe.layers(10, data.input_shape), data.input_shape, backend="numpy", seed=0)
    x, y = data.x_train[:1_500], data.y_train[:1_500]
    network.fit(x, y, epochs=2, batch_size=50, loss=recipe.loss, optimizer=recipe.make_optimizer())
    assert network.evaluate(data.x_test, data.y_test)["accuracy"] > 0.85


def test_convolutions_need_square_images_of_a_sufficient_size() -> None:
    recipe = get_preset("lenet")
    assert [layer.config() for layer in recipe.layers(10, (28, 28, 1))] == [each.config() for each in recipe.layers(10)]
    with pytest.raises(InvalidInputError, match="images of 2 x 2 are too small"):
        recipe.layers(3, 4)
    with pytest.raises(InvalidInputError, match=r"needs square images.* samples of shape \(12,\); set filters to none"):
        recipe.layers(3, 12)
    with pytest.raises(InvalidInputError, match="images of 8 x 8 are too small for 2 convolutions of 5 x 5"):
        recipe.layers(10, 64)
    recipe.changed(filters=(20,)).layers(10, 64)
    with pytest.raises(InvalidInputError, match="a convolution's number of filters must be"):
        recipe.changed(filters=(0,)).check()


def test_the_presets_are_those_that_the_benchmarks_compare() -> None:
    assert [(r.activation, r.batch_size, r.optimizer, r.loss) for r in DENSE.values()] == [
        ("sigmoid", 100, "sgd", "softmax_cross_entropy"),
        ("relu", 256, "sgd", "softmax_cross_entropy"),
        ("relu", 100, "adam", "softmax_cross_entropy"),
    ]


def test_an_unknown_preset_gets_the_nearest_names() -> None:
    with pytest.raises(UnknownNameError, match="unknown preset '784-40': did you mean '784-40-10'"):
        get_preset("784-40")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [DEFAULT, *DENSE.values()], ids=["default", *DENSE])
def test_a_recipe_learns_real_digits(recipe: Recipe) -> None:
    data = nn.datasets.load("digits")
    network = nn.Network(recipe.layers(10), data.input_shape, backend="numpy", seed=0)
    history = network.fit(
        data.x_train,
        data.y_train,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        loss=recipe.loss,
        optimizer=recipe.make_optimizer(),
        validation_data=(data.x_test, data.y_test),
    )
    assert history["val_accuracy"][-1] > 0.9


def test_hidden_layers_get_activation_dropout_and_penalties() -> None:
    layers = Recipe(hidden=(30, 20), activation="tanh", dropout=0.25, l1=1e-3, l2=1e-2).layers(10)
    assert [type(layer).__name__ for layer in layers] == ["Dense", "Dropout", "Dense", "Dropout", "Dense"]
    dense = [layer for layer in layers if isinstance(layer, nn.Dense)]
    assert [(layer.units, layer.activation) for layer in dense] == [(30, "tanh"), (20, "tanh"), (10, "identity")]
    assert all((layer.l1, layer.l2) == (1e-3, 1e-2) for layer in dense)


def test_layers_are_fresh_every_time() -> None:
    assert not set(map(id, DEFAULT.layers(10))) & set(map(id, DEFAULT.layers(10)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", Constant(0.1)),
        ("step", StepDecay(0.1, 0.3, 4)),
        ("exponential", ExponentialDecay(0.1, 0.8)),
        ("cosine", CosineDecay(0.1, 12)),
        ("one-cycle", OneCycle(0.1, 12, cycle_momentum=False)),
        ("plateau", ReduceOnPlateau(0.1, 0.5, 2)),
    ],
)
def test_every_schedule_by_its_name(name: str, expected: object) -> None:
    assert name in SCHEDULES
    recipe = Recipe(optimizer="sgd", learning_rate=0.1, schedule=name, epochs=12)
    assert recipe.make_optimizer().schedule == expected


def test_a_warm_up_leaves_the_rest_of_the_epochs_to_the_cosine() -> None:
    schedule = Recipe(learning_rate=0.1, schedule="cosine", epochs=10, warmup=2).make_schedule()
    assert isinstance(schedule, Warmup)
    assert schedule.rate(2) == pytest.approx(0.1)
    assert schedule.rate(10) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (Recipe(optimizer="adam", cycle_momentum=False), OneCycle(2e-3, 10, cycle_momentum=False)),
        (Recipe(optimizer="adamw", warmup=2), OneCycle(2e-3, 10, 0.2)),
        (Recipe(optimizer="sgd", momentum=0.9), OneCycle(0.2, 10)),
        # These have no momentum that a cycle could set.
        (Recipe(optimizer="sgd"), OneCycle(0.2, 10, cycle_momentum=False)),
        (Recipe(optimizer="rmsprop"), OneCycle(2e-3, 10, cycle_momentum=False)),
    ],
)
def test_one_cycle_sets_the_momentum_that_there_is(recipe: Recipe, expected: OneCycle) -> None:
    assert recipe.changed(schedule="one-cycle").make_optimizer().schedule == expected


def test_decay_reaches_the_schedule() -> None:
    recipe = Recipe(learning_rate=1.0, epochs=10, decay=0.25, decay_every=3)
    assert recipe.changed(schedule="step", decay=0.25, decay_every=3).make_schedule() == StepDecay(1.0, 0.25, 3)
    plateau = Recipe(learning_rate=1.0, schedule="plateau", decay=0.25, decay_every=3)
    assert plateau.make_schedule() == ReduceOnPlateau(1.0, 0.25, 3)


def test_another_optimizer_brings_its_own_defaults() -> None:
    base = Recipe(optimizer="sgd", learning_rate=2.0, momentum=0.9, nesterov=True, weight_decay=0.1)
    changed = base.changed(optimizer="adam")
    assert changed.first_rate == nn.Adam.default_learning_rate
    assert (changed.momentum, changed.nesterov, changed.weight_decay) == (0.0, False, None)
    assert base.changed(optimizer="adam", learning_rate=0.5).first_rate == 0.5
    assert base.changed(optimizer="sgd").first_rate == 2.0


def test_another_schedule_forgets_the_decay() -> None:
    changed = Recipe(schedule="step", decay=0.5, decay_every=2).changed(schedule="cosine")
    assert (changed.decay, changed.decay_every) == (None, None)


def test_optimizer_options_arrive() -> None:
    sgd = Recipe(optimizer="sgd", momentum=0.9, nesterov=True, weight_decay=1e-4).make_optimizer()
    assert isinstance(sgd, nn.SGD)
    assert (sgd.momentum, sgd.nesterov, sgd.weight_decay) == (0.9, True, 1e-4)
    assert Recipe(optimizer="adamw").make_optimizer().weight_decay == 0.01
    adam = Recipe(optimizer="adam", beta1=0.7).make_optimizer()
    assert isinstance(adam, nn.Adam)
    assert (adam.beta1, adam.beta2) == (0.7, 0.999)
    assert Recipe(optimizer="adam", beta1=0.7).changed(optimizer="sgd").beta1 is None


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"optimizer": "adm"}, "unknown optimizer 'adm'"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'"),
        ({"activation": "rel", "hidden": ()}, "unknown activation 'rel'"),
        ({"loss": "mze"}, "unknown loss 'mze'"),
        ({"hidden": (200, 0)}, "hidden layer's size"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"l2": -1.0}, "l2 must be at least 0"),
        ({"learning_rate": float("nan")}, "learning rate must be a finite number"),
        ({"momentum": 0.9}, "belong to the optimizer 'sgd'"),
        ({"optimizer": "sgd", "nesterov": True}, "nesterov needs a momentum"),
        ({"epochs": 0}, "epochs must be"),
        ({"epochs": 5, "warmup": 5.0}, "warmup must be shorter"),
        ({"batch_size": 0}, "batch size must be"),
        ({"patience": 0}, "patience must be"),
        ({"augment": "roate=2"}, "unknown augmentation 'roate'"),
        ({"augment": 2}, "augment must be text"),
        ({"augment": "shift=-2"}, "pixels must be at least 0"),
        ({"decay": 0.5}, "'constant' has no decay"),
        ({"schedule": "one-cycle", "decay": 0.5}, "'one-cycle' has no decay"),
        ({"schedule": "one-cycle", "warmup": 10.0}, "warmup must be shorter"),
        ({"optimizer": "sgd", "beta1": 0.5}, "beta1 and beta2 belong to 'adam' and 'adamw', received 'sgd'"),
        ({"beta2": 1.0}, r"beta2 must be in \[0, 1\)"),
        ({"kernels": (3,)}, "kernels must be as many as filters, 0, received 1"),
        ({"filters": (4, 4), "strides": (2,)}, "strides must be as many as filters, 2, received 1"),
        ({"filters": (4,), "kernels": (0,)}, "each of the kernels must be"),
        ({"filters": (4,), "kernels": (29,), "strides": (2,)}, "images of 28 x 28 are too small for 1 conv.* 29 x 29"),
        ({"schedule": "exponential", "decay_every": 2}, "give only decay"),
        ({"schedule": "step", "decay_every": 0}, "decay every must be"),
    ],
)
def test_invalid_settings_are_rejected_without_data(attributes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Recipe(**attributes).check()  # type: ignore[arg-type]


def test_a_recipe_survives_json() -> None:
    for recipe in (DEFAULT, get_preset("lenet"), get_preset("fast99"), get_preset("fast995")):
        description = json.loads(json.dumps(recipe.to_dict()))
        lists = {name: tuple(description[name]) for name in LISTS}
        assert Recipe(**{**description, **lists}) == recipe
    assert Recipe(optimizer="sgd").to_dict()["learning_rate"] == nn.SGD.default_learning_rate


def test_a_recipe_with_augmentation() -> None:
    recipe = Recipe(augment="shift=2,rotate=10", hidden=(20,))
    assert recipe.augmentations() == (nn.augment.Shift(2), nn.augment.Rotate(10))
    x, y = np.random.default_rng(0).random((6, 64)).astype(np.float32), np.arange(6) % 3
    for shape in (64, (8, 8), (8, 8, 1)):
        network = nn.Network(recipe.layers(3, shape), shape, backend="numpy")
        rows = x.reshape(-1, *network.input_shape)
        network.fit(rows, y, epochs=1, loss=recipe.loss, augment=recipe.augmentations())
    filters = Recipe(augment="flip", filters=(4,), hidden=(5,))
    network = nn.Network(filters.layers(3, 64), 64, backend="numpy")
    network.fit(x, y, epochs=1, loss=recipe.loss, augment=filters.augmentations())
    with pytest.raises(InvalidInputError, match=r"needs images, or rows of the pixels .* samples of shape \(12,\)"):
        recipe.layers(3, 12)


def test_the_rates_of_the_default_recipe_fall_to_zero() -> None:
    rates = np.concatenate([DEFAULT.make_schedule().epoch_rates(epoch, 5) for epoch in range(DEFAULT.epochs)])
    assert rates[0] == DEFAULT.learning_rate
    assert (np.diff(rates) < 0).all()
    assert rates[-1] < rates[0] / 100


def test_a_rate_that_falls_to_zero_starts_higher():
    assert Recipe(optimizer="adam", schedule="constant").first_rate == nn.Adam.default_learning_rate
    assert Recipe(optimizer="adam", schedule="cosine").first_rate == 2 * nn.Adam.default_learning_rate
    assert Recipe(optimizer="adam", schedule="cosine", learning_rate=0.3).first_rate == 0.3
