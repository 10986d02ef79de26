"""Untrusted files and descriptions: a result or one clear error, within limits of time and memory."""

from __future__ import annotations

import gzip
import json
import os
import struct
import threading
import tracemalloc
import zlib
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import nnbackend as nn
from nnbackend.cli import main
from nnbackend.cli.images import read_images
from nnbackend.cli.run_folder import class_names, dataset_name, read_configuration
from nnbackend.cli.text import error_text
from nnbackend.data.rows import as_rows
from nnbackend.datasets import idx, read_idx
from nnbackend.errors import DataError, InvalidInputError, ModelFileError, OutOfMemoryError, UnknownNameError, shown
from nnbackend.layers import check_layers
from nnbackend.losses import get_loss
from nnbackend.saving.model_file import MOST_DESCRIPTION
from nnbackend.step import parameters
from nnbackend.support import checks
from nnbackend.support.files import read_small
from tests.fuzz.targets import TARGETS
from tests.fuzz.trial import try_input, try_inputs
from tests.helpers import classifier

FOUND = Path(__file__).parents[1] / "fuzz" / "found"

#: About a second in total; `python -m tests.fuzz` tries more.
FEW = {"run-folder": 5, "hostile-folder": 20, "rows": 60, "mnist": 60}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(TARGETS))
def test_a_few_broken_inputs_of_every_kind(name: str, tmp_path: Path):
    with closing(TARGETS[name](tmp_path)) as target:
        tally = try_inputs(target, seed=1, enough=lambda done: done >= FEW.get(name, 150))
    assert tally.inputs > 0
    assert not tally.findings, tally.findings[0].what
    assert sum(tally.outcomes.values()) == tally.inputs
    assert len(tally.outcomes) > 1 or name == "run-folder", "all of them ended alike"


@pytest.mark.parametrize("path", sorted(FOUND.glob("*")), ids=lambda path: path.name)
def test_past_findings_are_fixed(path: Path, tmp_path: Path):
    with closing(TARGETS[path.name.rpartition("-")[0]](tmp_path)) as target:
        outcome, _, wrong = try_input(target, path.read_bytes())
    assert wrong is None, f"{outcome}: {wrong!r}"


# ---- descriptions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [10**400, -(10**400), 10**5000], ids=["large", "small", "huge"])
def test_a_number_beyond_all_floats_is_refused(value: int):
    with pytest.raises(InvalidInputError, match="l2 must be a finite number"):
        checks.number("l2", value)
    with pytest.raises(InvalidInputError, match="units must be"):
        nn.Dense(value)
    with pytest.raises(InvalidInputError):
        nn.Network([nn.Flatten()], (value, 2), "numpy")


def test_messages_stay_short_whatever_was_received():
    deep: list = []
    for _ in range(20_000):
        deep = [deep]
    assert shown(deep) == "a value of type list"
    assert shown(10**5000) == "a value of type int"
    assert len(shown("x" * 10**6)) < 250
    for bad in (deep, "x" * 10**6, 10**5000):
        for config in (
            {"layers": bad, "input_shape": 3},
            {"layers": [{"kind": "dense", "units": bad}], "input_shape": 3},
            {"layers": [{"kind": "dense", "units": 2, "activation": bad}], "input_shape": 3},
            {"layers": [{"kind": "flatten"}], "input_shape": bad},
            {"layers": [{"kind": "flatten"}], "input_shape": 3, "dtype": bad},
            {"layers": [{"kind": "flatten"}], "input_shape": 3, "loss": bad},
        ):
            with pytest.raises(InvalidInputError) as error:
                nn.Network.from_config(config, "numpy")
            assert len(str(error.value)) < 900


def test_a_network_larger_than_memory_is_refused_with_its_size(monkeypatch):
    config = {"layers": [{"kind": "dense", "units": 10**7}], "input_shape": 10**8}
    with pytest.raises(
        InvalidInputError, match=r"1,000,000,010,000,000 parameters take 3,725,290\.\d GiB .*layers.0.weight"
    ):
        nn.Network.from_config(config, "numpy")

    # If the system does not report its memory, the allocation fails.
    monkeypatch.setattr(parameters, "machine_memory", lambda: 2**62)
    with pytest.raises(OutOfMemoryError, match=r"it needs weights 4000 TB\. Give fewer units"):
        nn.Network.from_config(config, "numpy")


