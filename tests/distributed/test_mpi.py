"""Ranks that are processes, started by a real mpiexec: communication and failures."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nnbackend.training.checkpoints.checkpoint import checkpoint_files, checkpoint_steps
from tests.distributed.program import train
from tests.training.resuming import assert_close_end

ROOT = Path(__file__).resolve().parents[2]


#: The mpiexec installed with this Python by the extra; another one may belong to another MPI than mpi4py's.
MPIEXEC = Path(sys.executable).parent / "mpiexec"
if importlib.util.find_spec("mpi4py") is None or not MPIEXEC.exists():
    pytest.skip('needs mpi4py and its mpiexec: pip install -e ".[mpi]"', allow_module_level=True)


def mpiexec(ranks, *program):
    """Run a program, which must end in time; returns its output and exit code."""
    command = [str(MPIEXEC), "-n", str(ranks), sys.executable, *program]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)


def trouble(kind):
    """Run a program in which the second rank fails; returns the errors of the ranks and all output."""
    done = mpiexec(2, "-m", "tests.distributed.program", kind)
    assert done.returncode != 0
    return re.findall("nnbackend: error: (.*)", done.stderr), done.stdout + done.stderr


@pytest.mark.slow
def test_messages_and_training():
    done = mpiexec(3, "-m", "tests.distributed.program", "work")
    assert done.returncode == 0, done.stderr
    # Lines of several ranks may be interleaved.
    assert sorted(re.findall("rank . has done its work", done.stdout)) == [
        f"rank {rank} has done its work" for rank in range(3)
    ]


@pytest.mark.slow
def test_many_networks():
    done = mpiexec(2, "-m", "tests.distributed.program", "many")
    assert done.returncode == 0, done.stderr
    assert sorted(re.findall("rank . has all networks", done.stdout)) == [
        f"rank {rank} has all networks" for rank in range(2)
    ]


def test_a_rank_that_sleeps_is_named():
    errors, _ = trouble("sleep")
    assert len(errors) == 1
    assert re.fullmatch(
        r"no response from rank 1 \(process \d+ on .*\), while rank 0 has waited \d\.\d s for a gather; all ranks end",
        errors[0],
    )


def test_a_rank_that_leaves_before_the_others_is_named():
    errors, _ = trouble("leave")
    assert "rank 1" in errors[0]
    assert "waits for the end of the program elsewhere" in errors[0]


def test_an_error_of_one_rank_ends_all():
    errors, output = trouble("raise")
    assert re.fullmatch(r"rank 1 of 2, process \d+ on .*, failed: OSError: the disk is full; all ranks end", errors[0])
    assert "in on_epoch_end" in output


def test_a_killed_rank_ends_all():
    _, output = trouble("kill")
    # The launcher's message may name another process, which it ended itself.
    assert "Killed (signal 9)" in output


@pytest.mark.parametrize("kind", ["kill", "kill-many"])
def test_a_killed_rank_is_named_by_the_others(kind, tmp_path):
    """The launcher sees a shell that succeeds, so that it does not end the ranks before they report the error."""
    program = f"{shlex.quote(sys.executable)} -m tests.distributed.program {kind} {shlex.quote(str(tmp_path))} || true"
    command = [str(MPIEXEC), "-disable-auto-cleanup", "-n", "2", "sh", "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    killed = re.search(r"rank 1 is (process \d+ on .*)", done.stdout).group(1)
    said = (tmp_path / "rank-0").read_text()
    assert f"nnbackend: error: rank 1 of 2, {killed}, has died; all ranks end\n" in said


@pytest.mark.slow
def test_killed_and_terminated_ranks_resume_with_another_number(tmp_path):
    """SIGKILL in the second epoch; three ranks resume, and one gets SIGTERM in the first step; then a single rank
    finishes."""
    killed = mpiexec(2, "-m", "tests.distributed.program", "keep", str(tmp_path))
    assert killed.returncode != 0
    assert checkpoint_steps(checkpoint_files(tmp_path)[0]) == 7
    ended = mpiexec(3, "-m", "tests.distributed.program", "resume", str(tmp_path))
    assert "nnbackend: error" not in ended.stderr
    assert (ended.returncode, ended.stdout) == (143, ""), ended.stderr
    assert checkpoint_steps(checkpoint_files(tmp_path)[0]) == 7
    assert_close_end(train(None, resume=tmp_path), train(None), 1e-12)


@pytest.mark.slow
def test_the_command_line(tmp_path):
    command = ("-m", "nnbackend", "train", "--dataset", "mnist-5k", "--backend", "numpy", "--hidden", "8")
    command += ("--epochs", "1", "--no-plots", "--out", str(tmp_path / "run"))
    done = mpiexec(2, *command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1
    assert re.search(r"ranks +0: process \d+ on .*\n +1: process", done.stdout)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "checkpoint.safetensors",
        "config.json",
        "history.csv",
        "history.json",
        "model.safetensors",
    ]
    again = mpiexec(2, *command)
    assert again.returncode == 2
    assert again.stderr.count("already holds a run") == 1
