"""Runs the configurations with the package of a checkout in a separate process, and compares two packages."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["INTENDED", "ROOT", "against", "differences"]

ROOT = Path(__file__).resolve().parents[2]

#: Configurations with intended differences from older commits, and the reasons. They are printed but not counted.
#: Remove entries when the commit to compare with also has the new results.
INTENDED: dict[str, str] = {
    **dict.fromkeys(
        ("numpy/losses", "numba/losses", "numpy-padded/losses"),
        "classes with sigmoid cross-entropy: the metric counts rows; for several labels, predict_classes returns all",
    ),
    **dict.fromkeys(
        ("numpy/batch-stream", "numba/batch-stream", "numba-padded/batch-stream"),
        "the validation loss of a stream with weights is a weighted mean, with the unweighted one beside it",
    ),
    "numba/own-layer": "a function of the user's own no longer sends its neighbours to BLAS: they run compiled",
    "numpy/files": "files describe the inputs of the training",
    "numpy/onnx-file": "models scale inputs of every dtype as the training did",
    "numpy/flat-bytes": "uint8 is scaled only if it is known to be pixels",
    "numba/flat-bytes": "uint8 is scaled only if it is known to be pixels",
}

#: The first process compiles; the second and third should agree.
_MOST_RUNS = 4

Results = Mapping[str, Mapping[str, str]]


def against(commit: str, only: str) -> tuple[Results, Results]:
    """The results of another commit's package, and of this one.

    Parameters
    ----------
    commit : str
        Anything that names a commit.
    only : str
        A regular expression for the names of configurations to run.

    Returns
    -------
    then, now : dict
        By configuration, checksums by part.
    """
    # The files of this folder are used with both packages, not those of the other commit.
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "golden")
        shutil.copytree(Path(__file__).parent, script, ignore=shutil.ignore_patterns("__pycache__"))
        number = _git("rev-parse", "--verify", f"{commit}^{{commit}}")
        kept = ROOT / "build" / "golden" / f"{number[:12]}-{_fingerprint(script, only)}.json"
        if kept.exists():
            then = json.loads(kept.read_text(encoding="utf-8"))
        else:
            with _worktree(number) as checkout:
                then = _run(script, checkout, only)
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(then, indent=1), encoding="utf-8")
        return then, _run(script, ROOT, only)


def differences(then: Results, now: Results) -> Iterator[tuple[str, str]]:
    """Names of configurations that differ or fail, with the differences.

    Parameters
    ----------
    then, now : dict
        By configuration, checksums by part.
    """
    for name in sorted({*then, *now}):
        old, new = then.get(name, {}), now.get(name, {})
        errors = [f"{when}: {side['error']}" for when, side in (("then", old), ("now", new)) if "error" in side]
        if errors:
            yield name, "; ".join(errors)
            continue
        parts = [part for part in sorted({*old, *new}) if old.get(part) != new.get(part)]
        if parts:
            yield name, ", ".join(f"{part} {old.get(part, 'missing')} -> {new.get(part, 'missing')}" for part in parts)


def _run(script: Path, checkout: Path, only: str) -> Results:
    """The configurations' results with the package of a checkout, confirmed by two consecutive processes.

    A process that compiles for Numba may get different bits from those that load the compiled code.
    """
    before = _run_once(script, checkout, only)
    for _ in range(_MOST_RUNS - 1):
        results = _run_once(script, checkout, only)
        unlike = [name for name in results if results[name] != before[name]]
        if not unlike:
            return results
        before = results
    return {**before, **{name: {"error": "every process has another result"} for name in unlike}}


def _run_once(script: Path, checkout: Path, only: str) -> Results:
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-m", script.name, "--json", "--only", only, "--package", str(checkout)]
    # Failed configurations are part of the results; other errors end the comparison.
    done = subprocess.run(command, cwd=script.parent, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    try:
        results: Results = json.loads(done.stdout)
    except ValueError:
        raise SystemExit(f"the configurations did not run with the package in {checkout}") from None
    return results


@contextlib.contextmanager
def _worktree(commit: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder, "checkout")
        _git("worktree", "add", "--detach", str(checkout), commit)
        try:
            yield checkout
        finally:
            _git("worktree", "remove", "--force", str(checkout))


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.strip() or f"git {arguments[0]} failed")
    return done.stdout.strip()


def _fingerprint(script: Path, only: str) -> str:
    """What results depend on besides the package: the configurations, Python and its packages, the processor."""
    from importlib.metadata import distributions

    packages = sorted(f"{found.name} {found.version}" for found in distributions())
    digest = hashlib.sha256()
    for text in (only, sys.version, *packages, _processor(), str(os.cpu_count())):
        digest.update(text.encode())
    for path in sorted(script.glob("*.py")):
        # This file does not affect results.
        if path.name != Path(__file__).name:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        import platform

        return platform.processor()
    return next((line for line in lines if line.startswith("model name")), "")
