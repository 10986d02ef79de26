"""What `fit_many` rejects, before anything is changed."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError, UnknownNameError
from tests.helpers import classifier, images, same_weights

X, Y = images(rows=60)
FIT = {"epochs": 1, "loss": "softmax_cross_entropy"}


def networks(count=3):
    return [classifier(seed=seed) for seed in range(count)]


def assert_refused(chosen, message, x=X, y=Y, error=InvalidInputError, **options):
    """It raises this error, and all networks are as before and not in training."""
    before = [network.get_weights() for network in chosen if isinstance(network, nn.Network)]
    with pytest.raises(error, match=message):
        nn.fit_many(chosen, x, y, **{**FIT, **options})
    for network, weights in zip((each for each in chosen if isinstance(each, nn.Network)), before, strict=True):
        assert all((network.get_weights()[name] == weight).all() for name, weight in weights.items())
        assert network.loss is None
        assert network.steps_trained == 0
        assert network.optimizer is None
        with network.in_training():
            pass


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": [nn.SGD(), nn.SGD()]},
        {"epochs": [1, 2]},
        {"batch_size": nn.PerNetwork([8, 8, 8, 8])},
        {"loss": ["softmax_cross_entropy"]},
        {"rows": [np.arange(9), np.arange(9)]},
        {"validation_rows": [np.arange(9)]},
        {"callbacks": nn.PerNetwork([[], []])},
        {"class_weight": nn.PerNetwork(["balanced"])},
        {"sample_weight": nn.PerNetwork([np.ones(60)] * 2)},
        {"shuffle": [True]},
    ],
    ids=lambda options: next(iter(options)),
)
def test_lists_of_the_wrong_length(options):
    name = next(iter(options))
    assert_refused(networks(), rf"{name} has \d values for 3 networks; give one for each", **options)


def test_a_list_of_metrics_for_each_network():
    assert_refused(networks(), r"one list for all networks, or nnbackend.PerNetwork", metrics=[["f1"]] * 3)
    assert_refused(networks(), r"class_weight .* give nnbackend.PerNetwork", class_weight=["balanced", None, None])


def test_networks():
    assert_refused([classifier(), "net"], r"networks\[1\] is not a Network, received 'net'")
    for chosen, message in (
        ([], "there are no networks"),
        (classifier(), "networks must be a list of networks, received"),
        (5, "networks must be a list of networks, received 5"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            nn.fit_many(chosen, X, Y, **FIT)


def test_one_network_given_twice():
    one, *others = networks()
    with pytest.raises(InvalidInputError, match=r"networks\[0\] and networks\[3\] are the same network.*deepcopy"):
        nn.fit_many([one, *others, one], X, Y, **FIT)


def test_networks_on_different_backends():
    chosen = [classifier(), classifier("numba")]
    message = r"networks\[0\] is on .*'numpy'.*, but networks\[1\] on .*'numba'.*network.to\(backend\)"
    assert_refused(chosen, message)


def test_one_callback_with_state_for_several_networks():
    message = r"callback EarlyStopping has a state, which networks\[0\] and networks\[1\] would share.*PerNetwork\("
    assert_refused(networks(), message, callbacks=[nn.EarlyStopping("loss")])
    stop = nn.EarlyStopping("loss")
    message = r"networks\[0\] and networks\[2\] would share"
    assert_refused(networks(), message, callbacks=nn.PerNetwork([[stop], [], [stop]]))


@pytest.mark.parametrize("callback", [nn.CSVLogger, nn.ModelCheckpoint, nn.TensorBoard])
def test_one_file_for_several_networks(callback, tmp_path):
    """Only the last network's metrics or weights would be left."""
    first, second = tmp_path / "first", tmp_path / "second"
    message = rf"callbacks {callback.__name__} of networks\[0\] and networks\[2\] would both write to '.*first'"
    assert_refused(networks(), message, callbacks=nn.PerNetwork([[callback(path)] for path in (first, second, first)]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (5, "callbacks must be a list of nnbackend Callback objects, or PerNetwork .*, received 5"),
        (["print"], "networks\\[0\\]: callbacks must be nnbackend Callback objects, received 'print'"),
        (nn.PerNetwork([[], "stop", []]), "callbacks must be .*, received 'stop' for networks\\[1\\]"),
        (nn.PerNetwork([[], [], [nn.EarlyStopping()]]), "networks\\[2\\]: .*val_loss"),
    ],
)
def test_callbacks(callbacks, message):
    assert_refused(networks(), message, callbacks=callbacks)


