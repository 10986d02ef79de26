"""Augmented training: the same images on every backend and any number of threads and ranks, and in a resumed run."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.augment import Augmentation, Elastic, Flip, Rotate, Scale, Shift
from nnbackend.backends.image_operations import ImageOperations
from nnbackend.backends.numba import NumbaBackend, executor
from nnbackend.backends.numpy import NumpyBackend
from nnbackend.errors import InvalidInputError
from nnbackend.saving.model_file import read_checkpoint, write_checkpoint
from nnbackend.training.checkpoints.checkpoint import checkpoint_files
from tests.distributed.ranks import run_ranks, worked
from tests.helpers import same_weights
from tests.training.resuming import STEPS, assert_same_end, kept, killed_at, undisturbed

#: One interpolation, then another.
AUGMENT = [Shift(1), Rotate(20), Scale(0.2), Flip(), Elastic(4, 1), Shift((0, 0.5))]
LOSS = "softmax_cross_entropy"

_GENERATOR = np.random.default_rng(0)
IMAGES, LABELS = _GENERATOR.integers(0, 256, (22, 6, 5, 2)).astype(np.uint8), _GENERATOR.integers(0, 3, 22)


class Seen(nn.Layer):
    """Keeps a copy of its input at every step."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, step, x):
        step.call(lambda backend, array: self.batches.append(np.array(backend.to_host(array))), x)
        return x, None

    def backward(self, step, saved, upstream, need_input_gradient):
        return upstream


def network(backend, dtype="float64", first=()):
    layers = [*first, nn.Flatten(), nn.Dense(5, activation="tanh"), nn.Dense(3)]
    return nn.Network(layers, IMAGES.shape[1:], backend=backend, dtype=dtype, seed=2)


def batches_seen(backend, dtype="float64", augment=AUGMENT, x=IMAGES, **options):
    """The batches of two epochs: two of 8 rows and one of 6, each."""
    seen = Seen()
    options = {"y": LABELS, "epochs": 2, "batch_size": 8, "loss": LOSS, **options}
    network(backend, dtype, [seen]).fit(x, augment=augment, **options)
    return seen.batches


@pytest.mark.float64
def test_every_backend_sees_the_same_images(backend):
    expected, seen = batches_seen("numpy"), batches_seen(backend)
    assert [len(batch) for batch in seen] == [8, 8, 6, 8, 8, 6]
    for batch, wanted in zip(seen, expected, strict=True):
        np.testing.assert_allclose(batch, wanted, atol=1e-12)
    plain = batches_seen("numpy", augment=())
    assert all(np.abs(batch - other).max() > 0.1 for batch, other in zip(expected, plain, strict=True))


def test_in_float32_as_well(backend):
    for batch, wanted in zip(batches_seen(backend, "float32"), batches_seen("numpy"), strict=True):
        assert batch.dtype == np.float32
        np.testing.assert_allclose(batch, wanted, atol=1e-5)


def test_pixels_of_any_type_are_the_same(backend):
    pixels = batches_seen(backend, "float32")
    for batch, other in zip(pixels, batches_seen(backend, "float32", x=IMAGES / np.float32(255)), strict=True):
        np.testing.assert_allclose(batch, other, atol=1e-6)


def test_streamed_rows_are_the_same(backend):
    for batch, other in zip(batches_seen(backend), batches_seen(backend, stream=True), strict=True):
        np.testing.assert_array_equal(batch, other)


def test_a_stream_of_batches():
    def pieces(epoch):
        yield IMAGES[:12], LABELS[:12]
        yield IMAGES[12:], LABELS[12:]

    seen = batches_seen("numpy", x=nn.BatchStream(pieces, len(IMAGES)), y=None, shuffle=False)
    expected = batches_seen("numpy", shuffle=False)
    for batch, wanted in zip(seen, expected, strict=True):
        np.testing.assert_array_equal(batch, wanted)


@pytest.mark.float64
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_see_the_images_of_one(backend, size):
    expected = batches_seen(backend)
    shares = worked(run_ranks(size, lambda ranks: batches_seen(backend, communicator=ranks)))
    for batch, *parts in zip(expected, *shares, strict=True):
        np.testing.assert_array_equal(np.concatenate(parts), batch)


def test_the_bits_do_not_depend_on_the_number_of_threads(monkeypatch):
    monkeypatch.setattr(executor, "_SHARED_STEP", 0)
    monkeypatch.setattr(executor, "_SHARED_RUN", 0)
    nets = []
    for threads in (1, 2, 3):
        nets.append(network(NumbaBackend(threads=threads), "float32"))
        nets[-1].fit(IMAGES, LABELS, epochs=2, batch_size=8, loss=LOSS, augment=AUGMENT)
    assert same_weights(nets[0], nets[1])
    assert same_weights(nets[0], nets[2])


