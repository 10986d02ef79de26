"""What each part of the recipe does: errors with one part taken away or added, relative to the recipe itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np

import nnbackend as nn
from benchmarks.tables.report import ADDED, mean_ratio
from nnbackend.interop.tabular import preparation
from nnbackend.interop.tabular.recipe import RECIPES, Recipe

__all__ = ["FULL", "TABLES", "VARIANTS", "contender", "text"]

#: Of the half on which defaults may be chosen: a fixed subset of small tables, so that it takes an hour and not a day.
TABLES = (
    "australian", "bands", "bupa", "hayes-roth", "monk-2", "saheart",
    "Carseats", "Caschool", "Clothing", "Salaries", "birthwt",
)  # fmt: skip

#: The variants are compared to this one, the estimators' default.
FULL = "auto"


def _parts(**changes: Any) -> Callable[[Recipe], Recipe]:
    """Other values of some parts."""
    return lambda recipe: replace(recipe, parts=replace(recipe.parts, **changes))


def _named(name: str) -> Callable[[Recipe], Recipe]:
    return lambda recipe: replace(recipe, parts=replace(RECIPES[name], zero_output=recipe.parts.zero_output))


#: Functions that change the recipe. A part that a kind of task has not is added, and one that it has is taken away.
VARIANTS: dict[str, Callable[[Recipe], Recipe]] = {
    FULL: _parts(),
    "td-s": _named("td-s"),
    "td": _named("td"),
    "no scale layer": _parts(scale=False),
    "standard parametrisation, rate 0.001": lambda recipe: replace(_parts(ntk=False)(recipe), learning_rate=0.001),
    "no periodic embeddings": _parts(waves=False),
    "no weight decay": _parts(decay=0.0),
    "initial weights not scaled to the data": _parts(scaled_start=False),
    "other start of the output layer": lambda recipe: _parts(zero_output=not recipe.parts.zero_output)(recipe),
    "constant learning rate": _parts(waves_of_rate=False),
    "beta2 0.999": _parts(beta2=0.999),
    "no label smoothing": lambda recipe: replace(recipe, label_smoothing=0.0),
    "last epoch, no rows held out": _parts(best_epoch=False),
    "standardised, not clipped": _parts(),
    "with or without parametric activations": lambda recipe: _parts(parametric=not recipe.parts.parametric)(recipe),
    "with or without vectors of categories": lambda recipe: _parts(vectors=not recipe.parts.vectors)(recipe),
    "with or without dropout 0.15": lambda recipe: _parts(dropout=0.15 - recipe.parts.dropout)(recipe),
}

#: The variant that changes not the recipe, but the scaling of features.
_STANDARDISED = "standardised, not clipped"


class _Standard(preparation._Scaling):
    """Mean 0 and standard deviation 1, without limits."""

    @classmethod
    def of(cls, values: Any) -> _Standard:
        values = values[~np.isnan(values)]
        deviation = float(values.std()) if values.size else 0.0
        return cls(float(values.mean()) if values.size else 0.0, 1 / deviation if deviation > 0 else 0.0)

    def apply(self, values: Any) -> Any:
        return np.where(np.isnan(values), 0.0, (values - self.center) * self.factor)


@contextmanager
def _scaling(variant: str) -> Iterator[None]:
    with patch.object(preparation, "_Scaling", _Standard if variant == _STANDARDISED else preparation._Scaling):
        yield


class _Varied:
    """An estimator whose recipe is a variant."""

    variant = FULL

    def _recipe(self) -> Recipe:
        return VARIANTS[self.variant](super()._recipe())  # type: ignore[misc]

    def fit(self, *arguments: Any, **options: Any) -> Any:
        with _scaling(self.variant):
            return super().fit(*arguments, **options)  # type: ignore[misc]


class _Classifier(_Varied, nn.TabularClassifier):  # type: ignore[misc]
    pass


class _Regressor(_Varied, nn.TabularRegressor):  # type: ignore[misc]
    pass


def contender(variant: str) -> Callable[[bool, Any, int], Any]:
    """A function of (whether the target is a number, the features, a seed) that makes one network's estimator."""

    def make(is_regression: bool, frame: Any, seed: int) -> Any:
        model = (_Regressor if is_regression else _Classifier)(1, recipe=FULL, random_state=seed)
        model.variant = variant
        return model

    return make


def text(results: Sequence[Mapping[str, Any]]) -> str:
    """Ratios of errors to those of the full recipe, on the tables and splits that both have, as text in columns."""
    lines = []
    for title, regression in (("classification", False), ("regression", True)):
        errors: dict[str, dict[tuple[str, int], float]] = {}
        for each in results:
            if (each["kind"] == "regression") == regression:
                errors.setdefault(each["contender"], {})[each["table"], each["split"]] = each["error"]
        rows = [_row(name, errors[name], errors.get(FULL, {})) for name in VARIANTS if name in errors]
        if rows:
            lines += [f"{title:40} tables  ratio  95 % interval", *rows, ""]
    return "\n".join(lines).rstrip()


def _row(name: str, own: Mapping[tuple[str, int], float], full: Mapping[tuple[str, int], float]) -> str:
    ratios: dict[str, list[float]] = {}
    for key in own.keys() & full.keys():
        ratios.setdefault(key[0], []).append(float(np.log((own[key] + ADDED) / (full[key] + ADDED))))
    logarithms = np.array([np.mean(ratios[table]) for table in sorted(ratios)])
    mean, low, high = mean_ratio(logarithms)
    interval = "" if name == FULL else f"{low:.3f} to {high:.3f}"
    return f"{name:40} {len(logarithms):6}  {mean:.3f}  {interval}".rstrip()
