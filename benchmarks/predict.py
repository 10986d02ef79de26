"""The time of a prediction, from one row to 60,000, beside ONNX Runtime, PyTorch and scikit-learn.

    python -m benchmarks.predict [--rounds 3] [--seconds 0.1] [--threads N] [--nets ...] [--rows ...] [--quick]

For every network, dtype and number of rows, the calls of a round are timed one by one, from a NumPy array to a NumPy
array, by each library in turn; p50 and p99 are of all rounds together. Libraries are measured if they are installed.
Each has a process of its own, whose outputs must agree with the others. Another process measures what the machine can
do at most (`peers/contenders/limits.py`). A second table compares the probabilities of `nnbackend.MLPClassifier` with
those of scikit-learn's, both trained for an epoch with the same seed.

    python -m benchmarks.predict measure CONTENDER THREADS

is one such process: it reads requests and prints answers, as lines of JSON.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import nnbackend as nn
from benchmarks.peers.cores import bind, environment, usable
from benchmarks.peers.markdown import NOTHING, markdown, ratio

__all__ = ["CONTENDERS", "NETS", "main", "table"]

#: Units of the layers, the first number those of the input.
NETS: dict[str, tuple[int, ...]] = {
    "784-40-10": (784, 40, 10),
    "784-200-80-10": (784, 200, 80, 10),
    "784-500-1000-300-10": (784, 500, 1000, 300, 10),
    "784-64-64-10": (784, 64, 64, 10),
    "784-64-64-64-10": (784, 64, 64, 64, 10),
}
_ROWS = (1, 32, 1_000, 60_000)
_DTYPES = ("float32", "float64")

#: Networks, and the one dtype, in which the most rows and the estimators are measured.
_LARGE, _LARGE_DTYPE, _MANY = tuple(NETS)[:3], "float32", 60_000

#: Calls of a round: not more, and at least this many, or as many as take some seconds.
_MOST, _FEWEST, _ENOUGH = 5_000, 50, 0.4

#: Largest difference of an output, relative to the largest output.
_TOLERANCE = 1e-4

Predict = Callable[[np.ndarray], np.ndarray]


def make_network(sizes: Sequence[int], dtype: str, backend: Any) -> nn.Network:
    """A ReLU network with biases that are not zero."""
    layers = [nn.Dense(size, "relu", bias_initializer=nn.Normal(0.1)) for size in sizes[1:-1]]
    return nn.Network([*layers, nn.Dense(sizes[-1])], sizes[0], backend=backend, dtype=dtype, input_scale=1.0)


# ---- contenders --------------------------------------------------------------------------------------------------


def _compiled(sizes: Sequence[int], dtype: str, rows: int, threads: int) -> Predict:
    return make_network(sizes, dtype, nn.NumbaBackend(threads)).compile_predictor(rows)


def _predict(sizes: Sequence[int], dtype: str, rows: int, threads: int) -> Predict:
    return make_network(sizes, dtype, nn.NumbaBackend(threads)).predict


def _onnxruntime(sizes: Sequence[int], dtype: str, rows: int, threads: int) -> Predict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        make_network(sizes, dtype, "numpy").to_onnx(path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def predict(x: np.ndarray) -> np.ndarray:
        (outputs,) = session.run(None, {"input": x})
        return outputs

    return predict


def _pytorch(sizes: Sequence[int], dtype: str, rows: int, threads: int) -> Predict:
    import torch

    from nnbackend.interop.torch import state_dict

    torch.set_num_threads(threads)
    layers: list[torch.nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    module = torch.nn.Sequential(*layers[:-1]).to(getattr(torch, dtype))
    module.load_state_dict(state_dict(make_network(sizes, dtype, "numpy")))
    module.eval()

    def predict(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(x)).numpy()

    return predict


def _estimator(sizes: Sequence[int], dtype: str, rows: int, threads: int) -> Predict:
    return _fitted(nn.MLPClassifier, sizes, dtype, backend=nn.NumbaBackend(threads))


def _scikit_learn(sizes: Sequence[int], dtype: str, rows: int, threads: int) -> Predict:
    from sklearn.neural_network import MLPClassifier

    return _fitted(MLPClassifier, sizes, dtype)


def _fitted(kind: Any, sizes: Sequence[int], dtype: str, **options: Any) -> Predict:
    generator = np.random.default_rng(0)
    x, y = generator.random((40, sizes[0])).astype(dtype), np.arange(40) % sizes[-1]
    with warnings.catch_warnings():
        # It is meant to end before it has converged.
        warnings.simplefilter("ignore")
        fitted = kind(sizes[1:-1], max_iter=1, random_state=0, **options).fit(x, y)
    predict: Predict = fitted.predict_proba
    return predict


#: By name: what makes the function to measure, and the package that it needs.
CONTENDERS: dict[str, tuple[Callable[..., Predict], str]] = {
    "compile_predictor": (_compiled, "nnbackend"),
    "predict": (_predict, "nnbackend"),
    "onnxruntime": (_onnxruntime, "onnxruntime"),
    "PyTorch": (_pytorch, "torch"),
    "MLPClassifier": (_estimator, "sklearn"),
    "scikit-learn": (_scikit_learn, "sklearn"),
}

#: The name under which results contain the time that a prediction takes at least, which has a process like the others.
LIMIT = "limit"
_OURS = ("compile_predictor", "predict", "MLPClassifier")

#: Those of each table, ours first.
_TABLES = (("compile_predictor", "predict", "onnxruntime", "PyTorch"), ("MLPClassifier", "scikit-learn"))


# ---- one process -------------------------------------------------------------------------------------------------


def _serve(name: str, threads: int) -> None:
    """Answer requests until the standard input ends."""
    bind(threads)
    prepared: dict[tuple[str, str, int], Predict] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        key = asked["net"], asked["dtype"], asked["rows"]
        net, dtype, rows = key
        if name == LIMIT:
            print(json.dumps({"times": [_least(NETS[net], dtype, rows, threads)]}), flush=True)
            continue
        x = np.random.default_rng(0).random((rows, NETS[net][0]), np.float32).astype(dtype, copy=False)
        if key not in prepared:
            prepared[key] = CONTENDERS[name][0](NETS[net], dtype, rows, threads)
            prepared[key](x)
        outputs = np.asarray(prepared[key](x), np.float64)[0].tolist()
        print(json.dumps({"times": _times(prepared[key], x, asked["seconds"]), "outputs": outputs}), flush=True)


def _least(sizes: Sequence[int], dtype: str, rows: int, threads: int) -> float:
    """The least nanoseconds of a prediction: those of its multiply-adds, or of reading each row and weight once."""
    from benchmarks.peers.contenders.limits import least_seconds

    weights = sum(inputs * outputs for inputs, outputs in pairwise(sizes))
    size = np.dtype(dtype).itemsize
    # A vector has half as many numbers of twice the size.
    return 1e9 * least_seconds(2 * rows * weights * size / 4, size * (weights + rows * sizes[0]), threads)


def _times(predict: Predict, x: np.ndarray, seconds: float) -> list[int]:
    """The nanoseconds of each call."""
    clock, times = time.perf_counter_ns, []
    gc.collect()
    gc.disable()
    start = clock()
    end, enough = start + int(1e9 * seconds), start + int(1e9 * _ENOUGH)
    while len(times) < _MOST and ((begin := clock()) < end or (len(times) < _FEWEST and begin < enough)):
        predict(x)
        times.append(clock() - begin)
    gc.enable()
    return times


# ---- all processes -----------------------------------------------------------------------------------------------


class _Worker:
    """A process that measures one contender."""

    def __init__(self, name: str, threads: int) -> None:
        command = [sys.executable, "-m", "benchmarks.predict", "measure", name, str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(threads)
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"its process ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.communicate(timeout=30)


Results = dict[tuple[str, str, int], dict[str, list[int]]]


def measure(
    names: Sequence[str],
    threads: int,
    rounds: int,
    seconds: float,
    nets: Sequence[str] = tuple(NETS),
    rows: Sequence[int] = _ROWS,
) -> Results:
    """The nanoseconds of all calls by network, dtype and rows, and by contender, of one of the tables."""
    names = [*(name for name in names if importlib.util.find_spec(CONTENDERS[name][1])), LIMIT]
    workers = {name: _Worker(name, threads) for name in names}
    estimators = "MLPClassifier" in names
    cases = [
        case
        for case in product(nets, _DTYPES, rows)
        if (case[0] in _LARGE and case[1] == _LARGE_DTYPE) or (case[2] < _MANY and not estimators)
    ]
    results: Results = {case: {name: [] for name in names} for case in cases}
    try:
        # Whatever is compiled, loaded or started at the first call.
        for case in cases:
            _compare(case, dict(_round(case, workers, names, 0.0)))
        for turn in range(rounds):
            order = names[turn % len(names) :] + names[: turn % len(names)]
            for case in cases:
                for name, answer in _round(case, workers, order, seconds):
                    results[case][name] += answer["times"]
    finally:
        for worker in workers.values():
            worker.close()
    return results


def _round(
    case: tuple[str, str, int], workers: Mapping[str, _Worker], order: Sequence[str], seconds: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    net, dtype, rows = case
    for name in order:
        yield name, workers[name].ask(net=net, dtype=dtype, rows=rows, seconds=seconds)


def _compare(case: tuple[str, str, int], answers: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse to compare the times of libraries that compute different things."""
    expected = np.array(next(iter(answers.values()))["outputs"])
    for name, answer in answers.items():
        if name == LIMIT:
            continue
        difference = np.abs(np.array(answer["outputs"]) - expected).max() / np.abs(expected).max()
        # Written so that NaN is rejected.
        if not difference <= _TOLERANCE:
            raise RuntimeError(f"{case}: the outputs of {name} differ by {difference:.2g}")


