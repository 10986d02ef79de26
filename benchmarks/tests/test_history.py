"""Benchmarks over the history: what they measure, in which order, how results are stored, compared and shown."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import json
import math
import re
import shutil
import tarfile
from pathlib import Path

import pytest

import nnbackend as nn
from benchmarks.history import compare, exports, page, sitting, store, suite
from benchmarks.history.sitting import GROUPS, Sitting, name_of
from nnbackend.errors import BackendUnavailableError

COMMITS = ["a" * 40, "b" * 40]


# ---- the five benchmarks ---------------------------------------------------------------------------------------


def test_there_are_five_benchmarks_with_units_and_unique_names():
    methods = {name: method for name, _, method in store.benchmarks()}
    assert len(methods) == 5
    assert len({method.pretty_name for method in methods.values()}) == 5
    assert {name: method.unit for name, method in methods.items()} == {
        name: "samples/s" if "samples" in name else "seconds" for name in methods
    }


def test_a_step_and_the_throughput_are_one_measurement(monkeypatch):
    monkeypatch.setattr(suite, "_seconds", 0.0)
    net = suite.NETS["784-40-10"]._replace(steps=2)
    monkeypatch.setitem(suite.NETS, "784-40-10", net)
    parameters = ["numpy", "784-40-10"]
    names = ["Training.track_seconds_per_step", "Training.track_samples_per_second"]
    step, rate = suite.measure([(name, parameters) for name in names])
    assert 0 < step < 1
    assert rate * step == pytest.approx(net.batch_size, rel=1e-3)


def test_the_times_of_epochs_leave_out_the_first_two(monkeypatch):
    times = suite._EpochTimes()
    clock = iter([10.0, 20.0, *(20.0 + step for step in range(1, 10))])
    monkeypatch.setattr(suite.time, "perf_counter", lambda: next(clock))
    reasons = [times.on_epoch_end(None, 0, {}) for _ in range(7)]
    assert reasons == [None] * 6 + ["measured"]
    assert times.seconds() == 1


def test_predictions_are_measured(monkeypatch):
    monkeypatch.setattr(suite, "_seconds", 0.0)
    assert 0 < suite.measure([("Predicting.track_seconds", ["numpy", "1"])])[0] < 1


def test_a_backend_that_cannot_run_has_no_result(monkeypatch):
    def unavailable(*_, **__):
        raise BackendUnavailableError("cupy", "there is no GPU", "use another backend")

    monkeypatch.setattr(nn, "Network", unavailable)
    assert suite.measure([(name, parameters) for name, parameters in GROUPS["cupy"]]) == [None] * len(GROUPS["cupy"])
    assert suite.measure(GROUPS["first run, cupy"]) == [None]


def test_a_version_older_than_a_backend_has_no_result_of_it(monkeypatch):
    def missing(name):
        def network(*_, **__):
            raise ModuleNotFoundError("no module", name=name)

        monkeypatch.setattr(nn, "Network", network)

    missing("nnbackend.backends.cupy")
    assert suite.measure(GROUPS["first run, cupy"]) == [None]
    missing("numpy.something")
    with pytest.raises(ModuleNotFoundError):
        suite.measure(GROUPS["first run, cupy"])


def test_another_package_than_the_commits_is_noticed(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(RuntimeError, match=r"was imported instead|the suite failed"):
        exports.Export("a" * 40, tmp_path).measure([], 0.0)


# ---- a sitting -------------------------------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch):
    """Measurements that are numbered instead of made; cupy cannot run. An entry of `stop` ends the sitting."""
    calls: list[tuple[str, str]] = []

    def measure(self, requests, seconds):
        group = next(name for name, each in GROUPS.items() if each is requests)
        if len(calls) in stop:
            stop.clear()
            raise KeyboardInterrupt
        calls.append((self.commit[0], group))
        return [None if "cupy" in group else float(len(calls)) for _ in requests]

    stop: set[int] = set()
    monkeypatch.setattr(exports.Export, "measure", measure)
    monkeypatch.setattr(exports.Export, "create", lambda self: None)
    return calls, stop


def test_commits_take_turns_and_go_back_in_odd_rounds(measured, tmp_path):
    calls, _ = measured
    Sitting(COMMITS, 3, 0.1, tmp_path).measure(progress=False)
    assert [commit for commit, group in calls if group == "numba"] == ["a", "b", "b", "a", "a", "b"]
    # The longest measurements are made once, and those that are impossible, too.
    for once in (*sitting.ONCE, "cupy"):
        assert [commit for commit, group in calls if group == once] == ["a", "b"]


def test_a_sitting_that_was_stopped_continues(measured, tmp_path):
    calls, stop = measured
    whole = Sitting(COMMITS, 2, 0.1, tmp_path / "whole").measure(progress=False)
    expected = list(calls)
    calls.clear()
    stop.add(5)
    with pytest.raises(KeyboardInterrupt):
        Sitting(COMMITS, 2, 0.1, tmp_path / "stopped").measure(progress=False)
    assert Sitting(COMMITS, 2, 0.1, tmp_path / "stopped").measure(progress=False) == whole
    assert calls == expected
    # Another plan begins from the start.
    Sitting(COMMITS, 1, 0.1, tmp_path / "stopped").measure(progress=False)
    assert len(calls) > len(expected)


def test_the_best_round_counts_and_none_is_kept(measured, tmp_path):
    calls, _ = measured
    found = sitting.best(Sitting(COMMITS[:1], 3, 0.1, tmp_path).measure(progress=False)[COMMITS[0]])
    times = [index + 1.0 for index, (_, group) in enumerate(calls) if group == "numba"]
    assert found["Predicting.track_seconds numba 1"] == min(times)
    assert found["Training.track_samples_per_second numba 784-40-10"] == max(times)
    assert found["Predicting.track_seconds cupy 1"] is None
    assert set(found) == {name_of(request) for requests in GROUPS.values() for request in requests}


def test_compiling_is_done_once_for_each_commit(measured, tmp_path):
    calls, _ = measured
    Sitting(COMMITS, 1, 0.1, tmp_path).compile()
    first = list(calls)
    Sitting(COMMITS, 3, 0.2, tmp_path).compile()
    assert calls == first
    assert not any(group in sitting.ONCE for _, group in calls)


# ---- asv's format ----------------------------------------------------------------------------------------------


def test_results_are_read_as_they_were_written(monkeypatch, tmp_path):
    monkeypatch.setattr(store, "dates", lambda commits: {commit: ord(commit[0]) for commit in commits})
    names = [name_of(request) for requests in GROUPS.values() for request in requests]
    rounds = {name: [None if "cupy" in name else index + 0.5] * 2 for index, name in enumerate(names)}
    results = {name: values[0] for name, values in rounds.items()}
    machine = store.describe("here")
    for commit in reversed(COMMITS):
        file = store.write(commit, rounds, machine, tmp_path)
    assert store.stored("here", tmp_path) == dict.fromkeys(COMMITS, results)
    # What is not measured again remains, with its rounds.
    results["Import.track_seconds"] = 0.25
    store.write(COMMITS[0], {"Import.track_seconds": [0.25, 0.5]}, machine, tmp_path)
    assert store.stored("here", tmp_path)[COMMITS[0]] == results
    assert store._read(file)[1]["Import.track_seconds"] == [0.25, 0.5]
    assert store._read(file)[1]["Predicting.track_seconds numba 1"] == rounds["Predicting.track_seconds numba 1"]
    assert list(store.stored("here", tmp_path)) == COMMITS
    # One that fails now has neither a result nor earlier rounds.
    store.write(COMMITS[0], {"Import.track_seconds": [None, None]}, machine, tmp_path)
    assert store.stored("here", tmp_path)[COMMITS[0]] == {**results, "Import.track_seconds": None}
    assert "Import.track_seconds" not in store._read(file)[1]
    asv = pytest.importorskip("asv.results", reason="asv is not installed: pip install -e '.[bench]'")
    known = asv.Results.load(str(file), "here")
    described = json.loads((tmp_path / "benchmarks.json").read_text())
    assert known.get_result_keys(described) == {name for name in described if name != "version"}
    key = "history.suite.Predicting.track_seconds"
    values = known.get_result_value(key, described[key]["params"])
    assert [math.isnan(value) for value in values] == [False] * 4 + [True] * 2
    assert values[2] == results["Predicting.track_seconds numba 1"]


def test_results_of_two_machines_are_not_mixed(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="name this machine with --machine; there are results of none"):
        store.machine_of(None, tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "machine.json").write_text(json.dumps(store.describe("here")))
    assert store.machine_of(None, tmp_path)["machine"] == "here"
    monkeypatch.setattr(store, "cpu_name", lambda: "another")
    with pytest.raises(ValueError, match=r"not the machine here \(cpu: .*, here another\); give another --machine"):
        store.machine_of(None, tmp_path)
    assert store.machine_of("there", tmp_path)["cpu"] == "another"


def test_stored_results_are_of_the_benchmarks_as_they_are(tmp_path):
    store._write_benchmarks(tmp_path)
    assert (store.FOLDER / "benchmarks.json").read_text() == (tmp_path / "benchmarks.json").read_text()
    machines = [file.parent.name for file in store.FOLDER.glob("*/machine.json")]
    for machine in machines:
        for commit, results in store.stored(machine).items():
            assert re.fullmatch(r"[0-9a-f]{40}", commit)
            assert all(value is None or value > 0 for value in results.values())
    assert max(len(store.stored(machine)) for machine in machines) >= 10


# ---- what became slower ----------------------------------------------------------------------------------------


def test_only_what_is_clearly_slower_is_reported():
    pairs = {
        "slower": [(1.0, 1.3), (1.0, 1.2), (1.1, 1.4)],
        "as fast": [(1.0, 1.1), (1.0, 1.0)],
        "disturbed": [(1.0, 1.6), (1.0, 1.5), (1.0, 1.05)],
        "contradicted": [(1.0, 1.3), (1.2, 1.21), (1.0, 1.3)],
        "faster": [(1.0, 0.5), (1.0, 0.6)],
        "once": [(1.0, 9.0)],
    }
    lines = compare.report(pairs)
    assert len(lines) == 2
    assert "1.27 times the time: slower (1, now 1.3)" in lines[0]
    assert "1 of 6 benchmarks became more than 15% slower; 1 could be measured only once" in lines[1]
    assert "none of 1" in compare.report({"as fast": pairs["as fast"]})[0]


def test_a_comparison_pairs_the_later_commit_with_the_earlier(monkeypatch, measured, tmp_path):
    def measure(self, requests, seconds):
        return [2.0 if self.commit == COMMITS[1] else 1.0 for _ in requests]

    monkeypatch.setattr(exports.Export, "measure", measure)
    pairs = compare._measure([exports.Export(commit, tmp_path) for commit in COMMITS], 0.0)
    assert all(pair == (1.0, 2.0) for each in pairs.values() for pair in each)
    assert {name: len(each) for name, each in pairs.items()} == {name: 2 if "FirstRun" in name else 3 for name in pairs}


def test_a_checkout_without_the_other_commit_is_not_compared(capsys):
    compare.compare("no-such-commit", 0.0)
    assert "no comparison of speed: this checkout has no commit no-such-commit" in capsys.readouterr().out


# ---- the page --------------------------------------------------------------------------------------------------


def _integrity(content: bytes, algorithm: str) -> str:
    return f"{algorithm}-{base64.b64encode(hashlib.new(algorithm, content).digest()).decode()}"


@pytest.fixture
def asvs_page(tmp_path, monkeypatch):
    """A folder with asv's page, and a function that writes archives with files of the right names."""
    spec = importlib.util.find_spec("asv")
    if spec is None or spec.origin is None:
        pytest.skip("asv is not installed: pip install -e '.[bench]'")
    html = tmp_path / "html"
    shutil.copytree(Path(spec.origin).parent / "www", html)
    packages = json.loads(page._PACKAGES.read_text())
    archives = {}
    for name, entry in packages.items():
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as tar:
            for file in entry["files"]:
                content = f"{name} {file}".encode()
                member = tarfile.TarInfo(f"package/{file}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        archives[name] = stream.getvalue()
        entry["integrity"] = _integrity(archives[name], "sha512")
    monkeypatch.setattr(page, "_PACKAGES", tmp_path / "packages.json")
    page._PACKAGES.write_text(json.dumps(packages))

    def package(name, version, folder):
        assert version == packages[name]["version"]
        file = folder / f"{name}.tgz"
        file.write_bytes(archives[name])
        return file

    return html, package


def test_the_page_loads_nothing_from_outside(asvs_page):
    html, package = asvs_page
    page.without_internet(html, package)
    text = (html / "index.html").read_text()
    elements = re.findall(r"<(?:script|link)\b[^>]*>", text)
    assert not [element for element in elements if "//" in element]
    ours = [element for element in elements if "vendor/" in element]
    assert len(ours) == len(page.SOURCES)
    for element in ours:
        file, integrity = re.search(r'"(vendor/[^"]+)" integrity="([^"]+)"', element).groups()
        assert integrity == _integrity((html / file).read_bytes(), "sha384")
        assert "crossorigin" not in element
    assert 'name="viewport"' in text
    assert (html / "phone.css").exists()
    assert "'n/a'" in (html / "summarylist.js").read_text()


def test_only_what_has_results_is_shown(tmp_path):
    mine, stored = tmp_path / "mine", tmp_path / "stored"
    for folder, machines in ((mine, ("idle", "busy")), (stored, ("old",))):
        for machine in machines:
            (folder / machine).mkdir(parents=True)
            (folder / machine / "machine.json").write_text("{}")
        (folder / "benchmarks.json").write_text(json.dumps({"version": 2, "a": folder.name, "b": 1, "c": 1}))
    (mine / "busy" / "1.json").write_text('{"results": {"b": []}}')
    (stored / "old" / "2.json").write_text('{"results": {"a": []}}')
    page._collect(tmp_path / "all", [mine, stored, tmp_path / "missing"])
    assert {path.name for path in (tmp_path / "all").iterdir()} == {"busy", "old", "benchmarks.json"}
    assert json.loads((tmp_path / "all" / "benchmarks.json").read_text()) == {"version": 2, "a": "stored", "b": 1}


def test_the_list_shows_the_newest_result(tmp_path):
    folder = tmp_path / "graphs" / "machine"
    folder.mkdir(parents=True)
    (folder / "one.json").write_text("[[3, 8.0], [5, 2.0], [7, null]]")
    (folder / "many.json").write_text("[[3, [1.0, null]], [5, [4.0, null]]]")
    rows = [{"name": name, "idx": idx} for name, idx in (("one", None), ("many", 0), ("many", 1), ("missing", None))]
    (folder / "summary.json").write_text(json.dumps([row | {"last_value": 5.0, "last_err": 1.0} for row in rows]))
    page.show_newest(tmp_path)
    shown = json.loads((folder / "summary.json").read_text())
    assert [row["last_value"] for row in shown] == [2.0, 4.0, None, None]
    assert [row["last_err"] for row in shown] == [0.0, 0.0, None, None]


def test_every_package_has_a_licence():
    for name, entry in json.loads(page._PACKAGES.read_text()).items():
        # This one has its licence at the beginning of its script.
        assert name == "flot-orderbars" or any(file.startswith("LICENSE") for file in entry["files"])
        assert entry["integrity"].startswith("sha512-")
    assert {source.partition("/")[0] for source in page.SOURCES.values()} == set(json.loads(page._PACKAGES.read_text()))


def test_a_package_with_another_checksum_is_refused(asvs_page):
    html, package = asvs_page

    def changed(name, version, folder):
        file = package(name, version, folder)
        file.write_bytes(file.read_bytes() + b"\0")
        return file

    with pytest.raises(RuntimeError, match=r"the package jquery 3\.3\.1 is not the one of packages\.json"):
        page.without_internet(html, changed)


def test_a_new_version_of_asvs_page_is_noticed(asvs_page):
    html, package = asvs_page
    index = html / "index.html"
    original = index.read_text()
    index.write_text(original.replace("</title>", '</title><script src="https://example.org/new.js"></script>'))
    with pytest.raises(RuntimeError, match=r"https://example\.org/new\.js, for which"):
        page.without_internet(html, package)
    index.write_text(original)
    (html / "summarylist.js").write_text("")
    with pytest.raises(RuntimeError, match=r"asv has changed summarylist\.js"):
        page.without_internet(html, package)
