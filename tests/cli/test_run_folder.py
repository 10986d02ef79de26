"""The folder of a run: locked while it changes, finished only when everything is there, and possibly a stranger's."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from pathlib import Path

import pytest

import nnbackend as nn
from nnbackend.cli import main, run_folder, train
from nnbackend.cli.run_folder import RunFolder
from nnbackend.training.checkpoints.checkpoint import checkpoint_files
from nnbackend.training.checkpoints.folder_lock import FolderLock
from tests.cli.commands import POINTS, RUN_FILES
from tests.support.test_files import KINDS, place

RUN = (*POINTS, "--hidden", "4", "--epochs", "3", "--quiet", "--no-plots", "--checkpoint-minutes", "1e-9")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run. Tests copy it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert main(["train", *RUN, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


class Killed(BaseException):
    """Like SIGKILL, it is caught nowhere."""


def kill(*arguments, **options):
    raise Killed


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that was killed when it had trained, before its model was saved."""
    folder = tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(train, "finish", kill)
        with pytest.raises(Killed):
            main(["train", *RUN, "--out", str(folder)])
    return folder


def same_results(folder: Path, other: Path) -> bool:
    tables = [json.loads((each / "history.json").read_text()) for each in (folder, other)]
    for table in tables:
        for epoch in table["epochs"]:
            del epoch["seconds"], epoch["samples_per_second"]
    models = [(each / "model.safetensors").read_bytes() for each in (folder, other)]
    return tables[0] == tables[1] and models[0] == models[1]


class TestTwoProcesses:
    def test_what_is_being_written_is_left_alone(self, killed: Path, capsys: pytest.CaptureFixture[str]):
        """A second `--resume` is refused before it removes the temporary file of the first."""
        (killed / ".nnbackend-1.tmp").write_bytes(b"half")
        before = {path: path.stat().st_mtime_ns for path in killed.rglob("*")}
        with FolderLock(str(killed)):
            (killed / ".nnbackend-2.tmp").write_bytes(b"half")
            for command in (["--resume", str(killed)], [*RUN, "--out", str(killed), "--force"]):
                assert main(["train", *command]) == 2
                assert "is in use: process" in capsys.readouterr().err
            assert (killed / ".nnbackend-2.tmp").exists()
            assert all(path.stat().st_mtime_ns == at for path, at in before.items() if path.name == "config.json")
        assert main(["train", "--resume", str(killed), "--no-plots"]) == 0
        assert {path.name for path in killed.iterdir()} == RUN_FILES

    def test_only_one_of_two_begins(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch):
        """Both have seen an empty folder; the other has finished when this one wants to begin."""
        folder, load = tmp_path / "run", train.load_data

        def slow(name, options):
            monkeypatch.setattr(train, "load_data", load)
            assert main(["train", *RUN, "--seed", "1", "--out", str(folder)]) == 0
            return load(name, options)

        monkeypatch.setattr(train, "load_data", slow)
        assert main(["train", *RUN, "--seed", "2", "--out", str(folder)]) == 2
        assert "already holds a run" in capsys.readouterr().err
        assert json.loads((folder / "config.json").read_text())["seed"] == 1
        assert {path.name for path in folder.iterdir()} == RUN_FILES

    @pytest.mark.parametrize("name", ["run{epoch}", "a{b", "{nothing}"])
    def test_braces_in_the_name_of_the_folder(self, tmp_path: Path, name: str):
        """No pattern: epochs are not written to other folders."""
        assert main(["train", *RUN, "--out", str(tmp_path / name)]) == 0
        assert os.listdir(tmp_path) == [name]
        nn.Network.load(tmp_path / name / "model.safetensors")

    def test_folders_named_after_the_time_differ(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(run_folder.time, "strftime", lambda layout: "now")
        found: list[Path] = []
        threads = [threading.Thread(target=lambda: found.append(RunFolder.fresh("x").path)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(found)) == 8


class TestKilled:
    def test_while_pictures_are_drawn(self, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        pytest.importorskip("matplotlib")
        folder = tmp_path / "run"
        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, "save_pictures", kill)
            with pytest.raises(Killed):
                main(["train", *(option for option in RUN if option != "--no-plots"), "--out", str(folder)])
        assert main(["train", "--resume", str(folder), "--quiet"]) == 0
        assert {path.name for path in folder.iterdir()} == {*RUN_FILES, "curves.png", "confusion.png"}
        assert same_results(folder, finished)

    def test_before_the_checkpoints_are_removed(self, finished: Path, tmp_path: Path, monkeypatch):
        folder = tmp_path / "run"
        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, "end", kill)
            with pytest.raises(Killed):
                main(["train", *RUN, "--out", str(folder)])
        assert checkpoint_files(folder / "checkpoints")
        assert main(["train", "--resume", str(folder), "--quiet", "--no-plots"]) == 0
        assert {path.name for path in folder.iterdir()} == RUN_FILES
        assert same_results(folder, finished)

    def test_an_empty_folder_of_checkpoints_is_removed(self, run: Path):
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / "lock").write_text("process 1 on nowhere")
        assert main(["train", "--resume", str(run)]) == 0
        assert {path.name for path in run.iterdir()} == RUN_FILES

    def test_before_the_first_checkpoint_a_failure_to_resume_keeps_the_run(self, killed: Path, monkeypatch, capsys):
        for path in (*checkpoint_files(killed / "checkpoints"), killed / "model.safetensors"):
            path.unlink()

        def fail(*arguments):
            raise nn.errors.DataError("no data today")

        with monkeypatch.context() as patch:
            patch.setattr(train, "_fit", fail)
            assert main(["train", "--resume", str(killed)]) == 2
        assert "no data today" in capsys.readouterr().err
        assert (killed / "config.json").exists()
        assert main(["train", "--resume", str(killed), "--no-plots"]) == 0


