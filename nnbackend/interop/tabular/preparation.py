"""From the columns of a table to the features of a network, and the JSON that says how.

Numbers are scaled robustly and clipped smoothly (Holzmueller et al. 2024, section 3): ``f(s (x - median))`` with
``f(u) = u / sqrt(1 + (u / 3)^2)``, where s is 1 / (distance of the quartiles), or 2 / (largest - smallest) if the
quartiles are equal, or 0 for a constant. Categories become columns of zeros and ones, two categories a single column of
-1 and 1, and are then scaled in the same way.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.errors import InvalidInputError, shown
from nnbackend.interop.tabular.reading import Column

__all__ = ["Preparation"]

#: The largest magnitude of a feature after smooth clipping.
_LARGEST = 3.0

#: Values further from the median, in distances of the quartiles, are not told apart.
_BEYOND = 1e100


@dataclass(frozen=True, eq=False)
class _Scaling:
    """Robust scaling and smooth clipping of one feature.

    Attributes
    ----------
    center, factor : float
        ``f(factor * (x - center))``.
    """

    center: float
    factor: float

    @classmethod
    def of(cls, values: HostArray) -> _Scaling:
        """Of these values, of which NaN are left out."""
        values = values[~np.isnan(values)]
        if not values.size:
            return cls(0.0, 0.0)
        low, first, median, third, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
        # Halves, because the difference of two numbers may be infinite.
        quartiles, extremes = third / 2 - first / 2, high / 2 - low / 2
        factor = 0.5 / quartiles if quartiles > 0 else 1 / extremes if extremes > 0 else 0.0
        return cls(median, min(factor, 1e300))

    def apply(self, values: HostArray) -> HostArray:
        """The feature; NaN, a missing value, becomes 0, the value of the median."""
        # Halves, and limits, because neither the difference nor the product may overflow.
        with np.errstate(over="ignore"):
            scaled = np.clip((values / 2 - self.center / 2) * (2 * self.factor), -_BEYOND, _BEYOND)
        clipped = scaled / np.hypot(1, scaled / _LARGEST)
        return np.where(np.isnan(values), 0.0, clipped)

    def config(self) -> list[float]:
        return [self.center, self.factor]

    @classmethod
    def from_config(cls, config: Any) -> _Scaling:
        center, factor = config
        if not all(isinstance(each, float) and math.isfinite(each) for each in (center, factor)) or factor < 0:
            raise ValueError(f"{shown(config)} is no scaling")
        return cls(center, factor)


@dataclass(frozen=True, eq=False)
class _Numbers:
    """A column of numbers.

    Attributes
    ----------
    name : str
    scaling : _Scaling
    missing : _Scaling or None
        Of a second feature, which is 1 where the value is missing; None if no value of the fitted rows was.
    """

    name: str
    scaling: _Scaling
    missing: _Scaling | None
    kind: ClassVar[str] = "numbers"

    @classmethod
    def of(cls, column: Column) -> _Numbers:
        lacks = np.isnan(column.values)
        missing = _Scaling.of(lacks.astype(np.float64)) if lacks.any() else None
        return cls(str(column.label), _Scaling.of(column.values), missing)

    @property
    def count(self) -> int:
        return 1 if self.missing is None else 2

    def features(self, column: Column) -> list[HostArray]:
        features = [self.scaling.apply(column.values)]
        if self.missing is not None:
            features.append(self.missing.apply(np.isnan(column.values).astype(np.float64)))
        return features

    def text(self) -> str:
        return "numbers" if self.missing is None else "numbers, some missing"

    def config(self) -> dict[str, Any]:
        missing = None if self.missing is None else self.missing.config()
        return {"name": self.name, "kind": self.kind, "scaling": self.scaling.config(), "missing": missing}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> _Numbers:
        missing = config["missing"]
        scaling = _Scaling.from_config(config["scaling"])
        return cls(_text(config["name"]), scaling, None if missing is None else _Scaling.from_config(missing))


@dataclass(frozen=True, eq=False)
class _Categories:
    """A column of categories.

    Attributes
    ----------
    name : str
    values : tuple
        The categories with a feature of their own, in the order of the features.
    others : bool
        Whether a last feature stands for all other categories.
    scalings : tuple of _Scaling
        Of each feature.
    """

    name: str
    values: tuple[Any, ...]
    others: bool
    scalings: tuple[_Scaling, ...]
    kind: ClassVar[str] = "categories"

    @classmethod
    def of(cls, column: Column, most: int) -> _Categories:
        counts = Counter(value for value in column.values if value is not None)
        others = len(counts) > most
        # The most frequent ones, and of equally frequent ones the first in their order.
        kept = sorted(counts, key=lambda value: (-counts[value], value))[: most - 1 if others else None]
        plain = cls(str(column.label), tuple(sorted(kept)), others, ())
        scalings = tuple(_Scaling.of(feature) for feature in plain.raw(column))
        return cls(str(column.label), plain.values, others, scalings)

    def raw(self, column: Column) -> list[HostArray]:
        """The features before they are scaled."""
        places = {value: place for place, value in enumerate(self.values)}
        other = len(self.values) if self.others else -1
        # A missing value, and a category that is unknown, belongs to no feature.
        codes = np.array([-1 if value is None else places.get(value, other) for value in column.values], np.int64)
        if len(self.values) == 2 and not self.others:
            return [np.where(codes < 0, 0.0, 2.0 * codes - 1)]
        return [(codes == place).astype(np.float64) for place in range(len(self.values) + self.others)]

    def check_kind(self, column: Column) -> None:
        """Refuse numbers for categories of text and the reverse: none would be known, not even "7" and 7."""
        found = {isinstance(value, str) for value in column.values if value is not None}
        fitted = {isinstance(value, str) for value in self.values}
        if found and fitted and found != fitted:
            given, before = ("text", "numbers") if True in found else ("numbers", "text")
            raise InvalidInputError(
                f"column {column.label!r} holds {given}, but its categories were {before} when the model was fitted; "
                f"give them as {before}"
            )

    @property
    def count(self) -> int:
        return len(self.scalings)

    def features(self, column: Column) -> list[HostArray]:
        return [scaling.apply(raw) for scaling, raw in zip(self.scalings, self.raw(column), strict=True)]

    def text(self) -> str:
        return f"{len(self.values)} categories" + (", and others" if self.others else "")

    def config(self) -> dict[str, Any]:
        scalings = [scaling.config() for scaling in self.scalings]
        return {
            "name": self.name, "kind": self.kind, "values": list(self.values), "others": self.others,
            "scalings": scalings,
        }  # fmt: skip

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> _Categories:
        values, others, scalings = config["values"], config["others"], config["scalings"]
        if not all(isinstance(value, str | bool | int | float) for value in values) or not isinstance(others, bool):
            raise ValueError(f"{shown(values)} are no categories")
        features = 1 if len(values) == 2 and not others else len(values) + others
        if len(scalings) != features:
            raise ValueError(f"{len(scalings)} scalings for {features} features")
        return cls(_text(config["name"]), tuple(values), others, tuple(map(_Scaling.from_config, scalings)))


def _check_text(columns: Sequence[Column], most: int) -> None:
    """Refuse text with nearly as many values as rows, naming all such columns at once."""
    found = {}
    for column in columns:
        distinct = set(column.values) - {None} if column.is_categorical else set()
        text = isinstance(next(iter(distinct), None), str)
        if text and len(distinct) > most and 2 * len(distinct) > len(column.values):
            found[str(column.label)] = f"{len(distinct):,} different values in {len(column.values):,} rows"
    if not found:
        return
    which = ", column ".join(f"{name!r} with {count}" for name, count in list(found.items())[:9])
    they, them = ("it is no category", "it") if len(found) == 1 else ("they are no categories", "them")
    raise InvalidInputError(
        f"text with too many different values: column {which}{', ...' if len(found) > 9 else ''}; {they}, so leave "
        f"{them} out (on the command line with --ignore {','.join(found)}), or derive categories or numbers from "
        f"{them}, such as the year of a date"
    )


class Preparation:
    """How the columns of a table become features.

    Parameters
    ----------
    columns : sequence of _Numbers or _Categories
    """

    def __init__(self, columns: Sequence[_Numbers | _Categories]) -> None:
        self._columns = tuple(columns)

    @classmethod
    def of(cls, columns: Sequence[Column], max_categories: int) -> Preparation:
        """Fit the columns of a table.

        Parameters
        ----------
        columns : sequence of Column
        max_categories : int
            Most features of a column; beyond, the rarest categories share one.

        Raises
        ------
        InvalidInputError
            A column of text has too many different values to be a category.
        """
        _check_text(columns, max_categories)
        return cls(
            [
                _Categories.of(column, max_categories) if column.is_categorical else _Numbers.of(column)
                for column in columns
            ]
        )

    @property
    def categorical(self) -> list[bool]:
        """For each column, whether it has categories."""
        return [isinstance(column, _Categories) for column in self._columns]

    @property
    def features(self) -> int:
        """Number of features."""
        return sum(column.count for column in self._columns)

    def apply(self, columns: Sequence[Column], dtype: Any) -> HostArray:
        """The features of a table's rows, (n, features).

        Raises
        ------
        InvalidInputError
            A column holds text where the fitted one held numbers, or the reverse.
        """
        features: list[HostArray] = []
        for fitted, column in zip(self._columns, columns, strict=True):
            if isinstance(fitted, _Numbers) and column.is_categorical:
                raise InvalidInputError(
                    f"column {column.label!r} holds text, but held numbers when the model was fitted"
                )
            if isinstance(fitted, _Categories):
                fitted.check_kind(column)
            features += fitted.features(column)
        rows = len(columns[0].values) if columns else 0
        result = np.empty((rows, len(features)), dtype)
        for place, feature in enumerate(features):
            result[:, place] = feature
        return result

    def describe(self) -> dict[str, str]:
        """What was made of each column, by name."""
        return {column.name: column.text() for column in self._columns}

    def config(self) -> list[dict[str, Any]]:
        """As plain JSON, for `from_config`."""
        return [column.config() for column in self._columns]

    @classmethod
    def from_config(cls, config: Any) -> Preparation:
        """From the result of `config`, which may come from an untrusted file.

        Raises
        ------
        ValueError, TypeError, KeyError
            It is damaged.
        """
        kinds: dict[str, Any] = {_Numbers.kind: _Numbers, _Categories.kind: _Categories}
        return cls([kinds[each["kind"]].from_config(each) for each in config])


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{shown(value)} is no text")
    return value
