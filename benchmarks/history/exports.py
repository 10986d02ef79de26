"""The packages of other commits, each in a folder with a cache of its own, and what the suite measures there."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["ROOT", "Export", "Request", "dates", "git", "resolve"]

ROOT = Path(__file__).parents[2]
_SUITE = Path(__file__).with_name("suite.py")

#: A benchmark by name, and its parameters.
Request = tuple[str, Sequence[str]]


def git(*arguments: str) -> bytes:
    """The output of a command of git; CalledProcessError if it fails."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout


def resolve(revision: str) -> str:
    """The full hash of a commit."""
    return git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").decode().strip()


def dates(commits: Sequence[str]) -> dict[str, int]:
    """Milliseconds since 1970 at which commits, given by their full hashes, were committed."""
    lines = git("log", "--no-walk=unsorted", "--format=%H %ct", *commits).decode().splitlines()
    return {commit: int(seconds) * 1000 for commit, seconds in (line.split() for line in lines)}


class Export:
    """The files of a commit's package: no worktree of git, whose records a killed sitting would leave behind."""

    def __init__(self, commit: str, folder: Path) -> None:
        self.commit = commit
        self.folder = folder / commit[:12]

    def create(self) -> None:
        """Write the files, unless an earlier call has."""
        finished = self.folder / "finished"
        if not finished.exists():
            archive = io.BytesIO(git("archive", "--format=tar", self.commit, "nnbackend"))
            with tarfile.open(fileobj=archive) as tar:
                tar.extractall(self.folder, filter="data")
            finished.touch()

    def measure(self, requests: Sequence[Request], seconds: float) -> list[float | None]:
        """Results of the suite in a new process with this package; `seconds` for each measurement."""
        cache = str(self.folder / "cache")
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            "PYTHONPATH": str(self.folder),
            "NUMBA_CACHE_DIR": cache,
            "XDG_CACHE_HOME": cache,
        }
        command = [sys.executable, str(_SUITE), json.dumps(requests), str(seconds)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the suite failed with commit {self.commit[:8]}:\n{done.stderr}")
        answer = json.loads(done.stdout.splitlines()[-1])
        # Otherwise an installed package would be measured instead.
        if not Path(answer["package"]).is_relative_to(self.folder):
            raise RuntimeError(f"{answer['package']} was imported instead of the package of commit {self.commit[:8]}")
        results: list[float | None] = answer["results"]
        return results