class TestMoreEpochs:
    @pytest.mark.parametrize("schedule", ["constant", "cosine", "one-cycle", "plateau"])
    def test_a_finished_run_trains_on(self, tmp_path: Path, schedule: str, capsys: pytest.CaptureFixture[str]):
        short, long = tmp_path / "short", tmp_path / "long"
        # Of the options that are given twice, the last counts.
        command = ["train", *RUN, "--schedule", schedule]
        assert main([*command, "--epochs", "2", "--out", str(short)]) == 0
        assert main(["train", "--resume", str(short), "--epochs", "4", "--no-plots"]) == 0
        assert "softmax_cross_entropy, 4 epochs" in capsys.readouterr().out
        assert main([*command, "--epochs", "4", "--out", str(long)]) == 0
        assert len(json.loads((short / "history.json").read_text())["epochs"]) == 4
        assert same_results(short, long) == (schedule not in ("cosine", "one-cycle"))
        rates = [epoch["learning_rate"] for epoch in json.loads((short / "history.json").read_text())["epochs"]]
        wanted = [epoch["learning_rate"] for epoch in json.loads((long / "history.json").read_text())["epochs"]]
        assert rates[2:] == wanted[2:]
        assert main(["train", "--resume", str(short)]) == 0
        assert "is finished: 4 epochs" in capsys.readouterr().out
        assert {path.name for path in short.iterdir()} == RUN_FILES

    def test_a_killed_run_gets_more_epochs_and_is_killed_again(self, killed: Path, monkeypatch: pytest.MonkeyPatch):
        for epochs in ("5", "6"):
            with monkeypatch.context() as patch:
                patch.setattr(train, "finish", kill)
                with pytest.raises(Killed):
                    main(["train", "--resume", str(killed), "--epochs", epochs])
        assert main(["train", "--resume", str(killed), "--no-plots"]) == 0
        assert len(json.loads((killed / "history.json").read_text())["epochs"]) == 6

    def test_a_finished_run_without_its_last_state(self, run: Path, capsys: pytest.CaptureFixture[str]):
        (run / "checkpoint.safetensors").unlink()
        before = (run / "config.json").read_bytes()
        assert main(["train", "--resume", str(run), "--epochs", "9"]) == 2
        assert "has no checkpoint.safetensors to train on from" in capsys.readouterr().err
        assert (run / "config.json").read_bytes() == before

    def test_a_run_that_was_stopped_early(self, run: Path, capsys: pytest.CaptureFixture[str]):
        history = json.loads((run / "history.json").read_text())
        (run / "history.json").write_text(json.dumps({**history, "stopped_by": "EarlyStopping"}))
        assert main(["train", "--resume", str(run), "--epochs", "9"]) == 2
        assert "was ended after 3 epochs by EarlyStopping" in capsys.readouterr().err


