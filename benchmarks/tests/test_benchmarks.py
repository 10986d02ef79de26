"""Small versions of the benchmark suites run on every usable backend and measure what they claim."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import benchmarks
import nnbackend as nn
from benchmarks import common, imports, losses, operations, table_operations, training
from nnbackend.backends.contract import OPERATIONS
from nnbackend.backends.numpy import NumpyBackend
from nnbackend.backends.registry import AUTO_ORDER
from nnbackend.errors import BackendUnavailableError
from nnbackend.optimizers import OPTIMIZERS
from nnbackend.presets import PRESETS

ROOT = Path(benchmarks.__file__).parents[1]
KINDS = ("time_", "track_", "timeraw_")


def _suites() -> list[type]:
    names = [module.name for module in pkgutil.iter_modules(benchmarks.__path__) if not module.ispkg]
    modules = [importlib.import_module(f"benchmarks.{name}") for name in names]
    return [
        item
        for module in modules
        for item in vars(module).values()
        if isinstance(item, type) and item.__module__ == module.__name__ and _methods(item)
    ]


def _methods(suite: type) -> list[str]:
    return [name for name in dir(suite) if name.startswith(KINDS)]


def _id(suite: type) -> str:
    return f"{suite.__module__.removeprefix('benchmarks.')}.{suite.__name__}"


def _settings() -> dict:
    lines = (ROOT / "asv.conf.json").read_text(encoding="utf-8").splitlines()
    settings: dict = json.loads("\n".join(line for line in lines if not line.lstrip().startswith("//")))
    return settings


SUITES = _suites()
BENCHMARKS = {f"{_id(suite)}.{name}": getattr(suite, name) for suite in SUITES for name in _methods(suite)}
ON_BACKENDS = [suite for suite in SUITES if issubclass(suite, common.Suite)]
every_suite = pytest.mark.parametrize("suite", ON_BACKENDS, ids=_id)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Little data and short blocks; every network still has a shorter last batch."""
    small = {"TRAIN_ROWS": 550, "EPOCH_ROWS": 550, "TEST_ROWS": 30, "GATHER_ROWS": 600}
    small |= {"BLOCK_SECONDS": 1e-3, "BLOCKS": 2}
    for name, value in small.items():
        monkeypatch.setattr(common, name, value)


#: Methods that a step cannot record but a benchmark may call.
OUTSIDE_OF_STEPS = ("from_host", "write", "to_host", "copy", "synchronize")


