"""Data frames, Arrow tables, arrays of objects and sparse matrices: what is taken, and what is refused and why."""

from __future__ import annotations

import datetime
import decimal
import fractions
from typing import ClassVar

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.data.inputs import as_host_array
from nnbackend.errors import InvalidInputError
from tests.helpers import classifier, same_weights

pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")
pyarrow = pytest.importorskip("pyarrow")

NUMBERS = {"age": [31, 42, 53, 64], "height": [1.5, 1.75, 1.25, 2.0], "member": [True, False, False, True]}
TABLE = np.array([[31, 1.5, 1], [42, 1.75, 0], [53, 1.25, 0], [64, 2.0, 1]])
OPTIONS = {"epochs": 2, "batch_size": 2, "loss": "softmax_cross_entropy"}
Y = np.array([0, 1, 0, 1])


def network(backend="numpy", features=3, outputs=2):
    return nn.Network([nn.Dense(outputs)], features, backend)


def as_pandas(columns):
    return pandas.DataFrame(columns)


def nullable(columns):
    return pandas.DataFrame(columns).convert_dtypes()


def arrow_backed(columns):
    return pandas.DataFrame(columns).convert_dtypes(dtype_backend="pyarrow")


LIBRARIES = [as_pandas, nullable, arrow_backed, polars.DataFrame, pyarrow.table]
IDS = ["pandas", "nullable", "arrow-backed", "polars", "pyarrow"]


@pytest.mark.parametrize("make", LIBRARIES, ids=IDS)
def test_mixed_numeric_columns_are_taken(backend, make):
    frame, plain = network(backend), network(backend)
    frame.fit(make(NUMBERS), make({"label": Y.tolist()}), **OPTIONS)
    plain.fit(TABLE, Y, **OPTIONS)
    assert same_weights(frame, plain)
    np.testing.assert_array_equal(frame.predict(make(NUMBERS)), plain.predict(TABLE))
    np.testing.assert_array_equal(frame.predict_classes(make(NUMBERS)), plain.predict_classes(TABLE))
    assert frame.evaluate(make(NUMBERS), make({"label": Y.tolist()})) == plain.evaluate(TABLE, Y)


@pytest.mark.parametrize("make", LIBRARIES, ids=IDS)
def test_missing_values_are_named(make):
    frame = make(
        {**NUMBERS, "weight": [None, 60.0, None, 80.0], "beds": [1, 2, None, 3], "ok": [True, None, False, True]}
    )
    message = r"x has 4 missing values: 2 in column 'weight', 1 in column 'beds', 1 in column 'ok'; fill them in"
    with pytest.raises(InvalidInputError, match=message):
        network(features=6).fit(frame, Y, **OPTIONS)


@pytest.mark.parametrize("make", LIBRARIES, ids=IDS)
def test_missing_targets_are_counted(make):
    column = make({"label": [0, None, 1, None]})["label"]
    with pytest.raises(InvalidInputError, match=r"y has 2 missing values"):
        network().fit(TABLE, column, **OPTIONS)


def test_the_suggestions_for_missing_values_work():
    frame = as_pandas({**NUMBERS, "weight": [None, 60.0, None, 80.0]})
    network(features=4).fit(frame.fillna(0), Y, **OPTIONS)
    keep = frame.notna().all(axis=1)
    network(features=4).fit(frame[keep], Y[keep], **{**OPTIONS, "batch_size": 1})
    network(features=4).fit(polars.DataFrame({**NUMBERS, "w": [None, 1.0, None, 2.0]}).fill_null(0), Y, **OPTIONS)


@pytest.mark.parametrize("make", LIBRARIES, ids=IDS)
def test_nan_in_a_column_is_named(make):
    frame = make({"age": [1.0, 2.0, 3.0, 4.0], "weight": [1.0, np.inf, 2.0, -np.inf]})
    message = r"x holds 2 NaN or infinite values \(2 in column 'weight'\), the first in row 1, column 'weight'"
    with pytest.raises(InvalidInputError, match=message):
        network(features=2).fit(frame, Y, **OPTIONS)


DAY = datetime.datetime(2026, 1, 2)


