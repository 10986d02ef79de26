"""Images and weights: tiles, captions, colours and invalid arguments."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from nnbackend.plotting import plot_feature_maps, plot_images, plot_kernels, plot_misclassified, plot_weights
from nnbackend.plotting.figures import _path_width
from tests.plotting.drawn import assert_inside, assert_no_overlap, assert_readable, texts_of

pytest.importorskip("matplotlib", reason="pictures need matplotlib")

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 64), dtype=np.uint8)
LONG_NAMES = [f"quite a long name {index}" for index in range(10)]


def _tiles(ax: Any) -> list[Any]:
    return [np.asarray(image.get_array()) for image in ax.images]


def _captions(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.texts]


def _places(ax: Any) -> list[tuple[float, float]]:
    """Left and upper ends of the tiles; y runs downwards."""
    return [(image.get_extent()[0], image.get_extent()[3]) for image in ax.images]


def _axes(width: float = 6.4, height: float = 4.8) -> Any:
    from matplotlib.figure import Figure

    return Figure((width, height)).subplots()


def test_every_image_is_a_tile_with_its_title_below() -> None:
    ax = plot_images(IMAGES[:7], titles=range(7), columns=3)
    np.testing.assert_array_equal(_tiles(ax), IMAGES[:7].reshape(7, 8, 8))
    assert _captions(ax) == [str(index) for index in range(7)]
    places = _places(ax)
    assert [len(set(ends)) for ends in zip(*places, strict=True)] == [3, 3]  # columns, rows
    assert places == sorted(places, key=lambda place: (place[1], place[0]))
    for image, text in zip(ax.images, ax.texts, strict=True):
        left, right, bottom, top = image.get_extent()
        x, y = text.get_position()
        assert x == pytest.approx((left + right) / 2)
        assert y > bottom > top
    assert ax.figure.axes == [ax]
    assert not ax.axison


def test_a_single_channel_may_have_an_axis() -> None:
    images = IMAGES.reshape(-1, 8, 8, 1)
    np.testing.assert_array_equal(_tiles(plot_images(images[:7])), images[:7, ..., 0])
    wrong = plot_misclassified(images[:3], [0, 1, 1], [0, 0, 0])
    np.testing.assert_array_equal(_tiles(wrong), images[1:3, ..., 0])
    with pytest.raises(InvalidInputError, match=r"images must be grey, .* received shape \(2, 8, 8, 3\)"):
        plot_images(np.zeros((2, 8, 8, 3)))


def test_tiles_do_not_overlap_and_are_all_seen() -> None:
    ax = plot_images(np.ones((10, 20, 9)))
    extents = [image.get_extent() for image in ax.images]
    for one, other in itertools.combinations(extents, 2):
        assert one[1] < other[0] or other[1] < one[0] or one[2] < other[3] or other[2] < one[3]
    assert all(right - left == pytest.approx((bottom - top) * 9 / 20) for left, right, bottom, top in extents)
    assert ax.get_xlim()[0] <= min(extent[0] for extent in extents)
    assert ax.get_xlim()[1] >= max(extent[1] for extent in extents)
    assert ax.get_ylim()[0] >= max(extent[2] for extent in extents)
    assert ax.get_aspect() == 1


def test_all_images_share_one_scale_of_grey() -> None:
    ax = plot_images([[0, 0, 0, 100], [0, 0, 0, 200]])
    assert [image.get_clim() for image in ax.images] == [(0, 200)] * 2
    assert ax.images[0].cmap(0.0)[:3] == (0, 0, 0)
    assert ax.images[0].cmap(1.0)[:3] == (1, 1, 1)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32", "longdouble"])
def test_images_of_any_numbers_are_drawn(dtype: str) -> None:
    ax = plot_images((IMAGES[:2] % 2).astype(dtype))
    np.testing.assert_array_equal(_tiles(ax), (IMAGES[:2] % 2).reshape(2, 8, 8))
    assert_inside(ax.figure, texts_of(ax))  # draws it


def test_the_callers_axes_are_drawn_on() -> None:
    ax = _axes()
    assert plot_images(IMAGES, ax=ax) is ax
    ax = _axes()
    assert plot_misclassified(IMAGES, np.ones(30), np.zeros(30), ax=ax) is ax
    ax = _axes()
    assert plot_misclassified(IMAGES, np.ones(30), np.ones(30), ax=ax) is ax
    ax = _axes()
    assert plot_weights(np.eye(9), ax=ax) is ax


def test_the_wrong_ones_are_shown_with_both_classes() -> None:
    true = np.arange(30) % 10
    predicted = true.copy()
    predicted[[3, 8, 20]] = [5, 1, 9]
    ax = plot_misclassified(IMAGES, true, predicted)
    np.testing.assert_array_equal(_tiles(ax), IMAGES[[3, 8, 20]].reshape(3, 8, 8))
    assert _captions(ax) == ["3, taken for 5", "8, taken for 1", "0, taken for 9"]
    assert ax.get_title() == "3 of 30 wrong (10.00 %)"
    assert_readable(ax)


def test_the_number_shown_is_limited_and_in_the_title() -> None:
    ax = plot_misclassified(IMAGES, np.zeros(30), np.ones(30), ["cat", "dog"], most=4)
    assert _captions(ax) == ["cat,\ntaken for dog"] * 4
    np.testing.assert_array_equal(_tiles(ax), IMAGES[:4].reshape(4, 8, 8))
    assert ax.get_title() == "30 of 30 wrong (100.00 %)\nthe first 4"
    assert len(plot_misclassified(IMAGES, np.zeros(30), np.ones(30)).images) == 24


def test_no_misclassified_image_gives_a_note() -> None:
    ax = plot_misclassified(IMAGES, np.zeros(30), np.zeros(30))
    assert _captions(ax) == ["all 30 are correct"]
    assert ax.get_title() == "0 of 30 wrong (0.00 %)"
    assert not ax.images
    assert_readable(ax)


@pytest.mark.parametrize("text", ["true 3, predicted 6", LONG_NAMES[0], "éßΩ,;:!?@%&()[]{}"])
def test_widths_of_texts_are_those_of_matplotlib(text: str) -> None:
    from matplotlib.textpath import TextPath

    path = TextPath((0, 0), text, size=9)
    assert _path_width(path) == pytest.approx(path.get_extents().width, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("names", [None, LONG_NAMES, ["Supercalifragilisticexpialidocious"] * 10])
@pytest.mark.parametrize("size", [None, (6.4, 4.8), (3, 6)])
@pytest.mark.parametrize("count", [1, 24])
def test_captions_do_not_overlap(names: Any, size: Any, count: int) -> None:
    true = np.arange(30) % 10
    ax = plot_misclassified(IMAGES, true, (true + 3) % 10, names, ax=None if size is None else _axes(*size), most=count)
    assert len(ax.texts) == count
    if size is None:
        assert_readable(ax)
        assert ax.texts[0].get_fontsize() == 9
    else:
        assert_no_overlap(ax.figure, ax.texts)


def test_units_are_tiles_of_their_weights() -> None:
    weights = np.random.default_rng(0).normal(size=(12, 5))
    ax = plot_weights(weights, shape=(3, 4), most=4)
    np.testing.assert_allclose(_tiles(ax), weights[:, :4].T.reshape(4, 3, 4))
    assert ax.get_title() == "the first 4 of 5 units\n3 x 4 inputs each"
    assert plot_weights(weights, shape=(3, 4)).get_title() == "5 units\n3 x 4 inputs each"
    assert len(plot_weights(np.ones((4, 50))).images) == 40


def test_colours_of_weights_are_symmetrical_about_zero() -> None:
    ax = plot_weights(np.array([[-3.0, 1], [0, 0], [0, 0], [0, 2]]))
    assert [image.get_clim() for image in ax.images] == [(-3, 3)] * 2
    low, middle, high = ax.images[0].cmap([0.0, 0.5, 1.0])[:, :3]
    assert middle.min() > 0.95  # zero is nearly white
    assert low[2] > low[0]  # below is blue
    assert high[0] > high[2]  # above is red
    bar = ax.images[0].colorbar
    assert bar.ax.get_ylabel() == "weight"
    assert bar.extend == "neither"
    assert_readable(ax)


def test_single_large_weights_do_not_make_the_others_pale() -> None:
    weights = np.ones((100, 10))
    weights[0, 0] = 1000
    ax = plot_weights(weights)
    assert ax.images[0].get_clim() == (-1, 1)
    assert ax.images[0].colorbar.extend == "both"  # says that there are larger ones
    assert plot_weights(np.zeros((4, 2))).images[0].get_clim() == (-1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-5, 0.05, 1.0, 1e4])
@pytest.mark.parametrize("units", [1, 40])
def test_the_colour_bar_is_inside_the_picture(units: int, scale: float) -> None:
    ax = plot_weights(scale * np.random.default_rng(0).normal(size=(784, units)))
    assert_readable(ax)
    bar = ax.images[0].colorbar.ax
    assert_no_overlap(ax.figure, [*texts_of(ax), *texts_of(bar), bar.yaxis.get_offset_text()])
    assert_inside(ax.figure, texts_of(bar))


def test_a_network_shows_its_first_dense_layer() -> None:
    network = nn.Network([nn.Dropout(0.1), nn.Dense(3), nn.Dense(9)], 16, backend="numpy")
    weights = network.get_weights()["layers.1.weight"]
    np.testing.assert_array_equal(_tiles(plot_weights(network)), weights.T.reshape(3, 4, 4))


def _convolutional(activation: str = "relu") -> nn.Network:
    layers = [
        nn.Reshape((6, 6, 1)),
        nn.Conv2D(3, 3, activation=activation),
        nn.MaxPool2D(2),
        nn.Conv2D(4, 2),
        nn.Flatten(),
        nn.Dense(2),
    ]
    return nn.Network(layers, 36, backend="numpy", seed=0, input_scale=1 / 255)


def test_kernels_of_one_channel_are_tiles() -> None:
    network = _convolutional()
    kernels = network.get_weights()["layers.1.weight"]
    for ax in (plot_kernels(network), plot_kernels(kernels)):
        np.testing.assert_allclose(_tiles(ax), kernels[:, :, 0].transpose(2, 0, 1))
        assert ax.get_title() == "3 filters of 3 x 3"
        assert ax.images[0].colorbar.ax.get_ylabel() == "weight"
        assert_readable(ax)


def test_kernels_of_several_channels_are_in_a_row_for_each_filter() -> None:
    network = _convolutional()
    kernels = network.get_weights()["layers.3.weight"]
    ax = plot_kernels(network, 3, most=7)
    np.testing.assert_allclose(_tiles(ax)[4], kernels[:, :, 1, 1])
    assert len(ax.images) == 6
    assert ax.get_title() == "the first 2 of 4 filters of 2 x 2\na row for each, 3 channels"
    assert len({place[1] for place in _places(ax)}) == 2
    assert plot_kernels(network, 3, most=2).get_title().endswith("a row for each, the first 2 of 3 channels")
    assert_readable(ax)


def test_feature_maps_are_the_outputs_of_a_layer() -> None:
    network, x = _convolutional(), np.random.default_rng(0).integers(0, 255, 36).astype(np.uint8)
    first = nn.Network(network.layers[:2], 36, backend="numpy", weights_from=network)
    maps = first.predict(x[None])[0]
    for sample in (x, x[None]):
        ax = plot_feature_maps(network, sample)
        np.testing.assert_array_equal(_tiles(ax), maps.transpose(2, 0, 1))
    assert ax.get_title() == "layers[1], Conv2D\n3 maps of 4 x 4"
    assert ax.images[0].get_clim() == (0, maps.max())
    pooled = plot_feature_maps(network, x, layer=2, most=2)
    np.testing.assert_array_equal(_tiles(pooled)[1], maps[..., 1].reshape(2, 2, 2, 2).max(axis=(1, 3)))
    assert pooled.get_title() == "layers[2], MaxPool2D\nthe first 2 of 3 maps of 2 x 2"
    signed = plot_feature_maps(network, x, layer=3)
    low, high = signed.images[0].get_clim()
    assert low == -high
    assert_readable(signed)


def test_feature_maps_of_a_flat_sample() -> None:
    network, image = nn.Network([nn.Conv2D(2, 3)], (6, 6, 1), backend="numpy", seed=0), np.arange(36.0)
    expected = network.predict(image.reshape(1, 6, 6, 1))[0].transpose(2, 0, 1)
    for sample in (image, image[None], image.reshape(6, 6, 1)):
        np.testing.assert_array_equal(_tiles(plot_feature_maps(network, sample)), expected)
    with pytest.raises(InvalidInputError, match=r"one sample of shape \(6, 6, 1\), received \(6, 6\)"):
        plot_feature_maps(network, image.reshape(6, 6))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda ax: plot_kernels(np.ones((3, 3, 2)), ax=ax),
            r"\(height, width, channels, filters\), received \(3, 3, 2",
        ),
        (lambda ax: plot_kernels(np.ones((3, 3, 1, 2)), layer=1, ax=ax), "give the network instead"),
        (lambda ax: plot_kernels(np.full((1, 1, 1, 2), np.nan), ax=ax), "weights contain 2 NaN"),
        (lambda ax: plot_kernels(_convolutional(), layer=2, ax=ax), r"layers\[2\] is MaxPool2D\(2\), .*no kernels"),
        (lambda ax: plot_kernels(_convolutional(), layer=9, ax=ax), "has 6 layers, received layer=9"),
        (lambda ax: plot_kernels(nn.Network([nn.Dense(2)], 4, backend="numpy"), ax=ax), "no Conv2D"),
        (lambda ax: plot_feature_maps(_convolutional(), np.ones(36), layer=4, ax=ax), r"has the shape \(4,\); choose"),
        (lambda ax: plot_feature_maps(_convolutional(), np.ones((2, 36)), ax=ax), r"received \(2, 36\); choose one: x"),
        (lambda ax: plot_images(np.ones((3, 10)), ax=ax), r"rows of square images, received shape \(3, 10\)"),
        (lambda ax: plot_images(np.ones((3, 4, 4, 3)), ax=ax), "images must be grey"),
        (lambda ax: plot_images(np.ones(16), ax=ax), "images must be grey"),
        (lambda ax: plot_images(np.ones((0, 16)), ax=ax), "no images"),
        (lambda ax: plot_images([["a"]], ax=ax), "images must hold numbers"),
        (lambda ax: plot_images(np.full((2, 4), np.nan), ax=ax), "images contain 8 NaN"),
        (lambda ax: plot_images(IMAGES, titles=["one"], ax=ax), "30 images, received 1 titles"),
        (lambda ax: plot_images(IMAGES, columns=0, ax=ax), "columns must be"),
        (lambda ax: plot_misclassified(IMAGES[:, :10], np.ones(30), np.ones(30), ax=ax), "images must be grey"),
        (lambda ax: plot_misclassified(IMAGES, np.ones(29), np.ones(29), ax=ax), "true must be 30 class indices"),
        (lambda ax: plot_misclassified(IMAGES, np.ones(30), np.ones(3), ax=ax), "predicted must be 30 class indices"),
        (lambda ax: plot_misclassified(IMAGES, np.ones(30), np.ones((30, 2)), ax=ax), r"predicted.argmax\(axis=1\)"),
        (lambda ax: plot_misclassified(IMAGES, np.ones(30), np.zeros(30), ["a"], ax=ax), "2 classes, received 1 names"),
        (lambda ax: plot_misclassified(IMAGES, np.ones(30), np.zeros(30), ax=ax, most=0), "most must be"),
        (
            lambda ax: plot_weights(np.ones((10, 3)), ax=ax),
            r"10 inputs do not form a square image; give shape=\(height, wid",
        ),
        (lambda ax: plot_weights(np.ones((10, 3)), (2, 4), ax), r"product 10.*received \(2, 4\)"),
        (lambda ax: plot_weights(np.ones((10, 3)), (10,), ax), "product 10"),
        (lambda ax: plot_weights(np.ones((10, 3)), "2x5", ax), "shape must be"),
        (lambda ax: plot_weights(np.ones(9), ax=ax), r"\(inputs, units\) matrix, received shape \(9,\)"),
        (lambda ax: plot_weights(np.full((9, 2), np.inf), ax=ax), "weights contain 18 NaN or infinite"),
        (lambda ax: plot_weights(np.ones((9, 2)), ax=ax, most=0), "most must be"),
        (
            lambda ax: plot_weights(nn.Network([nn.Activation("relu")], 4, backend="numpy"), ax=ax),
            "no dense layer",
        ),
    ],
)
def test_wrong_images_are_rejected_before_anything_is_drawn(call: Any, message: str) -> None:
    ax = _axes()
    with pytest.raises(InvalidInputError, match=message):
        call(ax)
    assert not ax.has_data()
    assert not ax.texts
