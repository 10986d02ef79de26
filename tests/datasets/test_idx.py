"""The IDX reader and writer: valid files, and the rejection of others."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnbackend.datasets import read_idx, write_idx
from nnbackend.datasets.idx import MAX_BYTES, MAX_GZIPPED_BYTES
from nnbackend.errors import DataError, InvalidInputError

DTYPES = ["uint8", "int8", "int16", "int32", "float32", "float64"]


def header(code: int, *shape: int) -> bytes:
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, code, len(shape), *shape)


GOOD = header(0x08, 2, 3) + bytes(range(6))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some-file"


@pytest.mark.parametrize(
    ("code", "layout", "dtype"),
    [
        (0x08, ">4B", "uint8"),
        (0x09, ">4b", "int8"),
        (0x0B, ">4h", "int16"),
        (0x0C, ">4i", "int32"),
        (0x0D, ">4f", "float32"),
        (0x0E, ">4d", "float64"),
    ],
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_each_element_type_is_read_big_endian_and_returned_native(
    path: Path, code: int, layout: str, dtype: str, compress: Any
) -> None:
    path.write_bytes(compress(header(code, 2, 2) + struct.pack(layout, 1, 2, 3, 100)))
    array = read_idx(path)
    assert array.dtype == np.dtype(dtype)
    assert array.dtype.isnative
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.tolist() == [[1, 2], [3, 100]]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    array=st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=5, max_side=7))
    ),
    suffix=st.sampled_from(["", ".gz"]),
)
def test_files_round_trip_bit_for_bit(tmp_path: Path, array: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"array{suffix}"
    write_idx(path, array)
    back = read_idx(path, expect_dimensions=array.ndim)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()  # not ==, because of NaN
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == (suffix == ".gz")


def test_writing_takes_any_memory_layout_and_byte_order_and_is_reproducible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.arange(24, dtype=">i4").reshape(4, 6)[::2, ::-1].T
    write_idx(tmp_path / "a", array)
    for day, name in enumerate(("b.gz", "c.gz")):
        monkeypatch.setattr("time.time", lambda day=day: 86_400.0 * day)
        write_idx(tmp_path / name, array)
    np.testing.assert_array_equal(read_idx(tmp_path / "a"), array)
    assert (tmp_path / "b.gz").read_bytes() == (tmp_path / "c.gz").read_bytes()
    assert (tmp_path / "a").read_bytes() == gzip.decompress((tmp_path / "b.gz").read_bytes())


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3, np.int64), "type int64: convert to one of uint8, int8"),
        (np.zeros(3, bool), "type bool"),
        (np.zeros(3, np.uint16), "type uint16"),
        (np.array(["a"]), "type <U1"),
        (np.uint8(3), r"shape \(\)"),
        (np.zeros((3, 0), np.uint8), r"shape \(3, 0\)"),
        (np.zeros((1,) * 33, np.uint8), "1 to 32 dimensions"),
    ],
)
def test_arrays_that_idx_cannot_hold_are_refused_and_the_old_file_stays(path: Path, array: Any, message: str) -> None:
    path.write_bytes(GOOD)
    with pytest.raises(InvalidInputError, match=message):
        write_idx(path, array)
    assert path.read_bytes() == GOOD
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "truncated: 0 bytes, too few for an IDX header"),
        (GOOD[:3], "truncated: 3 bytes"),
        (GOOD[:9], r"truncated: the header ends within its 2 dimension\(s\)"),
        (GOOD[:-1], "truncated: header declares 6 bytes"),
        (GOOD[:12], "truncated: header declares 6 bytes"),
        (GOOD + b"x", r"trailing data after the 6 bytes \(2, 3\)"),
        (b"\x89PNG\r\n\x1a\n", "not an IDX file: starts with b'\\\\x89PNG'"),
        (b"P", "not an IDX file: starts with b'P'"),
        (header(0x0A, 6) + bytes(6), "unknown IDX element type 0x0A, expected one of 0x08, 0x09"),
        (header(0x08), "header declares 0 dimensions"),
        (header(0x08, *[1] * 33) + bytes(1), "header declares 33 dimensions, expected 1 to 32"),
        (header(0x08, 3, 0), r"header declares an empty array of shape \(3, 0\)"),
        (
            header(0x0E, 2**31, 2**31),
            rf"header declares {2**65} bytes \(2147483648, 2147483648\), more than the limit of LIMIT",
        ),
    ],
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_damaged_file_is_refused_by_name_with_what_is_wrong(
    path: Path, contents: bytes, message: str, compress: Any
) -> None:
    path.write_bytes(compress(contents))
    message = message.replace("LIMIT", str(MAX_BYTES if compress is bytes else MAX_GZIPPED_BYTES))
    with pytest.raises(DataError, match=f"some-file: {message}"):
        read_idx(path)


def test_a_truncated_gzipped_array_reports_both_sizes(path: Path) -> None:
    path.write_bytes(gzip.compress(header(0x0C, 5) + bytes(12)))
    with pytest.raises(DataError, match=r"truncated: header declares 20 bytes of data \(5,\), found 12"):
        read_idx(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda good: good[:-8] + bytes(4) + good[-4:], "corrupt gzip data: CRC check failed"),
        (lambda good: good[:-4] + bytes(4), "corrupt gzip data: Incorrect length"),
        (lambda good: good[:-9], "truncated: the gzip stream is incomplete"),
        (lambda good: good[:5], "truncated: the gzip stream is incomplete"),
        (lambda good: good[:10] + b"\xff" + good[11:], "corrupt gzip data: Error -3"),
        (lambda good: good + b"garbage", "corrupt gzip data: Not a gzipped file"),
        (lambda good: good + good, "trailing data"),
    ],
)
def test_a_damaged_gzip_stream_is_refused(path: Path, damage: Any, message: str) -> None:
    path.write_bytes(damage(gzip.compress(GOOD)))
    with pytest.raises(DataError, match=f"some-file: {message}"):
        read_idx(path)


@pytest.mark.parametrize("contents", [GOOD, gzip.compress(GOOD, mtime=0)], ids=["plain", "gzip"])
def test_every_truncation_is_detected_and_flipped_bits_raise_no_other_error(path: Path, contents: bytes) -> None:
    for length in range(len(contents)):
        path.write_bytes(contents[:length])
        with pytest.raises(DataError):
            read_idx(path)
    for position in range(len(contents)):
        for bit in range(8):
            damaged = bytearray(contents)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                array = read_idx(path)
            except DataError:
                continue
            # An accepted file has the original size and, if gzip has checked it, the original contents.
            assert array.nbytes == 6
            assert contents is GOOD or array.tobytes() == GOOD[12:]


def test_memory_is_bounded_by_the_header_and_by_the_file(path: Path) -> None:
    bomb = gzip.compress(header(0x08, 10) + bytes(50_000_000))
    boast = gzip.compress(header(0x08, 2**30) + bytes(10))
    tracemalloc.start()
    try:
        for contents, message in ((bomb, "trailing data"), (boast, "truncated: header declares 1073741824 bytes")):
            path.write_bytes(contents)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with pytest.raises(DataError, match=message):
                read_idx(path)
            assert tracemalloc.get_traced_memory()[1] - before < 2_000_000
    finally:
        tracemalloc.stop()


def test_the_best_compression_of_deflate_is_not_taken_for_truncation(path: Path) -> None:
    path.write_bytes(gzip.compress(header(0x08, 3_000_000) + bytes(3_000_000), compresslevel=9))
    assert path.stat().st_size < 4_000
    assert read_idx(path).shape == (3_000_000,)


def test_expected_dimensions_are_checked(path: Path) -> None:
    path.write_bytes(GOOD)
    assert read_idx(path, expect_dimensions=2).shape == (2, 3)
    with pytest.raises(DataError, match=r"some-file: holds an array of shape \(2, 3\), expected 3 dimension"):
        read_idx(path, expect_dimensions=3)


def test_a_path_that_cannot_be_opened_is_a_data_error(path: Path) -> None:
    with pytest.raises(DataError, match="some-file: cannot be opened: No such file"):
        read_idx(path)
    path.mkdir()
    with pytest.raises(DataError, match="some-file: cannot be opened: Is a directory"):
        read_idx(str(path))