@pytest.mark.parametrize("make", LIBRARIES, ids=IDS)
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["Rome", "Oslo", "Rome", "Bern"], r"column 'extra' holds text \("),
        ([DAY] * 4, r"column 'extra' holds dates \("),
        ([DAY - DAY] * 4, r"column 'extra' holds durations \("),
    ],
    ids=["text", "dates", "durations"],
)
def test_columns_without_numbers_are_named_with_their_type(make, values, message):
    with pytest.raises(InvalidInputError, match=f"x must hold numbers, but {message}"):
        network(features=4).fit(make({**NUMBERS, "extra": values}), Y, **OPTIONS)


def test_the_suggestions_for_text_and_categories_work():
    frame = as_pandas({**NUMBERS, "town": ["Rome", "Oslo", "Rome", "Bern"]})
    frame["kind"] = pandas.Categorical([1, 2, 1, 1])
    with pytest.raises(InvalidInputError) as error:
        network(features=5).fit(frame, Y, **OPTIONS)
    assert "'town' holds text (str), 'kind' holds categories (category)" in str(error.value)
    encoded = eval(str(error.value).partition("for example with ")[2], {"pandas": pandas, "x": frame})
    network(features=8).fit(encoded, Y, **OPTIONS)
    frame = polars.DataFrame({**NUMBERS, "town": ["Rome", "Oslo", "Rome", "Bern"]})
    with pytest.raises(InvalidInputError) as error:
        network(features=4).fit(frame, Y, **OPTIONS)
    encoded = eval(str(error.value).partition("for example with ")[2], {"x": frame})
    with pytest.warns(UserWarning, match="input_scale") if set(encoded.dtypes) == {polars.UInt8} else _nothing():
        network(features=6).fit(encoded, Y, **OPTIONS)


def _nothing():
    import contextlib

    return contextlib.nullcontext()


@pytest.mark.parametrize(
    "y",
    [
        ["no", "yes", "no", "yes"],
        np.array(["no", "yes", "no", "yes"]),
        np.array(["no", "yes", "no", "yes"], object),
        pandas.Series(["no", "yes", "no", "yes"]),
        pandas.Series(["no", "yes", "no", "yes"], dtype="category"),
        polars.Series(["no", "yes", "no", "yes"]),
        polars.Series(["no", "yes", "no", "yes"], dtype=polars.Categorical),
    ],
    ids=lambda y: f"{type(y).__module__}.{getattr(y, 'dtype', '')}",
)
def test_text_labels_say_what_to_call(y):
    with pytest.raises(InvalidInputError, match="y must hold numbers") as error:
        network().fit(TABLE, y, **OPTIONS)
    namespace = {"numpy": np, "y": y}
    exec(str(error.value).partition("number them: ")[2], namespace)
    assert namespace["y"].tolist() == [0, 1, 0, 1]
    network().fit(TABLE, namespace["y"], **OPTIONS)


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy"])
def test_whole_floating_labels_are_taken(backend, loss):
    one, other = network(backend), network(backend)
    one.fit(TABLE, Y.astype(float), **{**OPTIONS, "loss": loss})
    other.fit(TABLE, Y, **{**OPTIONS, "loss": loss})
    assert same_weights(one, other)


