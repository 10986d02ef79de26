"""Files and pickles of `TabularClassifier` and `TabularRegressor`."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

import nnbackend as nn
from nnbackend.errors import InvalidInputError, ModelFileError
from tests.interop.tables import FRAME, classifier, labels, numbers, regressor, table


@pytest.mark.parametrize("make", [classifier, regressor])
def test_a_file_predicts_the_same_bits(tmp_path, backend, make):
    y = labels(FRAME) if make is classifier else numbers(FRAME)
    model = make(backend).fit(FRAME, y)
    model.save(tmp_path / "model.safetensors")
    found = type(model).load(tmp_path / "model.safetensors", backend)
    assert_same(found, model)
    if make is regressor:
        assert found.predict_quantiles(FRAME).tobytes() == model.predict_quantiles(FRAME).tobytes()


@pytest.mark.parametrize("make", [classifier, regressor])
def test_files_without_a_recipe_are_of_the_simple_one(tmp_path, make):
    """They were written before the parameter `recipe` existed."""
    from nnbackend.saving.model_file import read_model, write_model

    y = labels(FRAME) if make is classifier else numbers(FRAME)
    model = make(recipe="td-s").fit(FRAME, y)
    model.save(tmp_path / "model")
    config, weights = read_model(tmp_path / "model")
    assert config["tabular"]["parameters"].pop("recipe") == "td-s"
    write_model(tmp_path / "old", config, weights)
    found = type(model).load(tmp_path / "old", "numpy")
    assert found.recipe == "td-s"
    assert_same(found, model)
    # Trained again, it has the same networks.
    assert_same(found.fit(FRAME, y), model)
    make(recipe="td", epochs=2).fit(FRAME, y).save(tmp_path / "td")
    assert type(model).load(tmp_path / "td", "numpy").recipe == "td"


@pytest.mark.parametrize("make", [classifier, regressor])
def test_pickles(make):
    model = make().fit(FRAME, labels(FRAME) if make is classifier else numbers(FRAME))
    assert_same(pickle.loads(pickle.dumps(model)), model)


def assert_same(found, model):
    other = table(40, seed=2)
    predict = "predict_proba" if hasattr(model, "classes_") else "predict"
    assert getattr(found, predict)(other).tobytes() == getattr(model, predict)(other).tobytes()
    np.testing.assert_array_equal(found.predict(other), model.predict(other))
    assert (found.n_features_in_, list(found.feature_names_in_)) == (5, list(FRAME.columns))
    assert (found.epochs, found.n_epochs_, found.best_epochs_) == (30, 30, model.best_epochs_)
    assert found.describe_columns() == model.describe_columns()


@pytest.mark.parametrize("y", [np.arange(30) % 3, np.arange(30) % 2 == 0, np.array(["a", "b"] * 15, object)])
def test_classes_of_all_kinds_are_in_files(tmp_path, y):
    x = np.arange(30.0)[:, None]
    model = classifier(epochs=2).fit(x, y)
    model.save(tmp_path / "model")
    found = nn.TabularClassifier.load(tmp_path / "model", "numpy")
    assert found.classes_.dtype == model.classes_.dtype
    np.testing.assert_array_equal(found.predict(x), model.predict(x))


def test_other_files_are_refused(tmp_path):
    model = classifier(epochs=2).fit(FRAME, labels(FRAME))
    model.save(tmp_path / "model")
    with pytest.raises(ModelFileError, match="a 'classifier', which TabularRegressor"):
        nn.TabularRegressor.load(tmp_path / "model")
    with pytest.raises(ModelFileError, match=r"an estimator for tables; read it with nnbackend\.TabularClassifier"):
        nn.Ensemble.load(tmp_path / "model")
    with pytest.raises(ModelFileError, match=r"an estimator for tables; read it with nnbackend\.TabularClassifier"):
        nn.Network.load(tmp_path / "model")
    model.ensemble_.save(tmp_path / "ensemble")
    with pytest.raises(ModelFileError, match="no estimator for tables"):
        nn.TabularClassifier.load(tmp_path / "ensemble")
    with pytest.raises(NotFittedError):
        classifier().save(tmp_path / "none")
    model.classes_ = np.array([1 + 2j, 3j])
    with pytest.raises(InvalidInputError, match="classes of type complex cannot be saved"):
        model.save(tmp_path / "other")


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("columns"),
        lambda state: state["columns"].update(sorted=1),
        lambda state: state["columns"]["columns"].pop(),
        lambda state: state["columns"]["columns"][0].update(kind="other"),
        lambda state: state["columns"]["columns"][0].update(scaling=[0.0, float("nan")]),
        lambda state: state["columns"]["columns"][2].update(values=[["list"]]),
        lambda state: state["columns"]["columns"][2]["scalings"].pop(),
        lambda state: state["parameters"].update(unknown=1),
        lambda state: state["parameters"].update(dtype=-1),
        lambda state: state["targets"].update(classes={"dtype": "O8", "values": [{}]}),
        lambda state: state["targets"]["classes"].update(dtype="<U100000000"),
        lambda state: state["targets"]["classes"]["values"].append("more"),
        lambda state: state.update(names=["one"]),
        lambda state: state.update(best_epochs=None),
    ],
)
def test_damaged_descriptions(tmp_path, change):
    from nnbackend.saving.model_file import read_model, write_model

    classifier(epochs=2).fit(FRAME, labels(FRAME)).save(tmp_path / "model")
    config, weights = read_model(tmp_path / "model")
    change(config["tabular"])
    write_model(tmp_path / "damaged", config, weights)
    with pytest.raises(ModelFileError, match="its description of the estimator is damaged"):
        nn.TabularClassifier.load(tmp_path / "damaged")


def test_damaged_errors_of_held_out_rows(tmp_path):
    from nnbackend.saving.model_file import read_model, write_model

    regressor(epochs=2).fit(FRAME, numbers(FRAME)).save(tmp_path / "model")
    config, weights = read_model(tmp_path / "model")
    for name, array in (
        ("tabular.predictions.0", weights["tabular.predictions.0"][::-1]),
        ("tabular.errors.0", weights["tabular.errors.0"][:-1]),
        ("tabular.errors.0", weights["tabular.errors.0"].astype(np.float32)),
        ("tabular.other", np.zeros(3)),
    ):
        write_model(tmp_path / "damaged", config, {**weights, name: np.ascontiguousarray(array)})
        with pytest.raises(ModelFileError, match="its description of the estimator is damaged"):
            nn.TabularRegressor.load(tmp_path / "damaged", "numpy")
