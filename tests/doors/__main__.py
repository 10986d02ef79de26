"""``python -m tests.doors > tests/doors/table.txt``: what the doors do now, with the reasons of the table so far."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

from nnbackend.backends.registry import get_backend
from tests.doors.entries import ESTIMATORS, NETWORKS, outcome
from tests.doors.kinds import inputs, targets
from tests.doors.table import PATH, Row, printed, read


def main() -> None:
    before = read() if PATH.exists() else {}
    rows, numbers = [], itertools.count()
    with tempfile.TemporaryDirectory() as root:
        for role, kinds in (("x", inputs()), ("y", targets())):
            doors = [
                door(get_backend("numpy"))
                for door in (
                    NETWORKS[f"fit {role}"],
                    ESTIMATORS[f"MLPClassifier.fit {role}"],
                    ESTIMATORS[f"MLPRegressor.fit {role}"],
                )
            ]
            for kind in kinds:
                words = []
                for door in doors:
                    folder = Path(root, str(next(numbers)))
                    folder.mkdir()
                    words.append(outcome(door, kind, folder).word)
                old = before.get((role, kind.name))
                reason = old.reason if old and set(words) != {"taken"} else ""
                rows.append((role, kind.name, Row(*words, reason)))
    print(printed(rows), end="")


if __name__ == "__main__":
    main()