def test_the_step_stays_compiled(numba_backend):
    net = network(numba_backend, "float32")
    net.train_on_batch(IMAGES, LABELS, loss=LOSS, augment=AUGMENT)
    assert net.batch_step._executor.name == "compiled"


def flat_network(backend, dtype="float32"):
    """Rows of 12 pixels, which the first layer makes images."""
    layers = [nn.Reshape((3, 4, 1)), nn.Flatten(), nn.Dense(6, activation="relu"), nn.Dense(4)]
    return nn.Network(layers, 12, backend=backend, seed=5, dtype=dtype)


@pytest.mark.parametrize("step", [STEPS - 1, STEPS + 5])
def test_a_killed_run_resumes_bit_for_bit(backend, tmp_path, monkeypatch, step):
    given = {"epochs": 2, "make": flat_network, "augment": AUGMENT}
    expected = undisturbed(backend, **given)
    killed_at(monkeypatch, step, lambda: kept(tmp_path, backend, **given))
    assert_same_end(kept(tmp_path, backend, **given), expected)


@pytest.mark.parametrize(
    ("before", "after"),
    [(AUGMENT, AUGMENT[:-1]), (AUGMENT, ()), ((), AUGMENT), ([Shift(1)], [Shift(1.5)])],
)
def test_another_augmentation_is_another_run(tmp_path, before, after):
    kept(tmp_path, make=flat_network, epochs=1, augment=before)
    with pytest.raises(InvalidInputError, match=r"augment.* there and is .* here"):
        kept(tmp_path, make=flat_network, epochs=2, augment=after)


def test_a_run_of_an_older_version_had_none(tmp_path):
    kept(tmp_path, make=flat_network, epochs=1)
    for path in checkpoint_files(tmp_path):
        saved = read_checkpoint(path)
        del saved.training["settings"]["augment"]
        write_checkpoint(path, saved)
    with pytest.raises(InvalidInputError, match=r"augment.* there and is .* here"):
        kept(tmp_path, make=flat_network, epochs=2, augment=[Flip()])
    assert len(kept(tmp_path, make=flat_network, epochs=2)[1]) == 2


def test_ranks_with_different_augmentations_are_refused():
    def train(ranks):
        return batches_seen("numpy", augment=AUGMENT[: 2 + ranks.rank], communicator=ranks)

    assert all("augment" in str(error) for error in run_ranks(2, train))