class LoggingBackend(NumpyBackend):
    """A NumPy backend that records the called operations in order."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []

    def __getattribute__(self, name):
        value = super().__getattribute__(name)
        if name not in OPERATIONS and name not in OUTSIDE_OF_STEPS:
            return value

        def noted(*arguments):
            self.log.append(name)
            return value(*arguments)

        return noted


@pytest.fixture
def logging_backend(monkeypatch):
    backend = LoggingBackend()
    monkeypatch.setattr(nn, "get_backend", lambda name: backend)
    return backend


def _run_source(source) -> None:
    """Run the code from a `timeraw_` method like asv: as string literals in a new process."""
    statement, setup = source if isinstance(source, tuple) else (source, "")
    code = f'from timeit import timeit\ntimeit(stmt="""{statement}""", setup="""{setup}""", number=1)'
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- every suite, every backend ------------------------------------------------------------------------------


def test_the_files_are_found():
    found = {_id(suite).partition(".")[0] for suite in SUITES}
    assert found == {"operations", "table_operations", "losses", "training", "prediction", "imports"}


@pytest.mark.slow
@every_suite
@pytest.mark.parametrize("backend", common.BACKENDS)
def test_suite_runs_or_is_not_applicable(suite, backend):
    usable = {info.name for info in nn.available_backends() if info.usable}
    for parameters in itertools.product((backend,), *suite.params[1:]):
        benchmark = suite()
        if backend not in usable:
            with pytest.raises(NotImplementedError, match=backend):
                benchmark.setup(*parameters)
            continue
        benchmark.setup(*parameters)
        for name in _methods(suite):
            result = getattr(benchmark, name)(*parameters)
            if name.startswith("track_"):
                assert math.isfinite(result)
                assert result > 0
            elif name.startswith("timeraw_"):
                _run_source(result)
        getattr(benchmark, "teardown", lambda *_: None)(*parameters)


@every_suite
def test_without_its_backend_a_suite_is_not_applicable_and_builds_nothing(suite, monkeypatch):
    def unavailable(name):
        raise BackendUnavailableError(name, "there is no such card", "Buy one")

    monkeypatch.setattr(nn, "get_backend", unavailable)
    monkeypatch.setattr(suite, "build", lambda *_: pytest.fail("built for a backend that is not there"))
    with pytest.raises(NotImplementedError, match="no such card"):
        suite().setup(*(axis[0] for axis in suite.params))


@every_suite
def test_setup_builds_once(suite, logging_backend, monkeypatch):
    # asv calls setup before every timed call; building again would time cold caches and take very long.
    built = []
    monkeypatch.setattr(suite, "build", lambda self, device, *parameters: built.append(parameters))
    first, *rest = itertools.product(*suite.params)
    benchmark = suite()
    benchmark.setup(*first)
    benchmark.setup(*first)
    assert built == [first[1:]]
    benchmark.setup(*rest[0])
    assert len(built) == 2


def test_imports_run():
    suite = imports.Import()
    for name in _methods(imports.Import):
        _run_source(getattr(suite, name)())


# ---- what is measured ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", [suite for suite in ON_BACKENDS if suite is not imports.Start], ids=_id)
def test_timed_methods_are_warm_and_end_when_the_device_is_done(suite, logging_backend):
    for parameters in itertools.product(suite.params[0][:1], *suite.params[1:]):
        logging_backend.log.clear()
        benchmark = suite()
        benchmark.setup(*parameters)
        warm = set(logging_backend.log)
        for name in _methods(suite):
            logging_backend.log.clear()
            getattr(benchmark, name)(*parameters)
            assert set(logging_backend.log) <= warm, name
            assert logging_backend.log[-1] in ("synchronize", "to_host"), name


def test_every_operation_of_the_contract_is_measured(logging_backend):
    measured = set()
    for suite in ON_BACKENDS:
        if suite.__module__ not in (operations.__name__, table_operations.__name__, losses.__name__):
            continue
        for parameters in itertools.product(suite.params[0][:1], *suite.params[1:]):
            benchmark = suite()
            benchmark.setup(*parameters)
            for name in _methods(suite):
                logging_backend.log.clear()
                getattr(benchmark, name)(*parameters)
                measured.update(logging_backend.log)
    # Memory is allocated before training starts, never in the loop.
    assert measured == {*OPERATIONS, *OUTSIDE_OF_STEPS} - {"empty"}


@pytest.mark.parametrize("net", common.NETS)
def test_a_block_of_steps_stays_within_the_epoch(net, monkeypatch):
    monkeypatch.setattr(common, "BLOCK_SECONDS", 1e9)
    benchmark = training.TrainingStep()
    benchmark.setup("numpy", net)
    assert benchmark.steps == common.TRAIN_ROWS // PRESETS[net].batch_size
    assert benchmark.track_us_per_step("numpy", net) > 0


@pytest.mark.parametrize("net", common.NETS)
def test_training_does_not_diverge(net):
    # NaN takes other paths through exp and log than numbers.
    run = common.training_run(nn.get_backend("numpy"), net, common.TRAIN_ROWS)
    for _ in range(5):
        result = run.epoch()
    assert np.isfinite(result.losses).all()
    assert result.rows == common.TRAIN_ROWS


def test_images_are_like_mnist_and_always_the_same():
    x, y = common.images(3_000)
    assert x.shape == (3_000, 784)
    assert x.dtype == np.uint8
    assert 0.18 < np.count_nonzero(x) / x.size < 0.20
    assert set(y) == set(range(10))
    again = common.images(3_000)
    assert np.array_equal(x, again[0])
    assert np.array_equal(y, again[1])


def test_matrix_has_the_padding_the_backend_asks_for():
    class Padded(NumpyBackend):
        row_multiple = 16

    padded, plain = common.matrix(Padded(), 3, 10), common.matrix(NumpyBackend(), 3, 10)
    assert padded.strides == (64, 4)
    assert plain.strides == (40, 4)
    assert np.array_equal(padded, plain)


# ---- asv and its results --------------------------------------------------------------------------------------


@every_suite
def test_backends_are_the_first_axis_on_every_machine(suite):
    assert suite.params[0] == ("numpy", "numba", "cupy", "torch")
    assert set(suite.params[0]) == {*AUTO_ORDER, "torch"}
    assert suite.param_names[0] == "backend"
    assert len(suite.param_names) == len(suite.params)


def test_nets_are_those_of_earlier_results():
    # Results are compared over years. If a preset changes, raise `version` in the suites that use it.
    facts = {
        name: (PRESETS[name].hidden, PRESETS[name].activation, PRESETS[name].batch_size, PRESETS[name].optimizer)
        for name in common.NETS
    }
    assert facts == {
        "784-40-10": ((40,), "sigmoid", 100, "sgd"),
        "784-200-80-10": ((200, 80), "relu", 256, "sgd"),
        "784-500-1000-300-10": ((500, 1000, 300), "relu", 100, "adam"),
    }
    for name in common.NETS:
        network = common.make_network(nn.get_backend("numpy"), name)
        assert network.parameter_count == common.parameter_count(name)
        assert type(PRESETS[name].make_optimizer()) is OPTIMIZERS[PRESETS[name].optimizer]


def test_every_benchmark_has_a_unique_display_name():
    names = [method.__dict__.get("pretty_name") for method in BENCHMARKS.values()]
    assert all(names)
    assert len(set(names)) == len(names)


def test_tracked_figures_have_units():
    units = {name: method.__dict__.get("unit") for name, method in BENCHMARKS.items() if ".track_" in name}
    assert units
    for name, unit in units.items():
        assert unit == ("samples/s" if "samples_per_second" in name else "us"), name


def test_regressions_ignore_exactly_the_figures_where_higher_is_better():
    settings = _settings()
    ignored = {
        name
        for name in BENCHMARKS
        for pattern, start in settings["regressions_first_commits"].items()
        if re.match(pattern, name) and start is None
    }
    assert ignored == {name for name, method in BENCHMARKS.items() if getattr(method, "unit", "") == "samples/s"}
    assert ignored


@pytest.mark.slow
def test_asv_accepts_the_suites(tmp_path):
    pytest.importorskip("asv", reason="asv is not installed: pip install -e '.[bench]'")
    settings = _settings()
    # Outside the checkout, whose .asv folder may contain results.
    settings |= {"repo": str(ROOT), "benchmark_dir": str(ROOT / settings["benchmark_dir"])}
    settings |= {folder: str(tmp_path / folder) for folder in ("env_dir", "results_dir", "html_dir")}
    (tmp_path / "asv.conf.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "asv", "check", "--python=same"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No problems found" in done.stdout