def table(results: Results) -> str:
    """The results as a table, in microseconds, and the factors over the fastest other library."""
    names = [name for name in next(iter(results.values())) if name != LIMIT]
    header = ["net", "dtype", "rows", *(f"{name} p50" for name in names), *(f"{name} p99" for name in names)]
    ours = [name for name in names if name in _OURS]
    shares = [f"{name} of limit" for name in ours]
    lines: list[Sequence[str]] = [[*header, "limit", *shares, "factor", *(f"factor of {name}" for name in ours[1:])]]
    factors = []
    for (net, dtype, rows), times in results.items():
        middle = {name: median(times[name]) for name in names}
        peers = [value for name, value in middle.items() if name not in _OURS]
        ratios = [min(peers) / middle[name] if peers else None for name in ours]
        factors.append([each for each in ratios if each])
        cells = [f"{value / 1e3:,.1f}" for value in middle.values()]
        cells += [f"{np.percentile(times[name], 99) / 1e3:,.1f}" for name in names]
        least = median(times[LIMIT]) if LIMIT in times else None
        cells.append(NOTHING if least is None else f"{least / 1e3:,.1f}")
        cells += [NOTHING if least is None else f"{100 * least / middle[name]:.0f} %" for name in ours]
        lines.append([net, dtype, f"{rows:,}", *cells, *(ratio(each) for each in ratios)])
    summaries = [
        f"{name}: median factor {median(each):.2f}x, lowest {min(each):.2f}x"
        for name, each in zip(ours, zip(*factors, strict=True), strict=False)
    ]
    return f"{markdown(lines, right=range(2, len(lines[0])))}\n\n{'; '.join(summaries) or NOTHING}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["measure"]:
        _serve(given[1], int(given[2]))
        return 0
    parser = argparse.ArgumentParser(prog="python -m benchmarks.predict", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.1, help="of a library in each round of a case")
    parser.add_argument("--threads", type=int, default=usable())
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=list(NETS), metavar="NET")
    parser.add_argument("--rows", nargs="+", type=int, default=list(_ROWS), metavar="N")
    parser.add_argument("--quick", action="store_true", help="one network and one short round, to see that it works")
    options = parser.parse_args(given)
    if options.quick:
        options.rounds, options.seconds, options.nets, options.rows = 1, 0.01, options.nets[:1], options.rows[:2]
    for names in _TABLES:
        if all(importlib.util.find_spec(CONTENDERS[name][1]) for name in names[:1]):
            found = measure(names, options.threads, options.rounds, options.seconds, options.nets, options.rows)
            print(table(found), end="\n\n", flush=True)
    print(
        f"Microseconds of a call, {options.threads} threads, {options.rounds} rounds. A factor is the time of the "
        "fastest of the other libraries over ours. The limit is the time that the multiply-adds take in registers, or "
        "that all threads take to read each row and weight once, whichever is longer."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
