"""Reading the tables of ``nnbackend train``, ``predict`` and ``evaluate``: CSV, Parquet and NPZ files."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nnbackend.cli.table_files import read_table
from nnbackend.cli.table_target import read_target
from nnbackend.errors import DataError


@pytest.mark.parametrize(
    ("contents", "columns"),
    [
        (b"a;b\n1;x\n2;\n", {"a": [1, 2], "b": ["x", None]}),
        (b"a\tb\n1,5\tx\n2,5 or 3\ty\n", {"a": ["1,5", "2,5 or 3"], "b": ["x", "y"]}),
        (b'"a, really",b\r\n" 1.5","x ""y"""\r\n\r\nNA,z\r\n', {"a, really": [1.5, None], "b": ['x "y"', "z"]}),
        ("\ufeffa,b\nä,1\n".encode(), {"a": ["ä"], "b": [1]}),
        ("a,b\nä,1e3\n".encode("utf-16"), {"a": ["ä"], "b": [1000]}),
        (b"a,b\n1_0,True\nx,false\n", {"a": ["1_0", "x"], "b": [True, False]}),
        (b",a\n0,7\n1,8\n", {"a": [7, 8]}),
        (b"a\n?\n3\n", {"a": [None, 3]}),
        # Names: spaces around them, spaces within, different cases, and several empty ones.
        (b' a ,"b b ",B B\n1,2,3\n', {"a": [1], "b b": [2], "B B": [3]}),
        (b"a,,b,\n1,2,3,4\n", {"a": [1], "b": [3]}),
        (b"1,a\n2,3\n", {"1": [2], "a": [3]}),
        # Truth values; other words are text.
        (b"a,b\ntrue,FALSE\nfalse,True\n", {"a": [True, False], "b": [False, True]}),
        (b"a,b\nTrue,1\n,2\n", {"a": [True, None], "b": [1, 2]}),
        (
            b"a,b,c,d\nyes,on,T,true\nno,off,F,1\n",
            {"a": ["yes", "no"], "b": ["on", "off"], "c": ["T", "F"], "d": ["true", "1"]},
        ),
        # Codes with zeros are numbers, like all that look so, unless others are none.
        (b"a,b\n007,007\n042,x1\n", {"a": [7, 42], "b": ["007", "x1"]}),
        (b"a,b,c\n0x10,5%,1 000\n", {"a": ["0x10"], "b": ["5%"], "c": ["1 000"]}),
        # Empty values: quoted ones, ones of spaces, and nothing else.
        (b'a,b,c,d\n1,"",x,\n,y, ,\n', {"a": [1, None], "b": [None, "y"], "c": ["x", None], "d": [None, None]}),
    ],
)
def test_csv_files_are_read_as_they_are(contents: bytes, columns: dict[str, list[Any]], tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_bytes(contents)
    table = read_table(str(path))
    found = {name: [None if v is None or v != v else v for v in table.values(name)] for name in table.columns}
    assert found == columns


def test_codes_are_text_as_they_are_written_if_the_column_is_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"zip,price\n00700,1\n 7,2\n,3\nNA,4\n007.0,5\n")
    table = read_table(str(path))
    assert table.values("zip", text=True) == ["00700", " 7", None, None, "007.0"]
    assert table.frame(["zip", "price"], {"zip": True})["zip"].tolist() == ["00700", " 7", None, None, "007.0"]
    path.write_bytes(b"zip\n007\nx7\n")
    table = read_table(str(path))
    with pytest.raises(DataError, match="column 'zip' must hold numbers, received 'x7' in row 2; correct the value"):
        table.values("zip", text=False)


