"""A trained network and some images, for the tests of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.datasets import write_idx
from tests.cli.commands import DIGITS, nnbackend


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run on the small digits, and its output."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    result = nnbackend("train", *DIGITS, "--epochs", "4", "--out", folder)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray[Any, Any]]:
    """Five test digits as PNG files (the first also in other variants) and as one IDX file."""
    picture = pytest.importorskip("PIL.Image", reason="PNG files need pillow")
    folder = tmp_path_factory.mktemp("images")
    pixels = np.round(255 * nn.datasets.load("digits").x_test[:5]).astype(np.uint8).reshape(5, 8, 8)
    for index, image in enumerate(pixels):
        picture.fromarray(image).save(folder / f"{index}.png")
    first = pixels[0]
    picture.fromarray(255 - first).save(folder / "inverted.png")
    ink = np.dstack([np.zeros((8, 8, 3), np.uint8), first])
    picture.fromarray(ink).save(folder / "transparent.png")  # black ink on nothing, as drawing programs save it
    picture.fromarray(first.astype(np.uint16) * 257).save(folder / "deep.png")
    picture.fromarray(np.kron(first, np.ones((2, 2), np.uint8))).save(folder / "large.png")
    write_idx(folder / "five.idx.gz", pixels)
    return folder, pixels
