"""The targets, one class for each reader: how inputs are mutated and used."""

from __future__ import annotations

from tests.fuzz.targets.base import Target
from tests.fuzz.targets.checkpoint import CheckpointTarget
from tests.fuzz.targets.config import ConfigTarget
from tests.fuzz.targets.hostile_folder import HostileFolderTarget
from tests.fuzz.targets.idx import IdxTarget, MnistTarget
from tests.fuzz.targets.images import ImageTarget
from tests.fuzz.targets.model import EnsembleTarget, ModelTarget
from tests.fuzz.targets.page import PageTarget
from tests.fuzz.targets.rows import RowsTarget
from tests.fuzz.targets.run_folder import RunFolderTarget
from tests.fuzz.targets.tables import TablesTarget

__all__ = ["TARGETS", "Target"]

TARGETS: dict[str, type[Target]] = {
    target.name: target
    for target in (
        IdxTarget,
        MnistTarget,
        ModelTarget,
        EnsembleTarget,
        CheckpointTarget,
        ConfigTarget,
        RunFolderTarget,
        HostileFolderTarget,
        ImageTarget,
        RowsTarget,
        PageTarget,
        TablesTarget,
    )
}