def test_flat_rows_that_the_first_layer_makes_images(backend):
    images, flat = network(backend, "float32"), None
    layers = [nn.Reshape((6, 5, 2)), *network("numpy").layers]
    flat = nn.Network(layers, 60, backend=backend, dtype="float32", seed=2, input_scale=1 / 255)
    flat.set_weights(dict(zip(flat.get_weights(), images.get_weights().values(), strict=True)))
    options = {"epochs": 2, "batch_size": 8, "loss": LOSS, "augment": AUGMENT}
    images.fit(IMAGES, LABELS, **options)
    flat.fit(IMAGES.reshape(-1, 60), LABELS, **options)
    for one, other in zip(images.get_weights().values(), flat.get_weights().values(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_grey_images_without_an_axis_of_channels():
    layers = [nn.Flatten(), nn.Dense(3)]
    options = {"epochs": 2, "batch_size": 8, "loss": LOSS, "augment": AUGMENT}
    nets = [nn.Network(layers, shape, backend="numpy", seed=2) for shape in ((6, 10), (6, 10, 1))]
    for net in nets:
        net.fit(IMAGES.reshape(-1, *net.input_shape), LABELS, **options)
    assert same_weights(*nets)


def test_settings_of_zero_are_no_augmentation(backend):
    nets = [network(backend, "float32") for _ in range(3)]
    for net, augment in zip(nets, ((), [Shift(0), Rotate(0), Scale(0), Elastic(0, 1)], Shift(0)), strict=True):
        net.fit(IMAGES, LABELS, epochs=2, batch_size=8, loss=LOSS, augment=augment)
    assert same_weights(nets[0], nets[1])
    assert same_weights(nets[0], nets[2])


def test_one_augmentation_needs_no_list():
    nets = [network("numpy"), network("numpy")]
    for net, augment in zip(nets, (Flip(), (Flip(),)), strict=True):
        net.fit(IMAGES, LABELS, epochs=1, batch_size=8, loss=LOSS, augment=augment)
    assert same_weights(*nets)


def test_evaluations_and_predictions_use_the_images_as_they_are(backend):
    net = network(backend, "float32")
    options = {"epochs": 1, "batch_size": 8, "loss": LOSS, "augment": [Shift(3), Elastic(9, 1)]}
    history = net.fit(IMAGES, LABELS, optimizer=nn.SGD(0.0), validation_data=(IMAGES, LABELS), **options)
    plain = network(backend, "float32")
    plain.fit(IMAGES, LABELS, optimizer=nn.SGD(0.0), epochs=1, batch_size=8, loss=LOSS)
    assert history["val_loss"][-1] == plain.evaluate(IMAGES, LABELS)["loss"]
    assert net.evaluate(IMAGES, LABELS) == plain.evaluate(IMAGES, LABELS)
    np.testing.assert_array_equal(net.predict(IMAGES), plain.predict(IMAGES))
    assert history["loss"][-1] != plain.evaluate(IMAGES, LABELS)["loss"]


@pytest.mark.float64
def test_single_batches(backend):
    """The first step on a batch draws what the first step of `fit` draws; another augmentation is recorded again."""
    expected = batches_seen(backend, shuffle=False)
    seen = Seen()
    net = network(backend, first=[seen])
    for first in (0, 8):
        net.train_on_batch(IMAGES[first : first + 8], LABELS[first : first + 8], loss=LOSS, augment=AUGMENT)
    np.testing.assert_array_equal(seen.batches, expected[:2])
    step = net.batch_step
    net.train_on_batch(IMAGES[:8], LABELS[:8], augment=AUGMENT)
    assert net.batch_step is step
    net.train_on_batch(IMAGES[:8], LABELS[:8])
    np.testing.assert_array_equal(seen.batches[-1], batches_seen(backend, augment=(), shuffle=False)[0])


class Own(Augmentation):
    changes = True


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ("shift", r"augment must be a list such as \[nn.augment.Shift\(2\), .*\], received 'shift'"),
        (None, r"augment must be a list .*, received None"),
        (Shift, r"augment must be a list .*, received <class 'nnbackend.augment.Shift'>"),
        ({"shift": 2}, r"augment must be a list .*, received {'shift': 2}"),
        ([Shift(1), 2], r"augment must hold Shift, Rotate, Scale, Flip, Elastic of nn.augment, received 2"),
        ([nn.Dropout(0.1)], r"augment must hold Shift, .*, received Dropout\(rate=0.1\)"),
        ([Own()], r"augment must hold Shift, .*, received Own\(\)"),
    ],
)
def test_other_arguments_are_refused(augment, message):
    net = network("numpy")
    before = network("numpy")
    with pytest.raises(InvalidInputError, match=message):
        net.fit(IMAGES, LABELS, loss=LOSS, augment=augment)
    with pytest.raises(InvalidInputError, match=message):
        net.train_on_batch(IMAGES, LABELS, loss=LOSS, augment=augment)
    assert same_weights(net, before)
    assert net.steps_trained == 0
    assert net.loss is None


@pytest.mark.parametrize("shape", [(784,), (2, 3, 4, 5)])
def test_samples_that_are_no_images_are_refused(shape):
    net = nn.Network([nn.Flatten(), nn.Dense(3)], shape, backend="numpy")
    message = r"augment needs images, but a sample of this network has the shape .*\(28, 28, 1\) and nn.Flatten\(\) as"
    with pytest.raises(InvalidInputError, match=message):
        net.fit(np.zeros((4, *shape)), np.zeros(4, int), loss=LOSS, augment=[Flip()])
    assert net.loss is None


@pytest.mark.parametrize("first", [lambda: nn.Conv1D(2, 3), lambda: nn.Residual([nn.Conv1D(2, 3, padding="same")])])
def test_sequences_are_no_images(first):
    net = nn.Network([first(), nn.Flatten(), nn.Dense(3)], (9, 2), backend="numpy")
    with pytest.raises(InvalidInputError, match=r"augment needs images, but a sample .* has the shape \(9, 2\)"):
        net.fit(np.zeros((4, 9, 2)), np.zeros(4, int), loss=LOSS, augment=[Flip()])


def test_a_backend_without_the_operations_is_refused():
    class Lacking(NumpyBackend):
        name = "lacking"
        resample = ImageOperations.resample

    net = network(Lacking())
    with pytest.raises(InvalidInputError, match=r"backend 'lacking' has no operation 'resample'.*use backend='numpy'"):
        net.fit(IMAGES, LABELS, loss=LOSS, augment=AUGMENT)
    assert net.loss is None
    assert same_weights(net, network("numpy"))
    net.fit(IMAGES, LABELS, loss=LOSS, epochs=1)