def one_error(code: int, capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err
    assert (code, text.count("\n")) == (2, 1), text
    assert text.startswith("nnbackend: error: ")
    return text


class TestStrangers:
    @pytest.fixture
    def outside(self, tmp_path: Path):
        folder = tmp_path / "outside"
        folder.mkdir()
        (folder / "mine").write_text("mine")
        (folder / "checkpoint-000000000001.safetensors").write_text("mine")
        yield folder
        assert sorted(os.listdir(folder)) == ["checkpoint-000000000001.safetensors", "mine"]
        assert {path.read_text() for path in folder.iterdir()} == {"mine"}

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("name", ["config.json", "history.json", "history.csv", "model.safetensors", "lock"])
    def test_names_that_are_not_files(self, killed: Path, outside: Path, name: str, kind: str, capsys):
        with contextlib.suppress(FileNotFoundError):
            (killed / name).unlink()
        place(kind, killed / name, outside / "mine")
        code = main(["train", "--resume", str(killed), "--no-plots"])
        assert name in one_error(code, capsys)
        if name in ("config.json", "model.safetensors"):
            assert name in one_error(main(["evaluate", str(killed)]), capsys)

    def test_a_folder_of_checkpoints_elsewhere(self, killed: Path, outside: Path, capsys: pytest.CaptureFixture[str]):
        shutil.rmtree(killed / "checkpoints")
        (killed / "checkpoints").symlink_to(outside)
        for command in (["--resume", str(killed)], [*RUN, "--out", str(killed), "--force"]):
            assert "is not a folder of its own" in one_error(main(["train", *command]), capsys)

    @pytest.mark.parametrize(
        "change",
        [
            {"validation": 10**400},
            {"validation": "half"},
            {"seed": -1},
            {"dataset": ["circle"]},
            {"dataset": "nothing"},
            {"data_dir": 5},
            {"preset": {}},
            {"preset": "none"},
            {"dtype": "int8"},
            {"backend": None},
            {"recipe": []},
            {"recipe": {"hidden": 5}},
            {"recipe": {"hidden": ["a"]}},
            {"recipe": {"optimizer": []}},
            {"recipe": {"loss": {}}},
            {"recipe": {"activation": [1]}},
            {"recipe": {"schedule": []}},
            {"recipe": {"learning_rate": 10**400}},
            {"recipe": {"epochs": 0}},
            {"recipe": {"batch_size": 1.5}},
            {"recipe": {"unknown": 1}},
            {"earlier_epochs": 5},
            {"earlier_epochs": [[]]},
        ],
        ids=str,
    )
    def test_configurations_with_wrong_values(self, killed: Path, change: dict, capsys: pytest.CaptureFixture[str]):
        configuration = json.loads((killed / "config.json").read_text())
        if isinstance(change.get("recipe"), dict):
            change = {"recipe": {**configuration["recipe"], **change["recipe"]}}
        (killed / "config.json").write_text(json.dumps({**configuration, **change}))
        before = sorted(killed.rglob("*"))
        one_error(main(["train", "--resume", str(killed)]), capsys)
        assert sorted(killed.rglob("*")) == before

    @pytest.mark.parametrize(
        "text",
        ["[" * 100_000, "{", "[]", "{}x", '{"interrupted": false}', '{"epochs": ' + "9" * 5000 + "}"]
        + [json.dumps({"interrupted": 0, "epochs": [], "test": {"accuracy": value}}) for value in (10**400, "1", [])],
        ids=lambda text: text[:20],
    )
    def test_histories_with_wrong_values(self, killed: Path, text: str, capsys: pytest.CaptureFixture[str]):
        (killed / "history.json").write_text(text)
        assert "history.json" in one_error(main(["train", "--resume", str(killed)]), capsys)

    def test_a_history_of_gigabytes(self, killed: Path, capsys: pytest.CaptureFixture[str]):
        (killed / "history.json").write_text("{")
        os.truncate(killed / "history.json", 10 << 30)
        assert "history.json cannot be read" in one_error(main(["train", "--resume", str(killed)]), capsys)
