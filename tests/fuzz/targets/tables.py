"""Tables in CSV and NPZ files."""

from __future__ import annotations

from nnbackend.cli.table_files import read_table
from nnbackend.cli.table_target import read_target
from tests.fuzz.targets.base import Target

__all__ = ["TablesTarget"]


class TablesTarget(Target):
    """`nnbackend train TABLE`, until the training."""

    name = "tables"
    #: Text of a few thousand cells, once as bytes, once decoded and once as objects; or an array that was packed.
    most_memory = 128 << 20

    def run(self, data: bytes) -> str | None:
        path = self.folder / "table"
        path.write_bytes(data)
        table = read_table(str(path))
        target = read_target(table, next(iter(table.columns)))
        for name, values in table.columns.items():
            assert len(values) == len(table.values(name)) == table.rows
        return target.task
