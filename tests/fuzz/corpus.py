"""The valid inputs from which mutated ones are made; ``python -m tests.fuzz.corpus`` regenerates them."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image, PngImagePlugin

import nnbackend as nn
from nnbackend.datasets import write_idx
from nnbackend.saving.model_file import read_checkpoint, write_checkpoint
from tests.fuzz.targets.base import CORPUS
from tests.fuzz.targets.checkpoint import NAME, go_on
from tests.fuzz.targets.networks import described


def _folder(name: str) -> Path:
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value) + "\n")


def _idx(generator: np.random.Generator) -> None:
    folder = _folder("idx")
    write_idx(folder / "image", generator.integers(0, 256, (1, 3, 4)).astype(np.uint8))
    write_idx(folder / "image-8.gz", generator.integers(0, 256, (1, 8, 8)).astype(np.uint8))
    write_idx(folder / "labels", np.arange(10).astype(np.uint8))
    write_idx(folder / "numbers", generator.normal(size=(2, 64)))
    write_idx(folder / "short", np.arange(-3, 3, dtype=np.int16).reshape(1, 2, 3, 1))
    (folder / "members.gz").write_bytes(
        b"".join(gzip.compress(part, mtime=0) for part in (b"\0\0\x08\x01", b"\0\0\0\2ab"))
    )
    good = (folder / "labels").read_bytes()
    (_folder("mnist") / "labels").write_bytes(b"\1" + good[:7] + b"\6" + good[8:14])


def _tables(generator: np.random.Generator) -> None:
    folder = _folder("tables")
    numbers = generator.normal(size=20)
    rows = [f"{number:.2f},{letter},{number > 0}" for number, letter in zip(numbers, "abcd" * 5, strict=True)]
    (folder / "comma.csv").write_text("\n".join(["price,letter,yes", *rows, "?,,"]) + "\n")
    (folder / "semicolon.csv").write_bytes('a;"b;c"\r\n1;"x ""y"""\r\n2;NA\r\n'.encode("utf-16"))
    numbers, letters = generator.normal(size=(3, 2)), np.array(["a", "b", "c"])
    np.savez(folder / "plain.npz", x=numbers, y=letters)
    np.savez_compressed(folder / "packed.npz", x=np.zeros((50, 3), np.int16), y=np.arange(50) % 2 == 0)


def _networks(generator: np.random.Generator) -> None:
    network = described()
    small = nn.Network([nn.Dense(2, activation="relu"), nn.Dense(1)], 3, backend="numpy", dtype="float64")
    bare = nn.Network([nn.Flatten()], (2, 2), backend="numpy")
    given = {"layers": [{"kind": "dense", "units": 2, "weight_initializer": [[1, 2]]}], "input_shape": 1}
    for name, net in (("rich", network), ("small", small), ("bare", bare)):
        net.save(_folder("model") / f"{name}.safetensors")
        _json(_folder("config") / f"{name}.json", net.config())
    twins = [nn.Network([nn.Dense(2)], 3, backend="numpy", seed=seed) for seed in range(2)]
    nn.Ensemble(twins).save(_folder("ensemble") / "twins.safetensors")
    _json(_folder("config") / "given.json", given)
    run = {"dataset": "mnist", "backend": "numpy", "classes": ["zero", "one", "two", "three"], "epochs": 3}
    _json(_folder("run-folder") / "config.json", run)


def _checkpoint() -> None:
    with tempfile.TemporaryDirectory() as folder:
        go_on(Path(folder))
        contents = read_checkpoint(Path(folder) / NAME)
    # The only value that differs between runs.
    contents.training["seconds"] = 0.5
    for metrics in contents.training["history"]["epochs"]:
        metrics["seconds"] = 1.0
    write_checkpoint(_folder("checkpoint") / NAME, contents)


def _images(generator: np.random.Generator) -> None:
    folder = _folder("image")
    grey = Image.fromarray(generator.integers(0, 256, (8, 8)).astype(np.uint8))
    words = PngImagePlugin.PngInfo()
    words.add_text("title", "eight", zip=True)
    grey.save(folder / "grey.png", pnginfo=words)
    grey.convert("RGBA").save(folder / "colour.png")
    grey.convert("P").save(folder / "palette.png", transparency=3)
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / "deep.png")
    grey.convert("1").save(folder / "bits.png")
    grey.convert("RGB").save(folder / "photo.jpg")
    for suffix in ("bmp", "gif", "tif", "webp", "pgm", "tga", "ico", "eps", "pcx", "jp2", "dds", "psd"):
        try:
            grey.save(folder / f"grey.{suffix}")
        except (OSError, KeyError, ValueError):
            (folder / f"grey.{suffix}").unlink(missing_ok=True)


def _rows(generator: np.random.Generator) -> None:
    folder = _folder("rows")
    x = generator.normal(size=(5, 12)).astype(np.float32)
    np.save(folder / "real.npy", x)
    np.save(folder / "bytes.npy", generator.integers(0, 256, (5, 12)).astype(np.uint8))
    for name, options in (("plain", {}), ("packed", {"chunks": (2, 12), "compression": "gzip", "shuffle": True})):
        with h5py.File(folder / f"{name}.h5", "w", track_order=True) as file:
            file.create_dataset("x", data=x, **options)


def _page() -> None:
    folder = _folder("page")
    headers = [["host", "127.0.0.1:8123"], ["content-type", "application/json"]]
    strokes = [[[0.5, 0.1], [0.45, 0.5], [0.4, 0.9]], [[0.2, 0.2]]]
    wish = {"backend": "numpy", "preset": "784-40-10", "learning_rate": 0.1, "epochs": 2}
    requests = {
        "look": ("POST", "/api/look", {"strokes": strokes}),
        "train": ("POST", "/api/training", wish),
        "stop": ("DELETE", "/api/training", {}),
        "adopt": ("POST", "/api/model", {}),
        "describe": ("GET", "/api/page", None),
        "events": ("GET", "/api/training/events", None),
        "image": ("GET", "/api/test-images/3", None),
        "file": ("GET", "/app.js", None),
    }
    for name, (method, path, body) in requests.items():
        _json(folder / f"{name}.json", {"method": method, "path": path, "headers": headers, "body": body})


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    _idx(generator)
    _networks(generator)
    _checkpoint()
    _images(generator)
    _rows(generator)
    _page()
    _tables(np.random.default_rng(1))