def test_one_callback_without_a_list():
    (history,) = nn.fit_many(networks(1), X, Y, **{**FIT, "epochs": 9}, callbacks=nn.EarlyStopping("loss", 1, True, 9))
    assert history.stopped_by == "EarlyStopping"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "rows is empty; give at least one row"),
        (np.zeros(60, bool), "rows is empty"),
        ([np.arange(5), [], None], r"networks\[1\]: rows is empty"),
        ([0, 60], r"rows must be in \[0, 60\), received 60"),
        ([0, -1], r"rows must be in \[0, 60\), received -1"),
        (np.ones(59, bool), "the mask in rows has 59 entries for 60 rows"),
        ([0.5, 1.0], r"rows must be the numbers of rows.*received an array of shape \(2,\) and dtype float64"),
        (5, r"rows must be the numbers of rows.*received an array of shape \(\)"),
        (["a", "b"], "rows must hold numbers"),
    ],
)
@pytest.mark.parametrize("name", ["rows", "validation_rows"])
def test_rows(name, rows, message):
    assert_refused(networks(), message.replace("rows", name, 1), **{name: rows})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": [1, 0, 1]}, r"networks\[1\]: epochs must be a whole number of at least 1, received 0"),
        ({"batch_size": 0}, r"networks\[0\]: batch_size must be"),
        ({"shuffle": "yes"}, r"networks\[0\]: shuffle must be"),
        ({"loss": "hinge"}, r"networks\[0\]: .*'hinge'"),
        ({"loss": ["softmax_cross_entropy", None, None]}, r"networks\[1\]: training needs a loss"),
        ({"optimizer": ["sgd", "adam", "adamm"]}, r"networks\[2\]: .*'adamm'.*adam"),
        ({"optimizer": nn.SGD}, r"networks\[0\]: "),
        ({"on_nan": "go"}, r"networks\[0\]: .*'go'"),
        ({"class_weight": {9: 1.0}}, r"networks\[0\]: class_weight names class 9"),
        ({"sample_weight": np.ones(59)}, r"networks\[0\]: sample_weight must have shape \(60,\)"),
        ({"sample_weight": nn.PerNetwork([None, -np.ones(60), None])}, r"networks\[1\]: sample_weight must be finite"),
        ({"validation_data": X}, r"networks\[0\]: validation_data must be \(x, y\)"),
        ({"validation_data": (X, Y[:9])}, r"networks\[0\]: validation_data: x has 60 rows but y has 9"),
        ({"validation_data": (X[:, :5], Y)}, r"networks\[0\]: validation_data: x must have 12 features"),
        ({"validation_data": (X, Y), "validation_rows": [1, 2]}, "give validation_rows or validation_data, not both"),
        ({"verbose": "loud"}, "verbose"),
        ({"steps_per_epoch": -1}, r"networks\[0\]: steps_per_epoch"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options(options, message):
    assert_refused(networks(), message, error=(InvalidInputError, UnknownNameError), **options)


def test_per_network_takes_a_list():
    for value in (5, "adam", nn.SGD()):
        with pytest.raises(InvalidInputError, match="PerNetwork takes a list with a value for each network, received"):
            nn.PerNetwork(value)


def test_one_optimiser_with_which_several_networks_were_trained():
    """Two at once would both set its state."""
    first, second, third = networks()
    shared = nn.SGD(nn.ReduceOnPlateau(0.1, monitor="loss"))
    for network in (first, third):
        network.fit(X, Y, optimizer=shared, **FIT)
    message = r"networks\[0\] and networks\[2\] were trained with the same SGD object, .* continue them one after"
    with pytest.raises(InvalidInputError, match=message):
        nn.fit_many([first, second, third], X, Y, optimizer=shared, **FIT)
    third.fit(X, Y, optimizer=nn.SGD(shared.schedule), **FIT)
    with pytest.raises(InvalidInputError, match="trained with the same ReduceOnPlateau object"):
        nn.fit_many([first, third], X, Y, optimizer=[shared, third.optimizer], **FIT)
    # Only one continues; the others get copies.
    nn.fit_many([first, second], X, Y, optimizer=shared, **FIT)
    assert first.optimizer is shared
    assert second.optimizer is not shared


class TestData:
    def test_other_numbers_of_rows(self):
        assert_refused(networks(), "x has 60 rows but y has 59", y=Y[:59])

    def test_no_targets(self):
        assert_refused(networks(), "y is missing", y=None)

    def test_values_that_are_not_finite(self):
        x = X / np.float32(255)
        x[7, 3] = np.nan
        assert_refused(networks(), "x holds 1 NaN or infinite values, the first in row 7, feature 3", x=x)

    def test_a_network_with_other_features(self):
        assert_refused([*networks(), classifier(features=5)], r"networks\[3\]: x must have 5 features a row", rows=[1])

    def test_labels_beyond_the_outputs_of_one_network(self):
        message = r"networks\[1\]: labels must be in \[0, 3\)"
        assert_refused([classifier(), classifier(classes=3)], message, y=np.full(60, 3))

    def test_labels_only_in_its_own_rows_count(self):
        """As with `fit` on these rows alone."""
        y = np.where(np.arange(60) < 30, Y % 3, 3)
        chosen, expected = classifier(classes=3), classifier(classes=3)
        nn.fit_many([chosen, classifier()], X, y, rows=[np.arange(30), np.arange(60)], **FIT)
        expected.fit(X[:30], y[:30], **FIT)
        assert same_weights(chosen, expected)

    def test_a_stream(self):
        stream = nn.BatchStream(lambda epoch: iter([(X, Y)]), rows=60)
        assert_refused(networks(), "give arrays, not a BatchStream", x=stream)

    def test_a_sparse_matrix(self):
        sparse = pytest.importorskip("scipy.sparse")
        assert_refused(networks(), re.escape("give x.toarray()"), x=sparse.csr_array(np.eye(60, 12)))

    def test_a_network_that_is_being_trained(self):
        chosen = networks(2)

        class Inner(nn.Callback):
            def on_epoch_begin(self, network, epoch):
                with pytest.raises(InvalidInputError, match=r"networks\[1\]: the network is being trained already"):
                    nn.fit_many([classifier(), network], X, Y, **FIT)

        assert [history.error for history in nn.fit_many(chosen, X, Y, callbacks=[Inner()], **FIT)] == [None, None]


@pytest.mark.parametrize("weighted", [False, True])
def test_each_network_holds_out_rows_of_its_own(backend, weighted):
    """As `fit` does on the same rows."""
    x, y = images(rows=48)
    weights = np.linspace(0.5, 2, 48) if weighted else None
    rows = [np.arange(40), np.arange(8, 48), np.arange(48), np.arange(48)]
    fractions = [0.25, 0.25, 0.5, 0.0]
    options = {"loss": "softmax_cross_entropy", "epochs": 2, "batch_size": 8, "verbose": False}
    together = [classifier(backend, seed=seed) for seed in range(4)]
    alone = copy.deepcopy(together)
    found = nn.fit_many(together, x, y, rows=rows, validation_split=fractions, sample_weight=weights, **options)
    for net, own, part, fraction, history in zip(together, alone, rows, fractions, found, strict=True):
        more = {} if weights is None else {"sample_weight": weights[part]}
        expected = own.fit(x[part], y[part], validation_split=fraction, **options, **more)
        assert same_weights(net, own)
        assert ("val_loss" in history.names()) == (fraction > 0)
        if fraction:
            np.testing.assert_array_equal(history["val_loss"], expected["val_loss"])


def test_rows_are_held_out_in_one_way():
    x, y = images(rows=48)
    with pytest.raises(InvalidInputError, match=r"networks\[0\]: .*all name validation rows; give one of them"):
        nn.fit_many([classifier("numpy")], x, y, loss="mse", validation_split=0.5, validation_rows=[1, 2])
    with pytest.raises(InvalidInputError, match=r"networks\[0\]: validation_split must be"):
        nn.fit_many([classifier("numpy")], x, y, loss="mse", validation_split=1.0)
