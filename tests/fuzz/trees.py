"""Mutations of JSON: values, keys, types and sizes, and damaged text."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from tests.fuzz.mutations import mutate

__all__ = ["change", "to_text"]

#: Placeholder for a value nested more deeply than JSON libraries can write, see `to_text`.
_DEEP = "\x00deep"
_DEPTHS = (30, 65, 200, 900, 950, 985, 1100, 5000)

_VALUES: list[Any] = [None, True, False, 0, 1, -1, 0.5, 1e308, -1e308, 1e-320, float("nan"), float("inf"), 2**31, 2**32]
_VALUES += [
    2**53 + 1,
    2**62,
    2**63 - 1,
    2**63,
    2**64,
    10**30,
    10**400,
    -(10**400),
    10**4200,
    65536,
    10**6,
    10**9,
    10**15,
]
_VALUES += [
    "",
    "x",
    "x" * 5000,
    "\x1b[31m\x07",
    "\ud800",
    "../../etc/passwd",
    "0",
    "1e5",
    "é" * 10,
    "__class__",
    "name",
]
_VALUES += [[], {}, [[]], [1], [[1, 2], [3]], [None], {"name": []}, {"kind": 1}, {"name": "normal", "mean": 1e300}]
_VALUES += [{"name": "uniform", "low": -1e308, "high": 1e308}, [1e300], _DEEP]

#: Larger trees are not extended.
_MOST_PLACES = 500

Place = tuple[Any, Any]


def _places(tree: Any) -> list[Place]:
    """Every value in the tree, as its container and its key."""
    found: list[Place] = []
    waiting = [tree]
    while waiting:
        holder = waiting.pop()
        keys = range(len(holder)) if isinstance(holder, list) else holder if isinstance(holder, dict) else ()
        for key in keys:
            found.append((holder, key))
            waiting.append(holder[key])
    return found


def _other_number(chance: random.Random, value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        value = chance.choice((value + 1, value - 1, -value, value * 2, value * 1000))
        return chance.choice((value, value, str(value)[:4000], [value]))
    return copy.deepcopy(chance.choice(_VALUES))


def _other_text(chance: random.Random, value: Any, words: list[str]) -> Any:
    if isinstance(value, str) and value:
        place = chance.randrange(len(value))
        return chance.choice(
            (chance.choice(words), value[:place], value + value, value[:place] + "\x1b" + value[place:])
        )
    return chance.choice(words)


def change(chance: random.Random, tree: Any, words: list[str]) -> Any:
    """A copy of `tree` with one to three changes.

    Parameters
    ----------
    words : list of str
        Names that have a meaning to the reader of the tree.
    """
    tree = {"": copy.deepcopy(tree)}
    for _ in range(chance.choice((1, 1, 2, 3))):
        places = _places(tree)
        holder, key = chance.choice(places)
        small = len(places) < _MOST_PLACES
        way = chance.randrange(10)
        if way < 3:
            holder[key] = copy.deepcopy(chance.choice(_VALUES))
        elif way == 3:
            holder[key] = _other_number(chance, holder[key])
        elif way == 4:
            holder[key] = _other_text(chance, holder[key], words)
        elif way == 5 and holder is not tree:
            del holder[key]
        elif way == 6 and small:
            source, name = chance.choice(places)
            holder[key] = copy.deepcopy(source[name])
        elif way == 7 and isinstance(holder, list) and small:
            holder[key:key] = [copy.deepcopy(holder[key]) for _ in range(chance.choice((1, 2, 20, 300)))]
        elif isinstance(holder[key], dict):
            holder[key][chance.choice(words)] = copy.deepcopy(chance.choice(_VALUES))
        elif isinstance(holder, dict) and holder is not tree:
            holder[chance.choice(words)] = holder.pop(key)
    return tree[""]


def to_text(chance: random.Random, tree: Any) -> bytes:
    """The tree as JSON text, which is sometimes damaged."""
    text = json.dumps(tree)
    if _DEEP[1:] in text:
        depth = chance.choice(_DEPTHS)
        begin, end = chance.choice((("[", "]"), ('{"a":', "}")))
        text = text.replace(json.dumps(_DEEP), begin * depth + "1" + end * depth)
    data = text.encode("utf-8", "surrogatepass")
    return mutate(chance, data) if chance.random() < 0.15 else data
