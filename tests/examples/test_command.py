"""``nnbackend examples``: the list, running an example, and errors."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nnbackend.cli import main
from nnbackend.cli.examples import folder, summaries


def nnbackend(*arguments: str, folder: Path, answers: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nnbackend", "examples", *arguments]
    return subprocess.run(command, cwd=folder, input=answers, capture_output=True, text=True)


@pytest.fixture
def in_this_process(example, tmp_path, monkeypatch, capsys):
    """``in_this_process("run", "xor")``: the same in this process, because imports take longer than the examples.
    Returns the exit code, the output and the errors.
    """
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        try:
            code = main(["examples", *arguments])
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


def test_all_are_listed_in_order(capsys):
    assert main(["examples"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  S")]
    assert [line.split()[0] for line in lines] == [f"S{number}" for number in range(1, 14)]
    assert [line.split()[1] for line in lines] == list(summaries())
    assert all(30 < len(line) <= 105 and not line.endswith(".") for line in lines)


def test_every_program_in_the_folder_is_listed():
    assert set(summaries()) == {path.stem for path in folder().glob("*.py")} - {"tools"}


@pytest.mark.parametrize("name", ["first_neuron", "S11", "s11"])
def test_one_runs_by_name_or_number(name, tmp_path, in_this_process):
    code, printed, errors = in_this_process("run", name, "--backend", "numpy", "--out", "pictures")
    assert code == 0, errors
    assert "one neuron:         0.9990889488055994\n" in printed
    assert "backend numpy" in printed
    assert (tmp_path / "pictures" / "sigmoid.png").stat().st_size > 5_000


@pytest.mark.slow
def test_pictures_go_to_a_folder_of_its_name(tmp_path):
    done = nnbackend("run", "first_neuron", "--backend", "numpy", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"picture: {Path('runs', 'first_neuron', 'sigmoid.png')}\n")
    assert (tmp_path / "runs" / "first_neuron" / "sigmoid.png").exists()


def test_the_same_program_runs_without_the_command(tmp_path):
    path = folder() / "first_neuron.py"
    command = [sys.executable, str(path), "--backend", "numpy", "--out", "here"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "three neurons:      0.7216325609518421\n" in done.stdout
    assert (tmp_path / "here" / "sigmoid.png").exists()


def test_help_is_that_of_the_example(tmp_path):
    done = nnbackend("run", "circle", "--help", folder=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: circle.py ")
    assert "Errors in the tutorial" in done.stdout
    assert "--interactive" in done.stdout
    assert "--interactive" not in nnbackend("run", "xor", "--help", folder=tmp_path).stdout


@pytest.mark.slow
def test_the_circle_accepts_piped_answers(tmp_path):
    done = nnbackend(
        "run", "circle", "--interactive", "--backend", "numpy", "--out", "c", folder=tmp_path, answers="n\ny\n300\nn\n"
    )
    assert done.returncode == 0, done.stderr
    assert "Use this network? [y/n] n\n" in done.stdout
    assert "starting network 2" in done.stdout
    assert "round 1: 300 points" in done.stdout
    assert {path.name for path in (tmp_path / "c").iterdir()} == {
        "0-truth.png", "1-start-1.png", "2-start-2.png", "3-round-1.png", "4-after.png"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "circel"], "nnbackend: error: unknown example 'circel': did you mean 'circle' or"),
        (["run"], "the following arguments are required: name"),
        (["sing"], "unknown command 'sing'; known: run"),
        (["run", "xor", "--sead", "1"], "unrecognized arguments: --sead 1"),
        (["run", "xor", "--backend", "abacus"], "xor: error: unknown backend 'abacus'"),
        (["run", "xor", "--seed", "-1"], "xor: error: seed must be"),
        (["run", "xor", "--out", sys.executable], f"xor: error: --out {sys.executable}: {sys.executable} is a file"),
        (["run", "xor", "--out", f"{sys.executable}/deeper"], "is a file; choose a folder"),
    ],
)
def test_an_error_is_reported_in_one_line(arguments, message, tmp_path, in_this_process):
    code, _, errors = in_this_process(*arguments)
    assert code == 2
    assert message in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.iterdir())


def test_a_lock_is_held_by_a_process(tmp_path):
    done = nnbackend("run", "xor", "--backend", "abacus", folder=tmp_path)
    assert done.returncode == 2
    assert "xor: error: unknown backend 'abacus'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_ctrl_c_ends_the_example_and_not_only_its_training(tmp_path):
    command = [sys.executable, "-u", "-m", "nnbackend", "examples", "run", "mnist_sigmoid", "--quick"]
    with subprocess.Popen(
        [*command, "--backend", "numpy"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while "Epoch 0" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "mnist_sigmoid: interrupted" in errors
    assert "accuracy" not in printed
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_it_says_what_to_install_before_it_trains(tmp_path):
    blocked = "import sys; sys.modules['matplotlib'] = None; import importlib.util as u; find = u.find_spec\n"
    blocked += "u.find_spec = lambda name: None if name == 'matplotlib' else find(name)\n"
    blocked += "from nnbackend.cli import main; sys.exit(main(['examples', 'run', 'xor', '--backend', 'numpy']))"
    done = subprocess.run([sys.executable, "-c", blocked], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert 'pictures need the package matplotlib: pip install -e ".[plot]" in your checkout' in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
def test_a_wheel_contains_the_examples(tmp_path):
    """Installed without the checkout, the command finds them within the package."""
    import zipfile

    root = folder().parent
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*build, str(root)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert {f"nnbackend/examples/{path.name}" for path in folder().glob("*.py")} <= names
    # The notebook, which consists mostly of pictures, is not included.
    assert not [name for name in names if name.endswith(".ipynb")]
    page = root / "nnbackend" / "web" / "page"
    assert {f"nnbackend/web/page/{path.name}" for path in page.iterdir()} <= names
    code = "import sys; sys.path.insert(0, 'site'); from nnbackend.cli import main; main(['examples'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "S13  network3" in done.stdout
