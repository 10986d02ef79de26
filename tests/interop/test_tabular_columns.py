"""From the columns of tables to features: `nnbackend.interop.tabular.preparation`."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from nnbackend.interop.tabular.preparation import FeatureColumns, Preparation
from nnbackend.interop.tabular.reading import Table


def fitted(x, most=100, **options):
    return Preparation.of(Table(x).columns(**options), most)


def features(preparation, x):
    return preparation.apply(Table(x).columns(), np.float64)


def clipped(u):
    return u / np.sqrt(1 + (u / 3) ** 2)


def test_numbers_are_scaled_robustly_and_clipped_smoothly():
    x = np.array([[0.0], [1], [2], [3], [4], [5], [6], [7], [800]])
    found = features(fitted(x), x)[:, 0]
    # The median is 4, the quartiles are 2 and 6.
    np.testing.assert_allclose(found, clipped((x[:, 0] - 4) / 4), rtol=1e-12)
    assert abs(found).max() < 3


def test_the_unit_does_not_matter():
    x = np.random.default_rng(0).normal(size=(50, 3))
    np.testing.assert_allclose(features(fitted(x * 1e9 + 5e9), x * 1e9 + 5e9), features(fitted(x), x), atol=1e-6)


def test_equal_quartiles_and_constants():
    x = np.column_stack([[0.0] * 19 + [10], [3.0] * 20])
    found = features(fitted(x), x)
    np.testing.assert_allclose(found[:, 0], clipped(np.array([0.0] * 19 + [2])))
    assert (found[:, 1] == 0).all()
    assert (features(fitted(x), x + 1)[:, 1] == 0).all()


def test_huge_numbers_do_not_overflow():
    x = np.array([[-1.7e308], [1.7e308], [1.0], [2.0]])
    assert np.isfinite(features(fitted(x), x)).all()
    tiny = fitted(np.array([[0.0], [5e-324], [1e-320], [1e-320]]))
    assert np.isfinite(features(tiny, x)).all()


def test_missing_numbers_become_the_median_and_a_feature():
    x = np.array([[1.0], [np.nan], [3], [2], [np.nan], [5], [4], [3]])
    found = features(fitted(x), x)
    assert found.shape == (8, 2)
    assert (found[[1, 4], 0] == 0).all()
    assert len(set(found[[1, 4], 1])) == 1
    assert (found[[1, 4], 1] > found[0, 1]).all()
    # Without missing values in the fitted rows there is no such feature.
    complete = fitted(np.arange(8.0)[:, None])
    assert features(complete, [[None]]).tolist() == [[0.0]]
    assert features(fitted(np.full((4, 1), np.nan)), [[np.nan], [1.0]]).shape == (2, 2)


def test_categories_have_features_of_their_own():
    x = [["a"], ["b"], ["c"], ["a"]]
    found = features(fitted(x), [*x, [None], ["unknown"]])
    assert found.shape == (6, 3)
    # Exactly the feature of its category is the larger of its two values.
    largest = found.max(axis=0)
    assert [row.tolist().count(True) for row in found == largest] == [1, 1, 1, 1, 0, 0]
    np.testing.assert_array_equal(found[4], found[5])


def test_two_categories_are_one_feature():
    found = features(fitted([["no"], ["yes"], ["no"], ["yes"]]), [["no"], ["yes"], [None]])[:, 0]
    assert found[0] < found[2] < found[1]
    assert found[0] == -found[1]


def test_rare_categories_share_a_feature():
    x = [["a"]] * 5 + [["b"]] * 4 + [["c"], ["d"], ["e"]]
    preparation = fitted(x, most=3)
    found = features(preparation, [["a"], ["b"], ["c"], ["e"], ["unknown"], [None]])
    assert found.shape == (6, 3)
    assert (found[2] == found[3]).all()
    assert (found[2] == found[4]).all()
    assert not (found[2] == found[5]).all()
    assert preparation.describe() == {"0": "2 categories, and others"}


def test_numbers_may_be_categories():
    x = pd.DataFrame({"code": [1, 2, 3, 1], "size": [1.0, 2.0, 3.0, 4.0]})
    assert fitted(x, categorical_features=["code"]).describe() == {"code": "3 categories", "size": "numbers"}
    assert fitted(x, categorical_features=[0]).categorical == [True, False]
    assert fitted(x, categorical_features=[False, True]).categorical == [False, True]
    assert fitted(x.to_numpy(), categorical_features=[1]).categorical == [False, True]


LIBRARIES = ["pandas", "polars", "pyarrow", "list", "objects"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_library_gives_the_same_features(library):
    columns = {"number": [1.5, None, 3.0, 4.0], "count": [1, 2, None, 4], "text": ["a", "b", None, "c"],
               "flag": [True, False, True, True]}  # fmt: skip
    frame = pd.DataFrame(columns)
    reference = features(fitted(frame), frame)
    if library == "polars":
        x = pytest.importorskip("polars").DataFrame(columns)
    elif library == "pyarrow":
        x = pytest.importorskip("pyarrow").table(columns)
    elif library == "pandas":
        x = pd.DataFrame(
            {
                "number": pd.array(columns["number"], "Float64"),
                "count": pd.array(columns["count"], "Int64"),
                "text": pd.array(columns["text"], "string"),
                "flag": pd.array(columns["flag"], "boolean"),
            }
        )
    else:
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        x = rows if library == "list" else np.array(rows, object)
    np.testing.assert_array_equal(features(fitted(x), x), reference)


def test_many_categories_become_their_numbers_for_an_embedding():
    columns = Table([["c", 1.0, "x"], ["a", None, "y"], ["b", 2.0, "x"], [None, 4.0, "x"]]).columns()
    preparation = Preparation.of(columns, 100, most_one_hot=2)
    # Numbers first, then what is missing and the two categories, then codes.
    assert preparation.features == FeatureColumns(4, numbers=1, codes=1, categories=3)
    found = preparation.apply(columns, np.float64)
    assert found[:, 3].tolist() == [2, 0, 1, -1]
    assert len(np.unique(found[:, 2])) == 2
    unknown = Table([["q", 1.0, "x"]]).columns()
    assert preparation.apply(unknown, np.float64)[0, 3] == -1


def test_files_from_before_features_were_sorted_keep_their_order():
    columns = Table([["a", 1.0], ["b", 2.0], ["c", 4.0], ["c", 8.0]]).columns()
    preparation = Preparation.of(columns, 100)
    config = preparation.config()
    before = Preparation.from_config(config["columns"]).apply(columns, np.float64)
    np.testing.assert_array_equal(before[:, [3, 0, 1, 2]], preparation.apply(columns, np.float64))
    again = Preparation.from_config(Preparation.from_config(config["columns"]).config())
    np.testing.assert_array_equal(again.apply(columns, np.float64), before)


def test_the_json_gives_the_same_bits():
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "number": generator.normal(size=50) * 1e-7,
            "missing": np.where(generator.random(50) < 0.3, np.nan, generator.normal(size=50)),
            "text": generator.choice(["a", "ä", "c\n", ""], 50),
            "code": pd.Categorical(generator.integers(0, 5, 50)),
            "flag": pd.Categorical(generator.random(50) < 0.5),
        }
    )
    preparation = fitted(frame, most=4)
    again = Preparation.from_config(json.loads(json.dumps(preparation.config())))
    assert features(again, frame).tobytes() == features(preparation, frame).tobytes()
    assert again.config() == preparation.config()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (["7", "8", "7"], [7, None, 8], "holds numbers, but its categories were text"),
        (["7", "8", "7"], [7.0, 8.0, np.nan], "holds numbers, but its categories were text"),
        ([7, 8, 7], ["7", "8", None], "holds text, but its categories were numbers"),
        ([True, False, None], ["True", "False", None], "holds text, but its categories were numbers"),
    ],
)
def test_categories_of_another_kind_are_refused(before, after, message):
    known = fitted(pd.DataFrame({"c": pd.Series(before, dtype=object)}), categorical_features=["c"])
    table = Table(pd.DataFrame({"c": pd.Series(after, dtype=object)}))
    with pytest.raises(InvalidInputError, match=f"column 'c' {message}"):
        known.apply(table.columns(["c"]), np.float64)


def test_categories_that_are_all_missing_are_of_no_kind():
    known = fitted(pd.DataFrame({"c": ["a", "b", "a"]}))
    missing = known.apply(Table(pd.DataFrame({"c": [None, None]})).columns(["c"]), np.float64)
    assert (missing == known.apply(Table(pd.DataFrame({"c": ["z", "z"]})).columns(), np.float64)).all()


def test_categories_in_another_precision_are_the_same():
    x = np.array([[0.1], [0.7], [0.3]] * 20)
    y = np.array([0, 1, 2] * 20)
    model = nn.TabularClassifier(
        categorical_features=[0], hidden_layer_sizes=(8,), epochs=20, random_state=0, backend="numpy"
    ).fit(x.astype(np.float32), y)
    assert (model.predict_proba(x) == model.predict_proba(x.astype(np.float32))).all()
    assert model.score(x, y) == 1
