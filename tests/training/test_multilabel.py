"""Networks that predict one class for each row, and networks that predict any number of labels."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError, ModelFileError
from nnbackend.saving.model_file import read_model, write_model
from tests.helpers import classifier, images, same_weights

X, Y = images(70)
ONE_HOT = np.eye(4)[Y]
#: Every row has its class, and some have the next one, too.
SEVERAL = np.maximum(ONE_HOT, np.roll(ONE_HOT, 1, axis=1) * (X[:, :1] > 120))
LOSS = "sigmoid_cross_entropy"
OPTIONS = {"epochs": 2, "batch_size": 16, "loss": LOSS, "verbose": False}


def trained(y=SEVERAL, backend="numpy", **options):
    net = classifier(backend)
    return net, net.fit(X, y, **{**OPTIONS, **options})


def test_targets_with_several_labels(backend):
    net, history = trained(backend=backend)
    assert net.multilabel
    found = net.predict_classes(X)
    assert found.shape == (70, 4)
    assert found.dtype == np.int64
    metrics = net.evaluate(X, SEVERAL)
    assert metrics["binary_accuracy"] == pytest.approx(np.mean(found == SEVERAL))
    assert "binary_accuracy" in history.names()
    assert "accuracy" not in history.names()


@pytest.mark.parametrize("y", [Y, ONE_HOT, ONE_HOT.astype(bool)], ids=["labels", "one-hot", "bool"])
def test_classes_with_independent_outputs(backend, y):
    net, history = trained(y, backend, validation_data=(X, y))
    assert not net.multilabel
    found = net.predict_classes(X)
    np.testing.assert_array_equal(found, net.predict(X).argmax(axis=1))
    assert net.evaluate(X, y)["accuracy"] == pytest.approx(np.mean(found == Y))
    assert history["val_accuracy"][-1] == pytest.approx(np.mean(found == Y))
    assert "binary_accuracy" not in history.names()
    # What is counted does not change the training.
    other = classifier(backend)
    other.multilabel = True
    other.fit(X, ONE_HOT, **OPTIONS)
    assert same_weights(net, other)
    assert other.multilabel


def test_the_accuracy_of_training_counts_rows(backend):
    _, history = trained(Y, backend, epochs=1, batch_size=70, shuffle=False)
    before = classifier(backend)
    before.set_loss(LOSS)
    assert history["accuracy"] == [pytest.approx(np.mean(before.predict_classes(X) == Y))]
    found = before.train_on_batch(X, Y)
    assert found == {"loss": pytest.approx(history["loss"][0]), "accuracy": history["accuracy"][0]}


@pytest.mark.parametrize("dtype", [int, bool, "float32"])
@pytest.mark.parametrize("y", [0 * SEVERAL, np.ones_like(SEVERAL), 0.5 * SEVERAL], ids=["none", "all", "shares"])
def test_targets_that_are_not_one_hot(y, dtype):
    net, _ = trained(y.astype(dtype))
    assert net.predict_classes(X).shape == (70, 4)


def test_other_losses_and_a_single_output_are_as_before():
    for loss, y in (
        ("softmax_cross_entropy", SEVERAL / SEVERAL.sum(axis=1, keepdims=True)),
        ("mean_squared_error", SEVERAL),
    ):
        net, _ = trained(y, loss=loss)
        assert not net.multilabel
        assert net.predict_classes(X).shape == (70,)
    single = nn.Network([nn.Dense(1)], 12, backend="numpy")
    single.fit(X, (Y == 1)[:, None], **OPTIONS)
    assert single.predict_classes(X).shape == (70,)
    # The loss decides, too.
    net, _ = trained()
    net.fit(X, Y, **{**OPTIONS, "loss": "softmax_cross_entropy"})
    assert net.predict_classes(X).shape == (70,)


class TestItIsSaved:
    @pytest.mark.parametrize(
        "copied",
        [
            copy.deepcopy,
            lambda net: pickle.loads(pickle.dumps(net)),
            lambda net: net.to("numba"),
            lambda net: nn.Network.from_config(net.config(), backend="numpy"),
        ],
        ids=["copy", "pickle", "to", "config"],
    )
    @pytest.mark.parametrize("y", [SEVERAL, ONE_HOT], ids=["several", "one"])
    def test_with_a_copy(self, copied, y):
        net, _ = trained(y)
        shape = (70, 4) if y is SEVERAL else (70,)
        assert copied(net).predict_classes(X).shape == shape

    def test_in_a_file(self, tmp_path):
        for y, shape in ((SEVERAL, (70, 4)), (Y, (70,))):
            trained(y)[0].save(tmp_path / "net.safetensors")
            again = nn.Network.load(tmp_path / "net.safetensors", backend="numpy")
            assert again.predict_classes(X).shape == shape

    def test_in_a_file_of_an_earlier_release_it_is_missing(self, tmp_path):
        net, _ = trained()
        net.save(tmp_path / "net.safetensors")
        config, arrays = read_model(tmp_path / "net.safetensors")
        del config["multilabel"]
        write_model(tmp_path / "old.safetensors", config, arrays)
        old = nn.Network.load(tmp_path / "old.safetensors", backend="numpy")
        assert old.predict_classes(X).shape == (70,)
        write_model(tmp_path / "bad.safetensors", {**config, "multilabel": "yes"}, arrays)
        with pytest.raises(ModelFileError, match="multilabel must be True or False, received 'yes'"):
            nn.Network.load(tmp_path / "bad.safetensors")

    def test_in_a_checkpoint(self, tmp_path):
        net, _ = trained(callbacks=[nn.Checkpoint(tmp_path)])
        again = classifier()
        again.fit(X, SEVERAL, **OPTIONS, callbacks=[nn.Checkpoint(tmp_path)], resume=True)
        assert again.multilabel
        assert same_weights(net, again)
        # The network that was trained resumes, too.
        net.fit(X, SEVERAL, **{**OPTIONS, "epochs": 3}, callbacks=[nn.Checkpoint(tmp_path)], resume=True)
        assert net.multilabel


class TestTargetsOfSeveralKinds:
    def test_validation_data_with_one_label_each(self):
        for y in (Y, ONE_HOT):
            net, history = trained(validation_data=(X, y))
            found = np.mean(net.predict_classes(X) == ONE_HOT)
            assert history["val_binary_accuracy"][-1] == pytest.approx(found)

    def test_validation_data_with_several_labels(self):
        """Training rows that all happen to have one label."""
        net, history = trained(ONE_HOT, validation_data=(X, SEVERAL))
        assert net.multilabel
        assert "binary_accuracy" in history.names()
        found = np.mean(net.predict_classes(X) == SEVERAL)
        assert history["val_binary_accuracy"][-1] == pytest.approx(found)

    def test_class_indices_and_several_labels_do_not_go_together(self):
        net = classifier()
        with pytest.raises(InvalidInputError, match="give all targets in the same form"):
            net.fit(X, Y, **OPTIONS, validation_data=(X, SEVERAL))
        assert net.loss is None
        assert same_weights(net, classifier())
        # As the message says.
        net.fit(X, ONE_HOT, **OPTIONS, validation_data=(X, SEVERAL))

    def test_evaluation_counts_what_is_predicted(self):
        net, _ = trained()
        for y in (Y, ONE_HOT):
            found = np.mean(net.predict_classes(X) == ONE_HOT)
            assert net.evaluate(X, y)["binary_accuracy"] == pytest.approx(found)

    def test_class_weights_need_classes(self):
        with pytest.raises(InvalidInputError, match="class_weight needs integer or one-hot labels"):
            trained(class_weight={0: 2})

    def test_first_batches_with_one_label_each(self):
        net = classifier()
        assert "accuracy" in net.train_on_batch(X, ONE_HOT, loss=LOSS)
        assert not net.multilabel
        assert "binary_accuracy" in net.train_on_batch(X, SEVERAL)
        assert "binary_accuracy" in net.train_on_batch(X, ONE_HOT)
        assert net.multilabel
        assert net.predict_classes(X).shape == (70, 4)
        # Class indices are classes.
        assert "accuracy" in net.train_on_batch(X, Y)
        assert net.predict_classes(X).shape == (70,)

    def test_streams(self):
        def stream(*targets):
            return nn.BatchStream(lambda epoch: [(X, y) for y in targets], rows=70 * len(targets))

        net = classifier()
        history = net.fit(stream(SEVERAL), **OPTIONS, validation_data=stream(ONE_HOT))
        assert net.predict_classes(X).shape == (70, 4)
        assert "val_binary_accuracy" in history.names()
        assert "binary_accuracy" in net.evaluate(stream(ONE_HOT, SEVERAL))
        for first in (ONE_HOT, Y):
            net = classifier()
            with pytest.raises(InvalidInputError, match=r"piece 2.*set network\.multilabel = True before training"):
                net.fit(stream(first, SEVERAL), **OPTIONS)
            net.multilabel = True
            assert "binary_accuracy" in net.fit(stream(first, SEVERAL), **OPTIONS).names()

    def test_the_attribute_is_checked(self):
        net = classifier()
        with pytest.raises(InvalidInputError, match="multilabel must be True or False, received 'yes'"):
            net.multilabel = "yes"
