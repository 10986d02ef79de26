"""A short version of `python -m benchmarks.predict`."""

from __future__ import annotations

import pytest

from benchmarks import predict
from benchmarks.predict import main, table


@pytest.mark.slow
def test_it_measures_and_prints(capsys):
    assert main(["--quick", "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("784-40-10") == 6
    assert "compile_predictor p50" in printed


def test_the_factor_is_over_the_fastest_peer():
    times = {"compile_predictor": [4000] * 99 + [9000], "predict": [10_000], "onnxruntime": [6000], "PyTorch": [9000]}
    lines = table({("784-40-10", "float32", 1): times}).splitlines()
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells[3:7] == ["4.0", "10.0", "6.0", "9.0"]
    assert cells[-2:] == ["1.50x", "0.60x"]
    assert lines[-1].split("; ") == [
        "compile_predictor: median factor 1.50x, lowest 1.50x",
        "predict: median factor 0.60x, lowest 0.60x",
    ]
    alone = table({("784-40-10", "float32", 1): {name: times[name] for name in ("compile_predictor", "predict")}})
    assert alone.splitlines()[2].rstrip("| ").endswith("-")


def test_outputs_that_differ_are_refused():
    answers = {"predict": {"outputs": [1.0, 2.0]}, "other": {"outputs": [1.0, 2.001]}}
    with pytest.raises(RuntimeError, match=r"the outputs of other differ by 0\.0005"):
        predict._compare(("784-40-10", "float32", 1), answers)
    answers["other"]["outputs"][1] = float("nan")
    with pytest.raises(RuntimeError, match="differ by nan"):
        predict._compare(("784-40-10", "float32", 1), answers)
