"""Settings of random transformations of images, and what they do to an image."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.augment import Elastic, Flip, Rotate, Scale, Shift, parse_augmentations, resamplings
from nnbackend.backends.philox import block_words
from nnbackend.errors import InvalidAttributeError, InvalidInputError, UnknownNameError

SEED, STEP = 2**40 + 7, 5
COUNTER = np.array([0, STEP, 0], np.int64)
IMAGE = np.random.default_rng(0).normal(size=(1, 6, 6, 1))

WRONG = [
    (lambda: Shift(-1), r"pixels must be at least 0, received -1"),
    (lambda: Shift(math.nan), r"pixels must be a finite number, received nan"),
    (lambda: Shift((1, -2)), r"pixels must be at least 0, received -2"),
    (lambda: Shift((1, 2, 3)), r"pixels must be one number or two, received \(1, 2, 3\)"),
    (lambda: Shift("2"), r"pixels must be a finite number, received '2'"),
    (lambda: Shift(True), r"pixels must be a finite number, received True"),
    (lambda: Rotate(-5), r"degrees must be at least 0, received -5"),
    (lambda: Rotate(math.inf), r"degrees must be a finite number, received inf"),
    (lambda: Scale(1), r"factor must be in \[0, 1\), received 1"),
    (lambda: Scale(-0.1), r"factor must be in \[0, 1\), received -0.1"),
    (lambda: Scale((1.2, 0.8)), r"the two factors must be above 0, the smaller one first, received \(1.2, 0.8\)"),
    (lambda: Scale((0, 1)), r"the two factors must be above 0, the smaller one first, received \(0, 1\)"),
    (lambda: Elastic(34, 0), r"sigma must be above 0, received 0"),
    (lambda: Elastic(34, -4), r"sigma must be above 0, received -4"),
    (lambda: Elastic(-1, 4), r"alpha must be at least 0, received -1"),
    (lambda: Elastic(math.nan, 4), r"alpha must be a finite number, received nan"),
    (lambda: Flip("diagonal"), r"unknown mode 'diagonal'"),
    (lambda: Flip(1), r"unknown mode 1"),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_wrong_settings_are_refused(make, message):
    with pytest.raises((InvalidInputError, UnknownNameError), match=message):
        make()


ALL = [Shift(2), Shift((0, 1.5)), Rotate(10), Scale(0.1), Scale((0.5, 1)), Flip(), Flip("vertical"), Elastic(34, 4)]


@pytest.mark.parametrize("augmentation", ALL, ids=repr)
def test_a_copy_a_pickle_and_the_repr_are_the_same(augmentation):
    assert pickle.loads(pickle.dumps(augmentation)) == augmentation
    assert copy.deepcopy(augmentation) == augmentation
    assert eval(repr(augmentation), vars(nn.augment)) == augmentation
    assert len({augmentation, *ALL}) == len(ALL)
    name = next(iter(vars(augmentation)))
    with pytest.raises(InvalidAttributeError, match="cannot be changed"):
        setattr(augmentation, name, 1)


def test_settings_of_zero_change_nothing():
    assert resamplings([Shift(0), Rotate(0), Scale(0), Scale((1, 1)), Elastic(0, 4), Shift((0, 0))]) == []


def test_affine_transformations_and_the_elastic_one_after_them_are_one_resampling():
    elastic = Elastic(34, 4)
    groups = resamplings([Shift(2), Rotate(0), Flip(), elastic, elastic, Scale(0.1)])
    last = 2**32 - 1
    assert [([row[3] for row in chain], given, stream) for chain, given, stream in groups] == [
        ([last, last - 2], elastic, last - 3),
        ([], elastic, last - 4),
        ([last - 5], None, 0),
    ]


def transformed(backend, chain, image=IMAGE, count=1, first_row=0):
    """The images that a chain makes of an image; `chain` has the parameters of TRANSFORMATIONS by their numbers."""
    x = np.repeat(image, count, axis=0)
    transforms = backend.empty((count, 6), np.float64)
    numbers = backend.from_host(np.array(chain, np.float64))
    backend.draw_transforms(numbers, *x.shape[1:3], SEED, backend.from_host(COUNTER), transforms, first_row)
    out = backend.empty(x.shape, np.float64)
    backend.resample(backend.from_host(x), transforms, None, out)
    return backend.to_host(out)


def drawn(stream, row=0):
    """The two numbers from 0 to 1 that a transformation draws for a row."""
    return block_words(np.array([row], np.uint64), SEED, stream, STEP)[0, :2] / 2**32


@pytest.mark.float64
def test_a_quarter_turn_and_whole_pixels(backend):
    """With settings that make the drawn numbers a quarter turn, a shift down by 2 and left by 1, and a factor of 2."""
    u, v = drawn(stream=3)
    turn = (1, math.pi / 2 / (2 * u - 1), 0, 3)
    shift = (0, 2 / (2 * u - 1), -1 / (2 * v - 1), 3)
    turned = np.rot90(IMAGE, 1, (1, 2))
    np.testing.assert_allclose(transformed(backend, [turn]), turned, atol=1e-12)
    shifted = np.zeros_like(IMAGE)
    shifted[:, 2:, :-1] = IMAGE[:, :-2, 1:]
    np.testing.assert_allclose(transformed(backend, [shift]), shifted, atol=1e-12)
    # First the turn, then the shift, in one interpolation.
    shifted[:, 2:, :-1] = turned[:, :-2, 1:]
    np.testing.assert_allclose(transformed(backend, [turn, shift]), shifted, atol=1e-12)
    np.testing.assert_allclose(transformed(backend, [(3, 1.0, 0, 3)]), IMAGE[:, :, ::-1], atol=1e-12)
    np.testing.assert_allclose(transformed(backend, [(4, 1.0, 0, 3)]), IMAGE[:, ::-1], atol=1e-12)


@pytest.mark.float64
def test_a_factor_above_one_enlarges(backend):
    small = np.zeros((1, 9, 9, 1))
    small[:, 3:6, 3:6] = 1
    enlarged = transformed(backend, [(2, 2.0, 2.0, 0)], small)[0, :, :, 0]
    # Each pixel of the original covers two, and lines between pixels are interpolated.
    line = np.array([0, 0.5, 1, 1, 1, 1, 1, 0.5, 0])
    np.testing.assert_allclose(enlarged, np.outer(line, line), atol=1e-12)


@pytest.mark.float64
def test_every_image_is_transformed_in_its_own_way(backend):
    chain = [(0, 1.0, 1.0, 5), (1, 0.3, 0, 4)]
    images = transformed(backend, chain, count=5)
    assert len({image.tobytes() for image in images}) == 5
    np.testing.assert_array_equal(transformed(backend, chain, count=3, first_row=2), images[2:])


def test_draws_are_uniform():
    """Means and standard deviations of many draws; a flip of every second image."""
    backend, count = nn.NumpyBackend(), 20_000
    out = np.empty((count, 6))
    backend.draw_transforms(np.array([[0, 3, 5, 1]], np.float64), 28, 28, 1, COUNTER, out)
    for column, most in ((2, 3), (5, 5)):
        assert abs(out[:, column].mean()) < 0.03 * most
        assert out[:, column].std() == pytest.approx(most / math.sqrt(3), rel=0.02)
        assert np.abs(out[:, column]).max() <= most
    backend.draw_transforms(np.array([[2, 0.8, 1.3, 1]], np.float64), 28, 28, 1, COUNTER, out)
    assert (1 / out[:, 0]).mean() == pytest.approx(1.05, abs=0.01)
    assert (1 / out[:, 0]).min() >= 0.8
    assert (1 / out[:, 0]).max() <= 1.3
    backend.draw_transforms(np.array([[3, 0.5, 0, 1]], np.float64), 28, 28, 1, COUNTER, out)
    assert (out[:, 4] < 0).mean() == pytest.approx(0.5, abs=0.02)


def smoothed(noise, kernel):
    """The sum in two dimensions, pixel by pixel."""
    height, width = noise.shape
    radius = len(kernel) // 2
    result = np.zeros_like(noise)
    for y in range(height):
        for x in range(width):
            for i in range(max(0, y - radius), min(height, y + radius + 1)):
                for j in range(max(0, x - radius), min(width, x + radius + 1)):
                    result[y, x] += kernel[i - y + radius] * kernel[j - x + radius] * noise[i, j]
    return result


@pytest.mark.float64
def test_displacements_are_smoothed_noise(backend):
    kernel = Elastic(3, 1.2).kernel(9)
    assert kernel.sum() == pytest.approx(1)
    assert len(kernel) == 2 * 4 + 1
    fields = backend.empty((2, 7, 9, 2), np.float64)
    backend.draw_displacements(backend.from_host(kernel), 3.0, SEED, 9, backend.from_host(COUNTER), fields, 4)
    blocks = np.arange(1000, dtype=np.uint64)
    noise = block_words(blocks, SEED, 9, STEP).reshape(-1)[4 * 126 : 6 * 126].reshape(2, 7, 9, 2) / 2**31 - 1.0
    for image, field in zip(noise, backend.to_host(fields), strict=True):
        for axis in (0, 1):
            np.testing.assert_allclose(field[..., axis], 3 * smoothed(image[..., axis], kernel), atol=1e-12)


def test_displacements_have_the_documented_size():
    elastic = Elastic(34, 4)
    fields = np.empty((100, 60, 60, 2))
    nn.NumpyBackend().draw_displacements(elastic.kernel(60), elastic.alpha, SEED, 0, COUNTER, fields)
    inner = fields[:, 15:-15, 15:-15]
    assert inner.std() == pytest.approx(0.163 * 34 / 4, rel=0.03)
    assert abs(inner.mean()) < 0.05
    # Smooth: neighbours are displaced alike.
    assert np.abs(np.diff(inner, axis=2)).mean() < 0.2 * np.abs(inner).mean()


def test_the_widest_and_the_narrowest_gaussian():
    kernel = Elastic(1, 1e308).kernel(3)
    np.testing.assert_allclose(kernel, np.full(7, 1 / 7))
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(Elastic(1, 1e-300).kernel(3), [0, 1, 0])


def test_a_preview_shows_what_a_network_sees():
    x = np.random.default_rng(1).normal(size=(3, 6, 5, 2))
    augment = [Shift(1), Elastic(3, 1), Rotate(20)]
    seen = []

    class Seen(nn.Flatten):
        def forward(self, step, x):
            step.call(lambda backend, array: seen.append(array.copy()), x)
            return super().forward(step, x)

    net = nn.Network([Seen(), nn.Dense(2)], x.shape[1:], backend="numpy", dtype="float64", seed=9)
    for step in range(2):
        net.train_on_batch(x, np.zeros(3, int), loss="softmax_cross_entropy", augment=augment)
        np.testing.assert_allclose(seen[step], nn.augment.preview(x, augment, seed=9, step=step), atol=1e-12)
    np.testing.assert_array_equal(nn.augment.preview(x[..., 0], Flip("vertical"), 1).shape, x.shape[:3])
    for wrong in (x[0, 0], x[:0], 3.0):
        with pytest.raises(InvalidInputError, match=r"x must be images \(n, height, width, channels\)"):
            nn.augment.preview(wrong, augment)


def test_descriptions_as_text():
    text = "shift=2, shift=0:3,rotate=10,scale=0.1,scale=0.8:1.2,flip,flip=vertical,elastic=34:4"
    affine = (Shift(2), Shift((0, 3)), Rotate(10), Scale(0.1), Scale((0.8, 1.2)), Flip(), Flip("vertical"))
    assert parse_augmentations(text) == (*affine, Elastic(34, 4))
    assert parse_augmentations("") == ()
    for wrong, message in (
        ("roate=3", "unknown augmentation 'roate': did you mean 'rotate'"),
        ("shift=two", "augmentation 'shift' takes numbers, received 'two'"),
        ("elastic=34", "'elastic=34' has the wrong number of values"),
        ("shift", "'shift' has the wrong number of values"),
        ("rotate=-3", "degrees must be at least 0"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            parse_augmentations(wrong)
