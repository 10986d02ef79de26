"""From the columns of a table to the features of a network, and the JSON that says how.

Numbers are scaled robustly and clipped smoothly (Holzmueller et al. 2024, section 3): ``f(s (x - median))`` with
``f(u) = u / sqrt(1 + (u / 3)^2)``, where s is 1 / (distance of the quartiles), or 2 / (largest - smallest) if the
quartiles are equal, or 0 for a constant. Categories become columns of zeros and ones, two categories a single column of
-1 and 1, and are then scaled in the same way. For an embedding, a column of categories becomes their numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import HostArray
from nnbackend.errors import InvalidInputError, shown
from nnbackend.interop.tabular.reading import Column

__all__ = ["FeatureColumns", "Preparation"]

#: The groups of features, in their order: numbers, zeros and ones, and numbers of categories.
_NUMBER, _FLAG, _CODE = range(3)

#: The largest magnitude of a feature after smooth clipping.
_LARGEST = 3.0

#: Values further from the median, in distances of the quartiles, are not told apart.
_BEYOND = 1e100


@dataclass(frozen=True)
class FeatureColumns:
    """What the features of a network are, in their order: numbers, features of zeros and ones, numbers of categories.

    Attributes
    ----------
    count : int
    numbers : int
    codes : int
        How many of the last features are numbers of categories.
    categories : int
        The largest number of categories of those.
    """

    count: int
    numbers: int
    codes: int
    categories: int


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

    def features(self, column: Column) -> list[tuple[int, HostArray]]:
        features = [(_NUMBER, self.scaling.apply(column.values))]
        if self.missing is not None:
            features.append((_FLAG, self.missing.apply(np.isnan(column.values).astype(np.float64))))
        return features

    @property
    def groups(self) -> list[int]:
        return [_NUMBER] if self.missing is None else [_NUMBER, _FLAG]

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
        Of each feature; None if the column is embedded.
    """

    name: str
    values: tuple[Any, ...]
    others: bool
    scalings: tuple[_Scaling, ...] | None
    kind: ClassVar[str] = "categories"

    @classmethod
    def of(cls, column: Column, most: int, most_one_hot: float) -> _Categories:
        counts = Counter(value for value in column.values if value is not None)
        others = len(counts) > most
        # The most frequent ones, and of equally frequent ones the first in their order.
        kept = sorted(counts, key=lambda value: (-counts[value], value))[: most - 1 if others else None]
        plain = cls(str(column.label), tuple(sorted(kept)), others, ())
        if plain.categories > most_one_hot:
            return cls(plain.name, plain.values, others, None)
        scalings = tuple(_Scaling.of(feature) for feature in plain.raw(column))
        return cls(str(column.label), plain.values, others, scalings)

    @property
    def categories(self) -> int:
        """How many there are, those that share the last place counted as one."""
        return len(self.values) + self.others

    def codes(self, column: Column) -> npt.NDArray[np.int64]:
        """The number of each category; -1 for a missing value, and for a category that is unknown."""
        places = {value: place for place, value in enumerate(self.values)}
        other = len(self.values) if self.others else -1
        return np.array([-1 if value is None else places.get(value, other) for value in column.values], np.int64)

    def raw(self, column: Column) -> list[HostArray]:
        """The features of zeros and ones, before they are scaled."""
        codes = self.codes(column)
        if len(self.values) == 2 and not self.others:
            return [np.where(codes < 0, 0.0, 2.0 * codes - 1)]
        return [(codes == place).astype(np.float64) for place in range(self.categories)]

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
    def groups(self) -> list[int]:
        return [_CODE] if self.scalings is None else [_FLAG] * len(self.scalings)

    def features(self, column: Column) -> list[tuple[int, HostArray]]:
        if self.scalings is None:
            return [(_CODE, self.codes(column).astype(np.float64))]
        return [(_FLAG, scaling.apply(raw)) for scaling, raw in zip(self.scalings, self.raw(column), strict=True)]

    def text(self) -> str:
        return f"{len(self.values)} categories" + (", and others" if self.others else "")

    def config(self) -> dict[str, Any]:
        scalings = None if self.scalings is None else [scaling.config() for scaling in self.scalings]
        return {
            "name": self.name, "kind": self.kind, "values": list(self.values), "others": self.others,
            "scalings": scalings,
        }  # fmt: skip

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> _Categories:
        values, others, scalings = config["values"], config["others"], config["scalings"]
        if not all(isinstance(value, str | bool | int | float) for value in values) or not isinstance(others, bool):
            raise ValueError(f"{shown(values)} are no categories")
        if scalings is None:
            return cls(_text(config["name"]), tuple(values), others, None)
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
    sorted_by_group : bool
        Whether features are sorted by their group, and not in the order of the columns.

    Attributes
    ----------
    features : FeatureColumns
    """

    def __init__(self, columns: Sequence[_Numbers | _Categories], sorted_by_group: bool = True) -> None:
        self._columns = tuple(columns)
        groups = [group for column in self._columns for group in column.groups]
        self._sorted = sorted_by_group
        #: The places of the features in the order of the columns.
        self._order = sorted(range(len(groups)), key=groups.__getitem__) if sorted_by_group else range(len(groups))
        embedded = [
            each.categories for each in self._columns if isinstance(each, _Categories) and each.scalings is None
        ]
        self.features = FeatureColumns(
            len(groups), groups.count(_NUMBER), groups.count(_CODE), max(embedded, default=0)
        )

    @classmethod
    def of(cls, columns: Sequence[Column], max_categories: int, most_one_hot: float = math.inf) -> Preparation:
        """Fit the columns of a table.

        Parameters
        ----------
        columns : sequence of Column
        max_categories : int
            Most categories of a column; beyond, the rarest ones share one.
        most_one_hot : float
            Columns with more categories become one feature with their numbers, for an embedding.

        Raises
        ------
        InvalidInputError
            A column of text has too many different values to be a category.
        """
        _check_text(columns, max_categories)
        return cls(
            [
                _Categories.of(column, max_categories, most_one_hot) if column.is_categorical else _Numbers.of(column)
                for column in columns
            ]
        )

    @property
    def categorical(self) -> list[bool]:
        """For each column, whether it has categories."""
        return [isinstance(column, _Categories) for column in self._columns]

    def apply(self, columns: Sequence[Column], dtype: Any) -> HostArray:
        """The features of a table's rows, (n, features).

        Raises
        ------
        InvalidInputError
            A column holds text where the fitted one held numbers, or the reverse.
        """
        features: list[tuple[int, HostArray]] = []
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
        for place, origin in enumerate(self._order):
            result[:, place] = features[origin][1]
        return result

    def describe(self) -> dict[str, str]:
        """What was made of each column, by name."""
        return {column.name: column.text() for column in self._columns}

    def config(self) -> dict[str, Any]:
        """As plain JSON, for `from_config`."""
        return {"sorted": self._sorted, "columns": [column.config() for column in self._columns]}

    @classmethod
    def from_config(cls, config: Any) -> Preparation:
        """From the result of `config`, which may come from an untrusted file.

        Raises
        ------
        ValueError, TypeError, KeyError
            It is damaged.
        """
        if isinstance(config, list):  # of a file from before features were sorted
            config = {"sorted": False, "columns": config}
        if not isinstance(config["sorted"], bool):
            raise TypeError(f"{shown(config['sorted'])} is neither True nor False")
        kinds: dict[str, Any] = {_Numbers.kind: _Numbers, _Categories.kind: _Categories}
        columns = [kinds[each["kind"]].from_config(each) for each in config["columns"]]
        return cls(columns, config["sorted"])


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{shown(value)} is no text")
    return value
