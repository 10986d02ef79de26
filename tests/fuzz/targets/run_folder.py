"""An untrusted run folder: its config.json beside a valid model."""

from __future__ import annotations

import contextlib
import io
import json
import random
from argparse import Namespace
from pathlib import Path

from nnbackend.cli import predict
from nnbackend.cli.options import check_data
from nnbackend.cli.run_folder import MODEL, class_names, dataset_name, find_model
from nnbackend.errors import InvalidInputError
from tests.fuzz.targets.base import CORPUS, Target
from tests.fuzz.targets.networks import described
from tests.fuzz.trees import change, to_text

__all__ = ["RunFolderTarget"]

_WORDS = [
    "dataset",
    "classes",
    "mnist",
    "auto",
    "fashion-mnist",
    "iris",
    "0",
    "\x1b]0;title\x07",
    "a\nb",
    "model",
    "test",
]


class RunFolderTarget(Target):
    """The parts that `nnbackend predict` and `nnbackend evaluate` read, and the printed output."""

    name = "run-folder"
    share = 0.25

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._network = described()
        self._network.save(folder / MODEL)
        self._image = str(folder / "image.idx")
        (folder / "image.idx").write_bytes((CORPUS / "idx" / "image").read_bytes())

    def mutate(self, chance: random.Random, data: bytes, other: bytes) -> bytes:
        try:
            return to_text(chance, change(chance, json.loads(data), _WORDS))
        except (ValueError, RecursionError):
            return super().mutate(chance, data, other)

    def run(self, data: bytes) -> None:
        (self.folder / "config.json").write_bytes(data)
        model = find_model(str(self.folder))
        names = class_names(model, self._network)
        assert len(names) == 4
        with contextlib.suppress(InvalidInputError):  # used only by `nnbackend evaluate`
            check_data(dataset_name(model), None)
        given = {"files": [self._image], "invert": False, "json": False, "out": None, "encoding": None}
        options = Namespace(model=str(self.folder), backend="numpy", **given)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            predict.run(options)
        text = printed.getvalue()
        assert all(letter.isprintable() or letter == "\n" for letter in text), "control characters on the terminal"
        assert text.count("\n") == 2