def test_a_sample_has_a_size_that_can_be_addressed_and_dimensions_that_arrays_can_have():
    with pytest.raises(InvalidInputError, match="larger than any memory"):
        nn.Network([nn.Flatten()], (2**40, 2**40), "numpy")
    with pytest.raises(InvalidInputError, match="1 to 32 dimensions"):
        nn.Network([nn.Flatten()], (1,) * 33, "numpy")


@pytest.mark.parametrize(("key", "limit"), [("steps_trained", 2**48), ("epochs_trained", 2**32)])
def test_counts_leave_room_for_training_on(key: str, limit: int):
    config = {"layers": [{"kind": "dense", "units": 2}], "input_shape": 3}
    with pytest.raises(InvalidInputError, match=f"{key} must be below"):
        nn.Network.from_config({**config, key: limit}, "numpy")
    network = nn.Network.from_config({**config, key: limit - 1}, "numpy")
    x, y = np.ones((4, 3)), np.zeros((4, 2))
    network.fit(x, y, epochs=1, batch_size=2, loss="mean_squared_error", verbose=False)


def test_time_is_linear_in_the_number_of_layers():
    # Comparing all pairs, as an earlier version did, would take minutes.
    layers = [nn.Flatten() for _ in range(30_000)]
    assert len(check_layers(layers)) == 30_000


# ---- model files -------------------------------------------------------------------------------------------------