def test_objects_that_are_numbers_are_taken():
    mixed = [[1, 2.5, True], [np.float32(3), decimal.Decimal("0.5"), fractions.Fraction(1, 4)]]
    expected = np.array([[1, 2.5, 1], [3, 0.5, 0.25]])
    np.testing.assert_array_equal(as_host_array("x", np.array(mixed, object)), expected)
    assert as_host_array("y", np.array([1, True, np.int8(3)], object)).dtype == np.int64
    assert as_host_array("x", np.array([2**70, 1], object)).tolist() == [2.0**70, 1]
    np.testing.assert_array_equal(as_host_array("x", as_pandas(NUMBERS).to_numpy()), TABLE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1, None], [2, None]], "x has 2 missing values: 2 in column 1"),
        ([[1, pandas.NA], [np.nan, 2]], "x has 2 missing values: 1 in column 1, 1 in column 0"),
        ([[1, "Oslo"]], "x must hold numbers, received dtype object with text: 'Oslo' in row 0, feature 1"),
        ([[1, 2], [3, 1j]], "received dtype object with complex objects: 1j in row 1, feature 1"),
        ([10**400], "numbers beyond the range of float64"),
    ],
)
def test_objects_that_are_not_numbers(values, message):
    with pytest.raises(InvalidInputError, match=message):
        as_host_array("x", np.array(values, object))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "x is None"),
        (3.5, "x is a single number"),
        ("text", "x is a str"),
        (b"text", "x is a bytes"),
        ({1.0, 2.0}, "x is a set"),
        ({"a": [1.0]}, "x is a dict"),
        ((row for row in TABLE), "x must be an array of numbers, received <generator"),
        ([], r"x is empty: received shape \(0,\)"),
        ([[1, 2, 3], [1, 2]], "x is a builtins.list that NumPy cannot read"),
        ([[1, 2, 3], None], "NumPy cannot read|missing|must hold numbers"),
        (np.ones((4, 3), complex), "received dtype complex128: complex numbers"),
        (np.full((4, 3), "2026-01-02", "M8[D]"), r"received dtype datetime64\[D\]: dates"),
        (np.full((4, 3), 5, "m8[s]"), r"received dtype timedelta64\[s\]: durations"),
        (np.full((4, 3), "a"), "received dtype <U1: text such as 'a'"),
        (np.zeros(4, [("a", float), ("b", float), ("c", float)]), "records; convert it with"),
        (polars.LazyFrame(NUMBERS), r"a polars LazyFrame, which has no values yet; give x.collect\(\)"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("call", ["fit", "predict", "evaluate", "train_on_batch"])
def test_what_is_no_array_of_numbers(value, message, call):
    net = network()
    before = net.get_weights()
    arguments = {
        "fit": lambda: net.fit(value, Y, **OPTIONS),
        "predict": lambda: net.predict(value),
        "evaluate": lambda: net.evaluate(value, Y, loss=OPTIONS["loss"]),
        "train_on_batch": lambda: net.train_on_batch(value, Y, loss=OPTIONS["loss"]),
    }
    with pytest.raises(InvalidInputError, match=message):
        arguments[call]()
    assert all((before[name] == array).all() for name, array in net.get_weights().items())


@pytest.mark.parametrize("kind", ["index", "array", "multi-index"])
def test_an_index_and_an_array_of_pandas(kind):
    made = {
        "index": lambda: pandas.Index(Y),
        "array": lambda: pandas.array(Y, dtype="Int64"),
        "multi-index": lambda: pandas.MultiIndex.from_arrays([Y, Y]),
    }[kind]()
    if kind == "multi-index":
        with pytest.raises(InvalidInputError, match=r"y is a pandas.* that NumPy cannot read"):
            network().fit(TABLE, made, **OPTIONS)
    else:
        network().fit(TABLE, made, **OPTIONS)


def test_a_frame_of_one_type_is_not_copied():
    frame = pandas.DataFrame(np.ones((5, 4)))
    assert np.shares_memory(as_host_array("x", frame), frame.to_numpy())


def test_text_that_is_numbers_says_how_to_convert_it():
    with pytest.raises(InvalidInputError, match=r"text such as '31.0'; convert it with x.astype\(float\)"):
        network().fit(TABLE.astype(str), Y, **OPTIONS)
    network().fit(TABLE.astype(str).astype(float), Y, **OPTIONS)


def test_records_as_suggested():
    from numpy.lib import recfunctions

    records = np.zeros(4, [("a", float), ("b", np.int8), ("c", bool)])
    network().fit(recfunctions.structured_to_unstructured(records), Y, **OPTIONS)


def test_masked_values_are_refused_and_filled_ones_taken(backend):
    masked = np.ma.masked_array(TABLE.copy(), mask=TABLE == 1.5)
    masked.data[0, 1] = np.nan
    with pytest.raises(InvalidInputError, match=r"x has 1 masked value of 12; fill them in.*x.filled\(0\)"):
        network(backend).fit(masked, Y, **OPTIONS)
    network(backend).fit(masked.filled(0), Y, **OPTIONS)
    one, other = network(backend), network(backend)
    one.fit(np.ma.masked_array(TABLE + 1), Y, **OPTIONS)
    other.fit(TABLE + 1, Y, **OPTIONS)
    assert same_weights(one, other)
    with pytest.raises(InvalidInputError, match="y has 1 masked value of 4"):
        network(backend).fit(TABLE, np.ma.masked_equal([5, 1, 0, 1], 5), **OPTIONS)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"])
def test_matrices_are_like_arrays(backend, loss):
    sparse = pytest.importorskip("scipy.sparse")
    one_hot = np.eye(2)[Y]
    one, other = network(backend), network(backend)
    options = {**OPTIONS, "loss": loss, "class_weight": {0: 2.0}}
    one.fit(sparse.csr_matrix(TABLE).todense(), sparse.csr_matrix(one_hot).todense(), **options)
    other.fit(TABLE, one_hot, **options)
    assert same_weights(one, other)
    assert one.train_on_batch(np.asmatrix(TABLE), np.asmatrix(one_hot)) == other.train_on_batch(TABLE, one_hot)
    assert one.evaluate(np.asmatrix(TABLE), np.asmatrix(one_hot)) == other.evaluate(TABLE, one_hot)


# ---- sparse matrices -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["csr_matrix", "csr_array", "csc_array", "coo_array", "lil_array", "bsr_array"])
def test_sparse_rows_train_like_dense_ones(backend, form):
    sparse = pytest.importorskip("scipy.sparse")
    generator = np.random.default_rng(0)
    x = generator.normal(size=(30, 12)) * (generator.random((30, 12)) < 0.2)
    y = generator.integers(0, 4, 30)
    given = getattr(sparse, form)(x)
    one, other = classifier(backend), classifier(backend)
    options = {**OPTIONS, "batch_size": 8}
    found = one.fit(given, y, validation_data=(given, y), **options)
    expected = other.fit(x, y, validation_data=(x, y), **options)
    assert same_weights(one, other)
    assert found["val_loss"] == expected["val_loss"]
    np.testing.assert_array_equal(one.predict(given), other.predict(x))
    np.testing.assert_array_equal(one.predict_classes(given), other.predict_classes(x))
    assert one.evaluate(given, y) == other.evaluate(x, y)
    assert one.train_on_batch(given.tocsr()[:9], y[:9]) == other.train_on_batch(x[:9], y[:9])
    assert one.input_description == "float64 sparse inputs with 12 features, not scaled; 4 classes"


@pytest.mark.parametrize("form", ["csr_matrix", "csc_array", "coo_array", "bsr_matrix"])
@pytest.mark.parametrize("wrong", [77, -1])
def test_places_outside_a_sparse_matrix(form, wrong):
    """SciPy would write outside of its arrays."""
    sparse = pytest.importorskip("scipy.sparse")
    given = getattr(sparse, form)(np.eye(8, 6))
    (given.col if form == "coo_array" else given.indices)[0] = wrong
    net = nn.Network([nn.Dense(2)], 6, backend="numpy")
    with pytest.raises(InvalidInputError, match=f"damaged sparse matrix .* a value at index {wrong}"):
        net.predict(given)
    if form != "coo_array":
        given.indptr[1] = 99
        with pytest.raises(InvalidInputError, match="damaged sparse matrix: its indptr"):
            net.predict(given)


def test_a_sparse_matrix_is_never_dense_as_a_whole():
    sparse = pytest.importorskip("scipy.sparse")

    class Watched(sparse.csr_matrix):
        def toarray(self, *arguments, **options):
            assert self.shape[0] <= 1500
            return super().toarray(*arguments, **options)

    x = Watched(sparse.random_array((3000, 4000), density=0.001, rng=0))
    net = nn.Network([nn.Dense(2)], 4000, "numpy")
    net.fit(x, np.arange(3000) % 2, **{**OPTIONS, "epochs": 1, "batch_size": 500})
    net.predict(x)


def test_entries_of_the_same_place_are_added_before_they_are_checked():
    sparse = pytest.importorskip("scipy.sparse")
    places = (np.array([0, 0, 1]), np.array([1, 1, 2]))
    given = sparse.coo_array((np.array([1.0, 2.0, 3.0]), places), (4, 3)).tocsr()
    np.testing.assert_array_equal(network().predict(given), network().predict(given.toarray()))
    twice = sparse.csr_array((np.full(2, 1.5e308), np.array([1, 1]), np.array([0, 2, 2, 2, 2])), (4, 3))
    with pytest.raises(InvalidInputError, match="1 NaN or infinite values, the first in row 0, feature 1"):
        nn.Network([nn.Dense(2)], 3, "numpy", dtype="float64").predict(twice)
    assert twice.nnz == 2


def test_bad_sparse_matrices():
    sparse = pytest.importorskip("scipy.sparse")
    x = sparse.csr_array(TABLE)
    for given, message in (
        (x[:, :2], r"x must have 3 features a row, received shape \(4, 2\)"),
        (x[:0], "x is empty"),
        (
            sparse.csr_array(np.where(TABLE == 1.25, np.nan, TABLE)),
            "1 NaN or infinite values, the first in row 2, feature 1",
        ),
        (sparse.csr_array(TABLE * 1e300), "beyond the range of float32"),
        (sparse.csr_array(TABLE * 1j), "complex"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            network().fit(given, Y, **OPTIONS)
    one_hot = np.eye(2)[Y]
    with pytest.raises(
        InvalidInputError, match=r"y is a sparse matrix \(csr_matrix of shape \(4, 2\)\); give y.toarray\(\)"
    ):
        network().fit(TABLE, sparse.csr_matrix(one_hot), **OPTIONS)
    network().fit(TABLE, sparse.csr_matrix(one_hot).toarray(), **OPTIONS)


# ---- one feature, many outputs, large targets ------------------------------------------------------------------------


def test_one_feature_as_a_flat_array_says_how_to_make_a_column():
    x = np.linspace(0, 1, 9)
    with pytest.raises(InvalidInputError, match=r"x must have 1 feature a row, received shape \(9,\).*x\[:, None\]"):
        network(features=1).fit(x, np.arange(9) % 2, **OPTIONS)
    network(features=1).fit(x[:, None], np.arange(9) % 2, **OPTIONS)
    with pytest.raises(InvalidInputError, match=r"received shape \(3,\); for a single sample give x\[None\]"):
        network().predict(TABLE[0])


def test_labels_for_many_outputs_are_one_hot_for_the_rows_alone(monkeypatch):
    monkeypatch.setattr(np, "eye", None)
    one = nn.Network([nn.Dense(100_000)], 2, "numpy")
    history = one.fit(np.ones((3, 2)), [0, 99_999, 5], epochs=1, loss="mean_squared_error", optimizer=nn.SGD(0.1))
    other = nn.Network([nn.Dense(100_000)], 2, "numpy")
    targets = np.zeros((3, 100_000))
    targets[[0, 1, 2], [0, 99_999, 5]] = 1
    assert (
        history["loss"]
        == other.fit(np.ones((3, 2)), targets, epochs=1, loss="mean_squared_error", optimizer=nn.SGD(0.1))["loss"]
    )


class TestLargeTargets:
    x = np.linspace(-1, 1, 20)[:, None]
    y = 200_000 + 1000 * np.arange(20)
    options: ClassVar = {"epochs": 2, "loss": "mean_squared_error"}

    def test_they_are_named_and_the_suggestion_works(self, backend):
        net = network(backend, 1, 1)
        with pytest.warns(UserWarning, match=r"y holds targets up to 219,000.*train on \(y - y.mean\(\)\) / y.std\(\)"):
            net.fit(self.x, self.y, **self.options)
        with pytest.warns(UserWarning, match="y holds targets up to 219,000"):
            network(backend, 1, 1).train_on_batch(self.x, self.y, loss="mean_squared_error")
        y, better = self.y, network(backend, 1, 1)
        better.fit(self.x, (y - y.mean()) / y.std(), epochs=60, loss="mean_squared_error", optimizer=nn.Adam(0.1))
        p = better.predict(self.x)[:, 0]
        assert np.abs(p * y.std() + y.mean() - y).max() < 1000

    def test_a_run_that_diverges_blames_them(self):
        net = network("numpy", 1, 1)
        with (
            pytest.warns(UserWarning, match="y holds targets"),
            pytest.raises(nn.errors.TrainingDivergedError, match="Scale the targets, which are as large as 219,000"),
        ):
            net.fit(self.x, self.y, optimizer=nn.SGD(1e30), **self.options)
