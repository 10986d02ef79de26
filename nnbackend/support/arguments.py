"""The names of arguments: those that a function takes, and those that estimators keep."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

from nnbackend.errors import UnknownArgumentError

__all__ = ["SuggestsNames", "keep_arguments", "suggests_names"]

P = ParamSpec("P")
T = TypeVar("T")


def suggests_names(function: Callable[P, T]) -> Callable[P, T]:
    """A decorator: an unknown argument is an `UnknownArgumentError`, which suggests the name that was probably meant.

    Python's own error suggests names from Python 3.13 on.
    """

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        known = _names(function)
        for name in kwargs:
            if known is not None and name not in known:
                called = type(args[0]).__name__ if function.__name__ == "__init__" else function.__name__
                raise UnknownArgumentError(called, name, known)
        return function(*args, **kwargs)

    return checked


class SuggestsNames:
    """A base class whose subclasses have constructors that suggest names of arguments."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            # Not in `__new__`, whose signature documentation would show in place of the constructor's.
            setattr(cls, "__init__", suggests_names(vars(cls)["__init__"]))  # noqa: B010


@cache
def _names(function: Callable[..., Any]) -> tuple[str, ...] | None:
    """The names of a function's arguments; None if it takes any, or does not tell."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return None
    named = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    return tuple(name for name in named if name != "self")


def keep_arguments(estimator: Any, arguments: Mapping[str, Any]) -> None:
    """Store the arguments of an estimator's constructor unchanged; scikit-learn requires `fit` to check them.

    Parameters
    ----------
    estimator : object
    arguments : mapping
        ``locals()`` at the beginning of the constructor.
    """
    for name, value in arguments.items():
        if name not in ("self", "__class__"):
            setattr(estimator, name, value)
