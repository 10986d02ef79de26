"""Modules and names that moved: the old names work for one release, with a warning that gives the new name."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, cast

__all__ = ["MOVED", "install"]

#: Where the modules of version 0.1.0 are now.
MOVED = {
    "nnbackend.backends.base": "nnbackend.backends.contract",
    "nnbackend.backends.cores": "nnbackend.support.cores",
    "nnbackend.backends.forks": "nnbackend.support.fork_lock",
    "nnbackend.batch_stream": "nnbackend.data.batch_stream",
    "nnbackend.checks": "nnbackend.support.checks",
    "nnbackend.config": "nnbackend.saving.config",
    "nnbackend.evaluation": "nnbackend.step.evaluation",
    "nnbackend.feeds": "nnbackend.data.feed",
    "nnbackend.files": "nnbackend.support.files",
    "nnbackend.inputs": "nnbackend.data.inputs",
    "nnbackend.intake": "nnbackend.data.intake",
    "nnbackend.layers.flatten": "nnbackend.layers.shapes",
    "nnbackend.markup": "nnbackend.support.html",
    "nnbackend.memory": "nnbackend.support.memory",
    "nnbackend.model_file": "nnbackend.saving.model_file",
    "nnbackend.parameters": "nnbackend.step.parameters",
    "nnbackend.prediction": "nnbackend.step.prediction",
    "nnbackend.rows": "nnbackend.data.rows",
    "nnbackend.streaming": "nnbackend.data.streaming",
    "nnbackend.summary": "nnbackend.step.summary",
    "nnbackend.training.checkpoint": "nnbackend.training.checkpoints.checkpoint",
    "nnbackend.training.resuming": "nnbackend.training.checkpoints.resuming",
    "nnbackend.training.run_state": "nnbackend.training.checkpoints.run_state",
}


class _MovedModules:
    """Finds a module by its old name; Python uses it only if there is no such file.

    A finder and a loader, but not of the classes in `importlib.abc`, which import dozens of modules that nobody needs.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, cast("Any", self)) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = MOVED[spec.name]
        warnings.warn(
            f"{spec.name} is now {new}; the old name will go with the next release", DeprecationWarning, stacklevel=2
        )
        module = importlib.import_module(new)
        # The import system will set the module's spec to that of the old name.
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """Let the old names be imported."""
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(_MovedModules())
