"""Programs that are started in unusual ways, each with several of them at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import nnbackend as nn
from tests.guest.work import work

ROOT = Path(nn.__file__).parent.parent
PROGRAM = Path(__file__).with_name("program.py")


def started(folder: Path, command: list[str], environment: dict[str, str], backends: str, **options: Any) -> Any:
    """What the program found; its working directory is the folder of the network's file."""
    results = folder / "results.json"
    variables = {
        "PATH": os.environ["PATH"],
        "GUEST_RESULTS": str(results),
        "GUEST_FOLDER": str(folder),
        "GUEST_BACKENDS": backends,
        "PYTHONPATH": str(ROOT),
        **{name: os.environ[name] for name in ("PYTHONPYCACHEPREFIX", "SYSTEMROOT") if name in os.environ},
        **environment,
    }
    done = subprocess.run(
        command, cwd=folder, env=variables, timeout=120, check=False, stderr=subprocess.PIPE, text=True, **options
    )
    assert done.returncode == 0, done.stderr
    return json.loads(results.read_text())


def check(found: Any, folder: Path, backends: str) -> None:
    assert found["results"] == {name: work(name, folder, verbose=False) for name in backends.split()}
    assert found["changed"] == []
    assert found["drawn"], "something has drawn from the generator that the program seeded"


@pytest.mark.slow
def test_no_docstrings_and_warnings_that_are_errors(tmp_path):
    """Also Python's development mode, which warns of files that are not closed, and checks memory."""
    command = [sys.executable, "-OO", "-W", "error", "-X", "dev", str(PROGRAM)]
    found = started(tmp_path, command, {}, "numpy numba", stdout=subprocess.DEVNULL)
    check(found, tmp_path, "numpy numba")
    assert found["optimised"] == 2


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_a_service_without_home_streams_and_locale(tmp_path):
    """Its program comes from standard input, so that there is no file of it."""
    command = ["/bin/sh", "-c", f'exec "{sys.executable}" - >&-']
    without = {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "HOME": "/dev/null",
        "OMP_NUM_THREADS": "1",
    }
    found = started(tmp_path, command, without, "numpy numba", input=PROGRAM.read_text())
    check(found, tmp_path, "numpy numba")
    assert found["streams"] == [True, False, True]


def test_a_zipped_package_in_isolated_mode(tmp_path):
    """As in frozen applications: the modules are no files, and nothing beside them can be written."""
    archive = tmp_path / "packages.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in [*ROOT.glob("nnbackend/**/*.py"), *ROOT.glob("tests/guest/*.py"), ROOT / "tests" / "__init__.py"]:
            packed.write(path, path.relative_to(ROOT))
    program = f"import sys; sys.path.insert(0, {str(archive)!r}); exec(open({str(PROGRAM)!r}).read())"
    command = [sys.executable, "-I", "-c", program]
    found = started(tmp_path, command, {"NUMBA_DISABLE_JIT": "1"}, "numpy", stdout=subprocess.DEVNULL)
    check(found, tmp_path, "numpy")
    assert "numba" not in found["usable"]