def _all_columns(path: str) -> Any:
    table = read_table(path)
    return table.frame(list(table.columns))


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "is empty"),
        (b"a,b\n", "has no rows"),
        (b"a,b,a\n1,2,3\n", "several columns called 'a'; rename all but one"),
        (b'b,a,b,"a "\n1,2,3,4\n', "several columns called 'a', 'b'"),
        (b",\n1,2\n", "has no columns"),
        (b"a,b\n1,2\n3\n", "line 3 has 1 values, but the first line has 2 names of columns"),
        (b"1,2\n3,4\n", "the first line must hold the names"),
        (b'a,b\n1,"2\n', "cannot be read"),
        ("a,b\nä,2\n".encode("latin-1"), r"is not UTF-8 \(line 2\); say which encoding it has, for example --encoding"),
        (b"a;b\n1,5;2\n-2;3\n", "column 'a' has numbers with commas, such as '1,5'; write them with a decimal point"),
        (b"a;b\n1,500.5;2\n", "numbers with commas"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is no table; tables are CSV, Parquet or NPZ files"),
        (b"\x1f\x8b\x08abc", "is compressed; unpack it first"),
        (b"PAR1 and nothing else", "cannot be opened as a Parquet file"),
        (b"PK\x03\x04 and nothing else", "cannot be read; it may be damaged"),
    ],
)
def test_what_is_no_table_is_one_error(contents: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(contents)
    with pytest.raises(DataError, match=message):
        _all_columns(str(path))


def test_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("a,b\nä,2\n".encode("cp1252"))
    assert read_table(str(tmp_path / "a.csv"), "cp1252").columns["a"] == ("ä",)
    (tmp_path / "a.csv").write_bytes("a,b\nä,2\n".encode("utf-16-le"))
    assert read_table(str(tmp_path / "a.csv"), "utf-16-le").columns["a"] == ("ä",)
    for wrong, message in (("cp0", "unknown encoding 'cp0'"), ("hex", "unknown encoding 'hex'"),
                           ("latin-1", "is no table; .* or its encoding is not LATIN-1")):  # fmt: skip
        with pytest.raises(DataError, match=message):
            read_table(str(tmp_path / "a.csv"), wrong)


@pytest.mark.parametrize(
    ("mark", "encoding", "given"),
    [
        (codecs.BOM_UTF8, "utf-8", ["utf-8", "UTF8", "utf-8-sig"]),
        (codecs.BOM_UTF16_LE, "utf-16-le", ["utf-16", "utf-16-le"]),
        (codecs.BOM_UTF16_BE, "utf-16-be", ["utf-16", "utf-16-be"]),
        (codecs.BOM_UTF32_LE, "utf-32-le", ["utf-32", "utf-32-le"]),
    ],
    ids=["UTF-8", "UTF-16, low first", "UTF-16, high first", "UTF-32"],
)
def test_a_byte_order_mark_is_no_part_of_the_first_name(
    mark: bytes, encoding: str, given: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(mark + '"a, really",b\nä,2\n'.encode(encoding))
    for each in (None, *given):
        assert read_table(str(path), each).columns == {"a, really": ("ä",), "b": ("2",)}
    with pytest.raises(DataError, match=r"has the byte order mark of UTF-\d+, but --encoding is cp1252; leave"):
        read_table(str(path), "cp1252")


def test_a_byte_order_mark_before_text_that_is_the_same_in_the_given_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(codecs.BOM_UTF8 + b"a,b\n1,2\n")
    for encoding in ("cp1252", "latin-1", "ascii"):
        assert list(read_table(str(path), encoding).columns) == ["a", "b"]


#: The first two are the same float64, and so are the next two.
LARGE = [2**53, 2**53 + 1, 2**63 - 2, 2**63 - 1]


def _write_large(path: Path, values: list[Any]) -> None:
    large = max(value or 0 for value in values) >= 2**63
    frame = pd.DataFrame({"x": np.arange(len(values)), "y": pd.Series(values, dtype="UInt64" if large else "Int64")})
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        np.savez(path, x=frame["x"], y=frame["y"].to_numpy(np.uint64 if large else np.int64))


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz"])
@pytest.mark.parametrize("values", [LARGE, [*LARGE, 2**64 - 1], [*LARGE, -(2**63)]], ids=["both", "unsigned", "signed"])
def test_large_whole_numbers_stay_exact(kind: str, values: list[int], tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    _write_large(path, values * 5)
    table = read_table(str(path))
    assert table.values("y").tolist() == values * 5
    target = read_target(table, "y")
    assert (target.task, target.values.tolist()) == ("classification", values * 5)
    # As a feature, it holds numbers like any other column.
    assert table.values("x").dtype == np.float64
    if kind != "npz":
        _write_large(path, [*values, None] * 5)
        table = read_table(str(path))
        assert table.values("y") == [*values, None] * 5
        assert read_target(table, "y").values.tolist() == values * 5
        assert table.frame(["x", "y"])["y"].tolist() == [*values, None] * 5


@pytest.mark.parametrize("text", ["9007199254740993.0", str(2**64), "1e300"])
def test_large_numbers_that_are_not_exact_are_no_classes(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n" + f"1,{text}\n2,1\n" * 5)
    table = read_table(str(tmp_path / "a.csv"))
    assert table.values("y").tolist() == [float(text), 1] * 5
    assert read_target(table, "y").task == "regression"
    with pytest.raises(DataError, match=r"numbers of up to .*, which are not exact; write whole numbers of at most 64"):
        read_target(table, "y", "classification")


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="Linux counts the bytes that a process reads")
def test_parquet_files_are_read_once(tmp_path: Path) -> None:
    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    path = tmp_path / "a.parquet"
    pd.DataFrame({"x": np.random.default_rng(0).random(300_000)}).to_parquet(path)
    read_table(str(path))
    before = bytes_read()
    assert read_table(str(path)).rows == 300_000
    assert bytes_read() - before < 1.5 * path.stat().st_size


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3), "y": np.zeros(4)}, "the same number of rows, received x 3, y 4"),
        ({"x": np.zeros((3, 2, 2))}, "one axis, or two"),
        ({"x": np.array([1j])}, "numbers or text, received complex128"),
        ({"x": np.array([None, 1], object)}, "numbers or text, received object"),
        ({"x": np.zeros((2, 2)), "x0": np.zeros(2)}, "several columns called 'x0'"),
        ({"x": np.zeros((0, 5))}, "received shape"),
    ],
)
def test_arrays_that_are_no_columns(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_table(str(tmp_path / "a.npz"))


def test_arrays_with_two_axes_are_several_columns(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(6).reshape(3, 2), y=np.array(["a", "b", "c"]))
    table = read_table(str(tmp_path / "a.npz"))
    assert {name: list(column) for name, column in table.columns.items()} == {
        "x0": [0, 2, 4], "x1": [1, 3, 5], "y": ["a", "b", "c"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("target", "message"),
    [([np.nan, np.nan], "all values of the target 'y' are missing"), ([np.inf, 1.0], "the target 'y' holds infinity")],
)
def test_a_target_without_values_is_refused(target: list[float], message: str, tmp_path: Path) -> None:
    pd.DataFrame({"x": [1, 2], "y": target}).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match=message):
        read_target(read_table(str(tmp_path / "a.csv")), "y")
