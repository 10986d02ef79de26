"""Attributes of public objects: shown by `repr`, and guarded against misspelt names and changes without effect."""

from __future__ import annotations

import inspect
import sys
from functools import cache
from typing import Any, ClassVar

from nnbackend.errors import InvalidAttributeError, UnknownNameError, shown
from nnbackend.support.arguments import SuggestsNames

__all__ = ["Guarded", "checked_change", "constructor_arguments", "constructor_call"]


class Guarded(SuggestsNames):
    """Base class of objects of this package that reject unknown attributes and changes that would have no effect.

    The package's own code may set all attributes, and so may subclasses of other packages.
    """

    #: What to do instead of setting attributes that others may expect, by their names.
    _hints: ClassVar[dict[str, str]] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        kind: Any = type(self)
        if not name.startswith("_") and _is_own(kind.__module__) and not _is_own(_caller()):
            if name not in _known(kind):
                unknown = str(UnknownNameError(f"attribute of {kind.__name__}", name, _data(kind)))
                raise InvalidAttributeError(f"{unknown} {self._hints[name]}" if name in self._hints else unknown)
            # An argument that is not kept under its name is not read again.
            if _is_fixed(kind, name) or (name in _parameters(kind) and not hasattr(self, name)):
                raise self._refusal(name)
            if name in vars(self) and not isinstance(getattr(kind, name, None), property):
                value = self._change(name, value)
        object.__setattr__(self, name, value)

    def _change(self, name: str, value: Any) -> Any:
        """Called before an attribute is changed: returns the checked value, or raises the `_refusal`."""
        if name in _parameters(_kind(self)):
            raise self._refusal(name)
        return value

    def _refusal(self, name: str) -> InvalidAttributeError:
        """The error for an attribute that cannot be changed."""
        return InvalidAttributeError(f"{name} of {shown(self)} cannot be changed; {self._instead(name)}")

    def _instead(self, name: str) -> str:
        """What to do instead of changing an attribute."""
        if name in self._hints:
            return self._hints[name]
        kind = type(self).__name__
        return f"make a new one: {kind}({name}=...)" if name in _parameters(_kind(self)) else "it can only be read"

    def __repr__(self) -> str:
        return constructor_call(self)


def checked_change(made: Any, name: str, value: Any) -> Any:
    """The value of an attribute as the constructor of `made` accepts it; raises the constructor's errors."""
    return getattr(type(made)(**{**constructor_arguments(made), name: value}), name)


def constructor_call(made: Any) -> str:
    """The constructor call that makes such an object, as far as its attributes show the arguments."""
    arguments = constructor_arguments(made).items()
    return f"{type(made).__name__}({', '.join(f'{name}={value!r}' for name, value in arguments)})"


def constructor_arguments(made: Any) -> dict[str, Any]:
    """The constructor's arguments by name, as far as the object has attributes of these names."""
    return {name: getattr(made, name) for name in _parameters(_kind(made)) if hasattr(made, name)}


def _is_own(module: str) -> bool:
    return module.partition(".")[0] == "nnbackend"


def _caller() -> str:
    """The module whose code sets an attribute."""
    name: str = sys._getframe(2).f_globals.get("__name__", "")
    return name


def _kind(made: Any) -> Any:
    return type(made)


@cache
def _parameters(kind: Any) -> tuple[str, ...]:
    """The names of the constructor's arguments."""
    if kind.__init__ is object.__init__:
        return ()
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    return tuple(each.name for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD))


@cache
def _known(kind: Any) -> frozenset[str]:
    """The names of the attributes that may be set."""
    known = {*_parameters(kind), *dir(kind)}
    for each in kind.__mro__:
        known.update(inspect.get_annotations(each))
    return frozenset(known)


def _data(kind: Any) -> list[str]:
    """The names of the attributes that are no methods, for messages."""
    return [name for name in _known(kind) if name[0] != "_" and not callable(getattr(kind, name, None))]


def _is_fixed(kind: Any, name: str) -> bool:
    attribute = getattr(kind, name, None)
    return isinstance(attribute, property) and attribute.fset is None
