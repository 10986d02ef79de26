"""The grid of ``nnbackend search``: options that take several values, and their combinations as recipes."""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import Any

from nnbackend.ensembles.data import naming
from nnbackend.errors import InvalidInputError, UnknownNameError, shown
from nnbackend.presets import LISTS, Recipe
from nnbackend.support.files import read_small

__all__ = ["Candidate", "Several", "candidates_of", "option", "value_text", "varied"]

#: Names of everything that can be searched over.
_NAMES = tuple(attribute.name for attribute in fields(Recipe))
#: Most candidates, and the size of the largest file that describes a grid.
_MOST = 10_000
_MOST_BYTES = 1 << 20


class Several(argparse._ArgumentGroup):
    """A group of options, in which those of the recipe take several values."""

    def __init__(self, parser: argparse.ArgumentParser, title: str) -> None:
        super().__init__(parser, title)
        parser._action_groups.append(self)

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """Declare an option."""
        name = names[0].removeprefix("--").replace("-", "_")
        if name in _NAMES and "action" not in settings:
            parse = settings.get("type", str)
            settings |= {"nargs": "+", "action": "extend", "type": parse if name in LISTS else _one_of_several(parse)}
        return super().add_argument(*names, **settings)


def _one_of_several(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except argparse.ArgumentTypeError as error:
            if "," not in text:
                raise
            raise argparse.ArgumentTypeError(f"{error}; separate several values by spaces") from None

    return parsed


@dataclass(frozen=True)
class Candidate:
    """A recipe, and what of it the grid defines, by the names of the recipe's attributes."""

    settings: dict[str, Any]
    recipe: Recipe


def candidates_of(options: argparse.Namespace, base: Recipe) -> list[Candidate]:
    """All combinations of the values that options and the file of the grid give.

    Raises
    ------
    InvalidInputError, UnknownNameError
        The message names the combination that is not possible.
    OSError
        The file cannot be read.
    """
    given = {name: _listed(value) for name in _NAMES if (value := getattr(options, name)) is not None}
    grids = [{}] if options.grid is None else _read(options.grid, options.parser)
    for grid in grids:
        for name in grid.keys() & given.keys():
            raise InvalidInputError(f"{option(name)} and --grid both have values for {name}; leave out one of them")
    together = [{**given, **grid} for grid in grids]
    count = sum(math.prod(map(len, grid.values())) for grid in together)
    if count > _MOST:
        raise InvalidInputError(f"the grid has {count:,} combinations, and at most {_MOST:,} can be tried; give fewer")
    found: dict[Recipe, Candidate] = {}
    for grid in together:
        for values in itertools.product(*grid.values()):
            settings = dict(zip(grid, values, strict=True))
            recipe = base.changed(**settings)
            text = " ".join(f"{option(name)} {value_text(value)}" for name, value in settings.items())
            with ExitStack() as context:
                if count > 1:
                    context.enter_context(naming(text))
                recipe.check()
            if recipe in found:
                raise InvalidInputError(f"{text} is in the grid twice; give every value once")
            found[recipe] = Candidate(settings, recipe)
    if count < 2:
        raise InvalidInputError(
            "there is nothing to search over: give an option several values, such as --learning-rate 0.001 0.003, or "
            "a file with --grid"
        )
    return list(found.values())


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _read(path: str, parser: argparse.ArgumentParser) -> list[dict[str, list[Any]]]:
    """The grids in a JSON file, whose values are parsed like those on the command line."""
    try:
        contents = json.loads(read_small(path, _MOST_BYTES), object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"--grid: {path} is not valid JSON: {str(error) or type(error).__name__}") from error
    grids = contents if isinstance(contents, list) else [contents]
    actions = {action.dest: action for action in parser._actions}
    parsed = []
    for grid in grids:
        if not isinstance(grid, dict) or not grid:
            raise InvalidInputError(
                '--grid: the file must have an object with lists of values, such as {"dropout": [0, 0.2]}, or a list '
                f"of such objects, received {shown(grid)}"
            )
        names = {name: name.replace("-", "_") for name in grid}
        for name in names:
            if names[name] not in _NAMES:
                raise UnknownNameError("hyperparameter in --grid", name, _NAMES)
            if grid[name] == []:
                raise InvalidInputError(f"--grid: {name} has no values; give at least one")
        parsed.append(
            {names[name]: [_parsed(name, each, actions[names[name]]) for each in _listed(grid[name])] for name in grid}
        )
    if not parsed:
        raise InvalidInputError(f"--grid: {path} holds an empty list; give at least one grid")
    return parsed


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name.replace("-", "_") for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{shown(name)} is there twice")
    return dict(pairs)


def _parsed(name: str, value: Any, action: argparse.Action) -> Any:
    """A value in a JSON file, as the command line would have it."""
    flag = isinstance(action, argparse.BooleanOptionalAction)
    if flag or isinstance(value, bool | dict | None):
        if flag and isinstance(value, bool):
            return value
        expected = "true or false" if flag else "a number, a name, or sizes"
        raise InvalidInputError(f"--grid: each value of {name} must be {expected}, received {shown(value)}")
    text = (",".join(map(str, value)) or "none") if isinstance(value, list) else str(value)
    parse: Any = action.type
    try:
        return parse(text)
    except argparse.ArgumentTypeError as error:
        raise InvalidInputError(f"--grid: each value of {name} {error}") from None


def option(name: str) -> str:
    """The option that sets an attribute of a recipe."""
    return f"--{name.replace('_', '-')}"


def value_text(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "default"
    # repr of a float is exact.
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value) or "none"


def varied(candidates: Sequence[Candidate]) -> list[dict[str, str]]:
    """What distinguishes the recipes of the candidates, as text by the name of the attribute."""
    rates = [{**vars(each.recipe), "learning_rate": each.recipe.first_rate} for each in candidates]
    names = [name for name in _NAMES if len({values[name] for values in rates}) > 1]
    return [{name: value_text(values[name]) for name in names} for values in rates]
