"""Bad input ends in one clear error before anything is changed: what is wrong, what was received, and what to do."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import BackendUnavailableError, InvalidInputError, NNBackendError, UnknownNameError
from tests.helpers import classifier, images, same_weights

X, Y = images(rows=20)
LOSS = "softmax_cross_entropy"


def fit(net, x=X, y=Y, **options):
    return net.fit(x, y, **{"epochs": 1, "batch_size": 10, "loss": LOSS, **options})


@pytest.mark.parametrize(
    ("make", "nearest"),
    [
        (lambda: nn.Network([nn.Dense(2)], 3, backend="nunba"), "'numba'"),
        (lambda: nn.Network([nn.Dense(2)], 3, backend="opencl"), "auto, cupy, numba, numpy, torch"),
        (lambda: nn.Dense(2, activation="rellu"), "'relu'"),
        (lambda: nn.Activation("sigmoidd"), "'sigmoid'"),
        (lambda: nn.Dense(2, weight_initializer="he_norm"), "'he_normal'"),
        (lambda: nn.Network(["Dens"], 3, backend="numpy"), "'Dense'"),
        (lambda: fit(classifier(), loss="softmax_crossentropy"), "'softmax_cross_entropy'"),
        (lambda: fit(classifier(), optimizer="adm"), "'adam'"),
        (lambda: nn.datasets.load("mnits"), "'mnist'"),
        (lambda: nn.Network([nn.Dense(2)], 3, backend="numpy", dtype="float31"), "'float32'"),
        (lambda: nn.Network([nn.Dense(2)], 3, backend="numpy", dtype="float16"), "'float32'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_ones(make, nearest):
    with pytest.raises(UnknownNameError) as error:
        make()
    assert isinstance(error.value, ValueError)
    assert nearest in str(error.value)


def test_a_backend_that_cannot_run_here_says_why_and_what_to_install():
    info = next(info for info in nn.available_backends() if info.name == "cupy")
    if info.usable:
        pytest.skip("CuPy can run here")
    with pytest.raises(BackendUnavailableError) as error:
        nn.Network([nn.Dense(2)], 3, backend="cupy")
    assert isinstance(error.value, RuntimeError)
    assert info.reason in str(error.value)
    assert info.remedy in str(error.value)
    assert info.reason
    assert info.remedy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": X[:, :5]}, r"x must have 12 features a row, received shape \(20, 5\)"),
        ({"x": X[0]}, r"received shape \(12,\); for a single sample give x\[None\]"),
        ({"x": X[:0], "y": Y[:0]}, r"x is empty: received shape \(0, 12\)"),
        (
            {"x": np.where(np.arange(12) == 3, np.nan, X)},
            "x holds 20 NaN or infinite values, the first in row 0, feature 3",
        ),
        (
            {"x": np.where(np.arange(12) == 3, {}, X)},
            r"x must hold numbers, received dtype object with dict objects: \{\}",
        ),
        ({"x": X.astype(str)}, "x must hold numbers, received dtype <U"),
        ({"x": X * 1e300}, "beyond the range of float32"),
        ({"x": [[1, 2], [3]]}, "x is a builtins.list that NumPy cannot read"),
        ({"y": Y[:7]}, "x has 20 rows but y has 7"),
        (
            {"y": np.where(np.arange(20) == 2, 4, Y)},
            r"labels must be in \[0, 4\).*received 0 to 4; end the network with Dense\(5\)$",
        ),
        ({"y": Y - 1}, r"labels must be in \[0, 4\).*received -1 to 2; number the classes from 0: names, y = "),
        ({"y": Y + 6}, r"received 6 to \d; number the classes from 0: names, y = "),
        ({"y": Y + 0.5}, r"labels must be integers in .* received dtype float64 with values such as \d.5"),
        ({"y": [str(label) for label in Y]}, "y must hold numbers"),
        ({"y": np.eye(3)[Y % 3]}, r"the network has 4 outputs but y has shape \(20, 3\)"),
        ({"y": np.full((20, 4), 0.5)}, "must sum to 1, row 0 sums to 2"),
        ({"y": np.full((20, 4), np.nan)}, "y holds NaN or infinity, first in row 0"),
        ({"y": Y.reshape(20, 1, 1)}, r"received shape \(20, 1, 1\)"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, received 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1, received 0"),
        ({"epochs": True}, "epochs must be a whole number"),
        ({"loss": None}, "training needs a loss the first time"),
        ({"optimizer": nn.SGD}, "optimizer must be an object, received the class SGD"),
        ({"optimizer": 0.1}, r"received the learning rate 0\.1; .* optimizer=Adam\(rate\)$"),
        ({"optimizer": nn.OneCycle(0.1, 2)}, r"received the learning rate OneCycle\(.* optimizer=Adam\(rate\)$"),
        ({"callbacks": [print]}, "callbacks must be nnbackend Callback objects"),
        ({"validation_data": X}, r"validation_data must be \(x, y\), \(x, y, sample_weight\)"),
        ({"validation_data": (X[:, :4], Y)}, "validation_data: x must have 12 features"),
        ({"validation_data": (X, Y[:3])}, "validation_data: x has 20 rows but y has 3"),
        ({"validation_data": (X, Y, np.ones(3))}, r"validation_data: sample_weight must have shape \(20,\)"),
        ({"validation_data": (X, Y, np.zeros(20))}, "validation_data: all weights are zero"),
        ({"validation_data": (X, Y * 0), "class_weight": {0: 0}}, "validation_data: all weights are zero"),
        ({"validation_data": (X, Y, None, None)}, r"validation_data must be \(x, y\)"),
        ({"sample_weight": np.ones(3)}, r"sample_weight must have shape \(20,\)"),
        ({"sample_weight": -np.ones(20)}, "sample_weight must be finite and not negative, received -1 for row 0"),
        ({"sample_weight": np.full(20, np.inf)}, "sample_weight must be finite"),
        ({"sample_weight": np.ma.masked_less(np.arange(20), 3)}, "sample_weight has 3 masked values; leave those"),
        ({"sample_weight": np.zeros(20)}, "all weights are zero"),
        ({"y": 5}, "y must hold one target for each of 20 rows"),
        ({"class_weight": {"a": 1}}, "a class in class_weight must be a whole number"),
        ({"class_weight": {1.5: 1}}, "a class in class_weight must be a whole number"),
        ({"class_weight": {1: "z"}}, "the weight of class 1 must be a finite number"),
        ({"sample_weight": ["a"] * 20}, "sample_weight must hold numbers"),
        ({"sample_weight": np.ones(20, complex)}, "sample_weight must hold numbers"),
        ({"callbacks": nn.EarlyStopping()}, "callbacks must be a list"),
        ({"class_weight": {7: 1.0}}, "class_weight names class 7"),
        ({"class_weight": [1.0, 2.0]}, "one weight for each of 4 classes"),
        (
            {"class_weight": [1.0, 2.0, -1.0, 1.0]},
            "class_weight must be finite and not negative, received -1 for class 2",
        ),
        ({"class_weight": {0: np.nan}}, "the weight of class 0 must be a finite number"),
        ({"class_weight": np.zeros(4)}, "all of class_weight is zero; at least one class must count"),
        ({"class_weight": dict.fromkeys(range(3), 0), "y": Y % 3}, "all weights are zero"),
        ({"class_weight": np.ma.masked_equal([1, 2, 3, 4], 2)}, "class_weight has 1 masked values"),
        ({"class_weight": "heavy"}, "class_weight must be 'balanced', a dict"),
    ],
)
def test_bad_training_input_changes_nothing(options, message):
    net = classifier()
    untouched = classifier()
    with pytest.raises(InvalidInputError, match=message) as error:
        fit(net, **options)
    assert isinstance(error.value, ValueError)
    assert same_weights(net, untouched)
    assert net.loss is None
    assert net.optimizer_state is None


def test_class_weights_need_classes():
    net = nn.Network([nn.Dense(1)], 12, backend="numpy")
    with pytest.raises(InvalidInputError, match="class_weight needs integer or one-hot labels"):
        fit(net, y=Y.astype(float), loss="mean_squared_error", class_weight={0: 2.0})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Network([], 3), "at least one layer"),
        (lambda: nn.Network(nn.Dense(3), 3), "must be a list of layers"),
        (lambda: nn.Network([nn.Dense], 3), r"layers\[0\] is the class Dense; make a layer of it: Dense\("),
        (lambda: nn.Network([3], 3), r"layers\[0\] must be a Layer such as Dense\(10\)"),
        (lambda: nn.Network([nn.Dense(2)] * 2, 3), r"layers\[1\] is in the list twice"),
        (lambda: nn.Network([nn.Dense(2)], (28, 28)), r"layers\[0\]: Dense takes flat samples.*put Flatten\(\)"),
        (lambda: nn.Network([nn.MaxAbsNorm()], (28, 28)), r"MaxAbsNorm takes flat samples.*put Flatten\(\)"),
        (lambda: nn.Network([nn.Dense(2)], 0), "input_shape must be a whole number of at least 1, received 0"),
        (lambda: nn.Network([nn.Dense(2)], ()), "input_shape must have 1 to 32 dimensions"),
        (lambda: nn.Network([nn.Dense(2)], None), "input_shape must be a number or a tuple"),
        (lambda: nn.Network([nn.Dense(2)], 3, seed=-1), "seed must be a whole number"),
        (lambda: nn.Network([nn.Dense(2)], 3, seed=1.5), "seed must be a whole number"),
        (lambda: nn.Network([nn.Dense(2)], 3, seed=2**63), "seed must be a whole number"),
        (lambda: nn.Network([nn.Dense(2)], 3, backend=3), "backend must be a name"),
        (lambda: nn.Network([nn.Dense(2)], 3, input_scale=np.nan), "input_scale must be a finite number"),
        (lambda: nn.Dense(0), "units must be a whole number of at least 1, received 0"),
        (lambda: nn.Dense(2.5), "units must be a whole number"),
        (lambda: nn.Dense(2, l2=-1), "l2 must be at least 0, received -1"),
        (lambda: nn.Dense(2, alpha=0.2), "activation 'identity' has no parameter"),
        (lambda: nn.Dense(2, activation="elu", alpha=-0.2), "alpha must be at least 0"),
        (lambda: nn.Dense(2, weight_initializer=[[np.inf]]), "initial values holds NaN or infinity"),
        (lambda: nn.Network([nn.Dense(2, weight_initializer=np.ones((2, 2)))], 3), r"have shape \(2, 2\)"),
        (lambda: nn.Dropout(1.0), r"dropout rate must be in \[0, 1\), received 1.0"),
        (lambda: nn.Dropout("half"), "dropout rate must be a finite number"),
        (lambda: nn.SGD(-0.1), "learning rate must be at least 0, received -0.1"),
        (lambda: nn.SGD(0.1, momentum=1.0), r"momentum must be in \[0, 1\)"),
        (lambda: nn.SGD(0.1, nesterov=True), "needs momentum above 0"),
        (lambda: nn.ReduceOnPlateau(0.1, patience=0), "patience must be a whole number of at least 1"),
        (lambda: nn.Adam(epsilon=0), "epsilon must be above 0"),
        (lambda: nn.Network([nn.Dense(2)], 3, dtype=None), "unknown dtype"),
        (lambda: nn.Network([nn.Dense(2, weight_initializer=nn.Normal(1e300, 0))], 3), "beyond the range of float32"),
        (lambda: nn.Normal("a"), "mean must be a finite number"),
        (lambda: nn.Dense(2, use_bias="no"), "use_bias must be True or False"),
        (lambda: nn.Parameter("scale", (), nn.Zeros()), "must have at least one axis"),
        (lambda: nn.Network([type("Dense", (nn.Dropout,), {})(0.1)], 3), "called Dense like a built-in layer"),
        (lambda: nn.Adam(beta1=1.5), "beta1 must be in"),
        (lambda: nn.Adam(float("nan")), "learning rate must be a finite number"),
        (lambda: nn.StepDecay(0.1, factor=0), "factor must be above 0"),
        (lambda: nn.ReduceOnPlateau(0.1, factor=1.0), "factor must be above 0 and below 1"),
        (lambda: nn.EarlyStopping(patience=0), "patience must be a whole number of at least 1"),
        (lambda: nn.Normal(0, -1), "standard deviation must be at least 0"),
        (lambda: nn.Uniform(1, 0), "low <= high"),
    ],
)
def test_bad_hyperparameters(make, message):
    with pytest.raises(InvalidInputError, match=message):
        make()


def test_softmax_is_not_applied_twice():
    net = nn.Network([nn.Dense(4, activation="softmax")], 12, backend="numpy")
    with pytest.raises(InvalidInputError, match="applies softmax itself"):
        fit(net)


def test_softmax_is_noticed_behind_layers_that_pass_it_on():
    net = nn.Network([nn.Dense(4, activation="softmax"), nn.Flatten(), nn.Dropout(0.1)], 12, backend="numpy")
    with pytest.raises(InvalidInputError, match="applies softmax itself"):
        fit(net)


def test_normalised_softmax_is_not_softmax():
    fit(nn.Network([nn.Dense(4, activation="softmax"), nn.MaxAbsNorm()], 12, backend="numpy"))


def test_softmax_over_one_output_is_refused():
    with pytest.raises(InvalidInputError, match="softmax over a single output"):
        fit(nn.Network([nn.Dense(1)], 12, backend="numpy"), y=np.zeros(20, int))


def test_targets_beyond_float32_are_refused():
    with pytest.raises(InvalidInputError, match="y holds values beyond the range of float32"):
        fit(nn.Network([nn.Dense(1)], 12, backend="numpy"), y=np.full(20, 1e300), loss="mean_squared_error")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (lambda weights: {**weights, "layers.0.wieght": 1}, "unknown parameter 'layers.0.wieght': did you mean"),
        (lambda weights: {"layers.0.bias": weights["layers.0.bias"]}, "weights are missing: layers.0.weight, layers.1"),
        (
            lambda weights: {**weights, "layers.0.weight": np.ones((2, 2))},
            r"must have shape \(12, 9\), received \(2, 2\)",
        ),
        (lambda weights: {**weights, "layers.1.bias": np.full(4, np.nan)}, "layers.1.bias holds NaN"),
        (lambda weights: {**weights, "layers.1.bias": np.full(4, 1e300)}, "beyond the range of float32"),
        (lambda weights: list(weights.values()), "weights must be a dict of arrays by name"),
    ],
)
def test_bad_weights_change_nothing(weights, message):
    net = classifier()
    with pytest.raises(InvalidInputError, match=message):
        net.set_weights(weights(net.get_weights()))
    assert same_weights(net, classifier())


def test_evaluate_and_predict_check_too():
    net = classifier()
    with pytest.raises(InvalidInputError, match="say which loss"):
        net.evaluate(X, Y)
    with pytest.raises(InvalidInputError, match="x is empty"):
        net.predict(X[:0])
    with pytest.raises(InvalidInputError, match="batch_size must be"):
        net.predict(X, batch_size=0)


def test_every_error_is_of_the_package_and_of_a_built_in_kind():
    from nnbackend import errors

    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, NNBackendError)
        if kind is not NNBackendError:
            assert issubclass(kind, ValueError | RuntimeError | ArithmeticError | MemoryError)


def test_a_class_in_place_of_an_object():
    net = classifier()
    for train in (
        lambda: net.fit(X, Y, loss="softmax_cross_entropy", optimizer=nn.Adam),
        lambda: net.train_on_batch(X, Y, loss="softmax_cross_entropy", optimizer=nn.Adam),
    ):
        with pytest.raises(
            InvalidInputError, match=r"received the class Adam; .* optimizer=Adam\(\), .* Adam\(0\.001\)$"
        ):
            train()
    assert net.loss is None
    with pytest.raises(InvalidInputError, match=r"layers\[1\] is the class Flatten; make a layer of it: Flatten\("):
        nn.Network([nn.Dense(3), nn.Flatten], 4)


@pytest.mark.parametrize("shape", [-1, (-1,), (28, -1), [-1, 3]])
def test_reshape_without_a_size(shape):
    with pytest.raises(InvalidInputError, match=r"^Reshape takes a shape without -1, received .*-1.*; .* Flatten\(\)"):
        nn.Reshape(shape)
    with pytest.raises(InvalidInputError, match=r"^target_shape must be a whole number of at least 1, received 0"):
        nn.Reshape((0, 3))


@pytest.mark.parametrize(
    ("outputs", "y"), [(1, [0.5, 2.0, 3.0]), (3, [[0.1, 0.2, 0.3]] * 3), (3, [[1.0, 2.0, 0.0]] * 3)]
)
def test_a_regression_predicts_no_classes(outputs, y, tmp_path):
    net, x = nn.Network([nn.Dense(outputs)], 2, backend="numpy"), np.eye(3, 2)
    net.predict_classes(x)  # of a network without training, which may be meant for classes
    net.fit(x, y, epochs=1, loss="mean_squared_error", verbose=False)
    net.save(tmp_path / "net.npz")
    for each in (net, nn.Network.load(tmp_path / "net.npz", backend="numpy")):
        with pytest.raises(
            InvalidInputError, match=r"trained on numbers \(.* targets?\), so it predicts no classes; pred"
        ):
            each.predict_classes(x)


@pytest.mark.parametrize(("outputs", "y"), [(1, [0.0, 1.0, 1.0]), (3, np.eye(3)), (3, [0, 2, 1]), (3, np.tri(3))])
def test_the_squared_error_of_classes_predicts_classes(outputs, y):
    net, x = nn.Network([nn.Dense(outputs)], 2, backend="numpy"), np.eye(3, 2)
    net.fit(x, y, epochs=1, loss="mean_squared_error", verbose=False)
    assert net.predict_classes(x).shape == (3,)
    assert net.input_description.endswith(f"{max(outputs, 2)} classes")


@pytest.mark.parametrize(
    ("dtype", "size", "hint"), [("float32", 1e25, "or use dtype='float64'$"), ("float64", 1e200, "x$")]
)
def test_overflow_within_a_network_is_noticed(backend, dtype, size, hint):
    net = nn.Network([nn.Dense(3), nn.Dense(2)], 2, backend=backend, dtype=dtype)
    net.set_weights({name: np.full(array.shape, size) for name, array in net.get_weights().items()})
    x = np.ones((5, 2))
    with pytest.warns(
        UserWarning, match=f"^predictions of 5 of 5 rows are NaN or infinite: .* overflow {dtype}.*{hint}"
    ):
        assert not np.isfinite(net.predict(x)).any()
    with pytest.warns(UserWarning, match=f"^the loss is (nan|inf): .* overflow {dtype}.*{hint}"):
        net.evaluate(x, np.zeros(5, int), loss="softmax_cross_entropy")
    net.set_weights({name: np.full(array.shape, 0.1) for name, array in net.get_weights().items()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.predict(x)
        net.evaluate(x, np.zeros(5, int), loss="softmax_cross_entropy")