def saved(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the metadata of a valid file."""
    network = nn.Network([nn.Dense(2)], 3, "numpy")
    network.save(path)
    return load_file(path), {"nnbackend": json.dumps({"format": 1, **network.config()})}


@pytest.mark.parametrize("dtype", ["int8", "float16", "float64", "bool"])
def test_arrays_of_another_dtype_are_no_weights(tmp_path: Path, dtype: str):
    path = tmp_path / "model.safetensors"
    arrays, metadata = saved(path)
    save_file({**arrays, "layers.0.bias": arrays["layers.0.bias"].astype(dtype)}, path, metadata)
    with pytest.raises(ModelFileError, match=f"layers.0.bias has dtype {dtype}, but the network has float32"):
        nn.Network.load(path, "numpy")


def test_a_description_of_any_length_is_not_read(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    arrays, metadata = saved(path)
    description = metadata["nnbackend"][:-1] + ', "layers": [' + "[]," * (MOST_DESCRIPTION // 3) + "1]}"
    save_file(arrays, path, {"nnbackend": description})
    tracemalloc.start()
    try:
        with pytest.raises(
            ModelFileError, match=r"its description of the network has .* characters; the limit is 4,194,304"
        ):
            nn.Network.load(path, "numpy")
        # The text itself and its copies in safetensors.
        assert tracemalloc.get_traced_memory()[1] < 5 * MOST_DESCRIPTION
    finally:
        tracemalloc.stop()


def test_files_too_large_to_be_read_are_not_written(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("nnbackend.saving.model_file.MOST_DESCRIPTION", 100)
    with pytest.raises(ModelFileError, match=r"not saved to .*its description has \d+ characters"):
        classifier().save(tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("depth", [900, 960, 985, 995, 5000])
def test_a_deeply_nested_description_is_one_error(tmp_path: Path, depth: int):
    path = tmp_path / "model.safetensors"
    arrays, metadata = saved(path)
    deep = "[" * depth + "]" * depth
    for text in (
        metadata["nnbackend"].replace('"units": 2', f'"units": {deep}'),
        metadata["nnbackend"].replace('"format": 1', f'"format": {deep}'),
        metadata["nnbackend"].replace('"loss": null', f'"loss": {deep}'),
    ):
        save_file(arrays, path, {"nnbackend": text})
        with pytest.raises(ModelFileError):
            nn.Network.load(path, "numpy")


# ---- IDX and gzip ------------------------------------------------------------------------------------------------


def test_a_gzip_stream_may_promise_less_than_a_file(tmp_path: Path, monkeypatch):
    path = tmp_path / "file"
    contents = struct.pack(">BBBBI", 0, 0, 8, 1, 3000) + bytes(3000)
    monkeypatch.setattr(idx, "MAX_GZIPPED_BYTES", 2999)
    path.write_bytes(contents)
    assert read_idx(path).shape == (3000,)
    path.write_bytes(gzip.compress(contents))
    with pytest.raises(DataError, match="more than the limit of 2999; if that is correct, unpack the file with gunzip"):
        read_idx(path)


def test_a_decompression_bomb_takes_no_more_memory_than_it_declares(tmp_path: Path):
    path = tmp_path / "bomb"
    size = 20_000_000
    path.write_bytes(gzip.compress(struct.pack(">BBBBI", 0, 0, 8, 1, size) + bytes(size), mtime=0))
    tracemalloc.start()
    try:
        assert read_idx(path).shape == (size,)
        assert tracemalloc.get_traced_memory()[1] < size + 6_000_000
    finally:
        tracemalloc.stop()


def test_no_memory_for_an_array_is_a_data_error(tmp_path: Path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, 3) + bytes(3))

    def none(*arguments):
        raise MemoryError

    monkeypatch.setattr(idx.np, "empty", none)
    with pytest.raises(DataError, match="not enough memory for its 3 bytes"):
        read_idx(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_not_waited_for(tmp_path: Path):
    pipe = tmp_path / "config.json"
    os.mkfifo(pipe)
    found: list = []

    def read() -> None:
        for reader in (
            read_idx,
            lambda path: read_images(str(path), (8, 8), False),
            lambda path: read_small(path, 9),
            lambda path: read_configuration(path.with_name("model.safetensors")),
        ):
            try:
                reader(pipe)
            except (DataError, InvalidInputError, OSError) as error:
                found.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert ["pipe" in found[0], "pipe" in found[1]] == [True] * 2
    assert ["not a regular file" in text for text in found[2:]] == [True] * 2


# ---- run folders -------------------------------------------------------------------------------------------------


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    network = nn.Network([nn.Dense(2)], 4, "numpy")
    network.set_loss("softmax_cross_entropy")
    network.save(tmp_path / "model.safetensors")
    nn.datasets.write_idx(tmp_path / "images", np.zeros((1, 2, 2), np.uint8))
    return tmp_path


def test_names_of_classes_cannot_speak_to_the_terminal(run_folder: Path, capsys):
    classes = ["\x1b]0;gone\x07", "two\nlines"]
    (run_folder / "config.json").write_text(json.dumps({"classes": classes}))
    assert main(["predict", str(run_folder), str(run_folder / "images"), "--backend", "numpy"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 2
    assert all(letter.isprintable() or letter == "\n" for letter in printed)
    assert error_text(DataError("a \x1b[31m name\nand more")) == "a ?[31m name\nand more"


@pytest.mark.parametrize("classes", [["a"], "ab", [["a"], "b"], [1, 2], {"0": 1}, None])
def test_invalid_class_names_are_ignored(run_folder: Path, classes):
    (run_folder / "config.json").write_text(json.dumps({"classes": classes}))
    model = run_folder / "model.safetensors"
    assert class_names(model, nn.Network.load(model, "numpy")) == ["0", "1"]


@pytest.mark.parametrize("name", [["mnist"], {"mnist": 1}, 5, None])
def test_a_data_set_must_be_a_name(run_folder: Path, name, capsys):
    (run_folder / "config.json").write_text(json.dumps({"dataset": name}))
    with pytest.raises(InvalidInputError, match="the data set must be a name"):
        dataset_name(run_folder / "model.safetensors")
    assert main(["evaluate", str(run_folder), "--backend", "numpy"]) == 2
    assert "the data set must be a name" in capsys.readouterr().err


@pytest.mark.parametrize(
    "contents", [b"[" * 100_000, b"\xff\xfe", b"", b"[]", b'{"classes": ["a", "b"]}' + b" " * (1 << 20)]
)
def test_an_invalid_run_configuration_is_an_error(run_folder: Path, contents: bytes, capsys):
    """Otherwise the model would be evaluated on a data set that it was not trained on."""
    (run_folder / "config.json").write_bytes(contents)
    with pytest.raises(InvalidInputError, match=r"config.json .*restore it, or remove it"):
        read_configuration(run_folder / "model.safetensors")
    assert main(["evaluate", str(run_folder), "--backend", "numpy"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs the device /dev/zero")
def test_an_endless_configuration_is_not_read(run_folder: Path):
    (run_folder / "config.json").symlink_to("/dev/zero")
    with pytest.raises(InvalidInputError, match="a symbolic link, which is not followed"):
        read_configuration(run_folder / "model.safetensors")


def test_outputs_that_only_a_description_has_are_not_named(tmp_path: Path):
    network = nn.Network([nn.Flatten()], 10**12, "numpy")
    with pytest.raises(InvalidInputError, match="has 1,000,000,000,000 outputs"):
        class_names(tmp_path / "model.safetensors", network)


# ---- pictures ----------------------------------------------------------------------------------------------------


def test_a_picture_with_too_many_pixels_is_not_unpacked(tmp_path: Path):
    path = tmp_path / "large.png"
    # 400 million black pixels of one bit each: 50 MB that decode to 400 MB.
    size = 20_000
    body = zlib.compress(bytes((size // 8 + 1) * 10))
    header = struct.pack(">IIBBBBB", size, size, 1, 0, 0, 0, 0)
    parts = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
             for kind, data in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))]  # fmt: skip
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with pytest.raises(DataError, match="cannot be read as a picture: Image size"):
        read_images(str(path), (8, 8), invert=False)
    Image.new("1", (9_600, 9_600)).save(path)  # of a size for which Pillow only warns
    with pytest.raises(DataError, match="may have at most 25,000,000 pixels, received 9,600 x 9,600; scale it down"):
        read_images(str(path), (8, 8), invert=False)


@pytest.mark.parametrize("kind", ["eps", "tga", "pcx", "dds"])
def test_pictures_of_other_formats_are_not_opened(tmp_path: Path, kind: str):
    # Pillow starts Ghostscript for EPS, and its decoders for the others are rarely tested.
    path = tmp_path / f"picture.{kind}"
    Image.new("L", (8, 8), 7).save(path)
    with pytest.raises((DataError, InvalidInputError)) as error:
        read_images(str(path), (8, 8), invert=False)
    assert "not in a supported format: PNG, JPEG" in str(error.value) or "IDX" in str(error.value)


# ---- rows --------------------------------------------------------------------------------------------------------


def test_rows_missing_from_their_file_are_rejected(tmp_path: Path):
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        x = file.create_dataset("x", (2**45, 12), "f4", chunks=(1024, 12))
        x[:5] = 1
        with pytest.raises(
            DataError, match=r"rows\.h5 is said to have 1,688,849,860,263,936 bytes.*holds 49,152.*a factor of 1,032"
        ):
            as_rows(x, (12,), np.dtype("f4"))
        # A small sparse file, as if someone were filling it gradually.
        assert as_rows(file.create_dataset("y", (1000, 12), "f4"), (12,), np.dtype("f4")).count == 1000


def test_predictions_that_do_not_fit_into_memory_are_refused():
    x = np.broadcast_to(np.uint8(0), (2**40, 3))
    network = nn.Network([nn.Dense(2**8)], 3, "numpy")
    with pytest.raises(InvalidInputError, match="no memory for the predictions of 1,099,511,627,776 rows"):
        network._room_for_outputs(len(x))


def test_damage_that_hdf5_finds_late_is_a_data_error():
    class Damaged:
        shape, dtype = (5, 12), np.dtype("f4")
        __module__ = "h5py._hl.dataset"

        def __len__(self) -> int:
            return 5

        def __getitem__(self, which):
            raise RuntimeError("wrong B-tree signature")

    with pytest.raises(DataError, match="may be damaged: wrong B-tree signature"):
        as_rows(Damaged(), (12,), np.dtype("f4"))


def test_unknown_names_from_files_are_truncated_too():
    with pytest.raises(UnknownNameError) as error:
        get_loss("softmax" * 10_000)
    assert len(str(error.value)) < 500
