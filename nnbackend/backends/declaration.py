"""How an operation is declared: its arguments by name, what it reads and writes, and how its work may be split.

:mod:`nnbackend.backends.operations` has the declarations, one decorator for each operation. They provide the list of
all operations, the check of every recorded call, the documentation of arguments, and what executors ask of a call.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import permutations
from typing import Any, Literal, TypeVar

import numpy.typing as npt

from nnbackend.errors import InvalidInputError, UnknownNameError, shown

__all__ = [
    "Argument",
    "Array",
    "Call",
    "HostArray",
    "Operation",
    "constant",
    "operation",
    "reads",
    "updates",
    "writes",
]

#: An array on a backend's device. Only that backend knows its type.
Array = Any
#: A NumPy array in host memory.
HostArray = npt.NDArray[Any]

Access = Literal["read", "write", "update", "constant"]
#: What the work of an operation may be split by, so that no sum crosses two parts: rows of the batch, columns of the
#: result, or parts of a result that is no longer the batch's (a gradient's elements).
Split = Literal["rows", "columns", "parts"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: The dtypes that ``real`` stands for; all real arrays of a call have the same one.
_REAL = ("float32", "float64")


@dataclass(frozen=True)
class Argument:
    """What an operation says of one of its arguments.

    Attributes
    ----------
    access : {"read", "write", "update", "constant"}
        What the operation does with the array; "constant" for what is no array.
    shapes : tuple of tuples
        Shapes it may have, as the names of their extents: the same name stands for the same number throughout a call.
        A name that begins with ``*`` stands for any number of extents, a number for itself.
    dtypes : tuple of str
        The dtype of each of these shapes: "real", or names separated by "|".
    optional : bool
        Whether None may be given.
    alias : tuple of str
        Arguments that it may share all of its memory with. It may share no part of it with any other.
    about : str
        A sentence for the documentation.
    names : collection of str, optional
        What a constant may be, if it is a name.
    place_in : str, optional
        The array that a constant is a place of, if it is one.
    """

    access: Access
    shapes: tuple[tuple[str | int, ...], ...] = ()
    dtypes: tuple[str, ...] = ()
    optional: bool = False
    alias: tuple[str, ...] = ()
    about: str = ""
    names: Collection[str] | None = None
    place_in: str | None = None

    @property
    def written(self) -> bool:
        """Whether the operation writes to it."""
        return self.access in ("write", "update")

    @property
    def read(self) -> bool:
        """Whether the operation depends on what it holds."""
        return self.access in ("read", "update")

    def __or__(self, other: Argument) -> Argument:
        """Either of two shapes, such as labels or probabilities."""
        return replace(self, shapes=self.shapes + other.shapes, dtypes=self.dtypes + other.dtypes)

    def __str__(self) -> str:
        forms = [f"{_shape_text(shape)} {dtype}" for shape, dtype in zip(self.shapes, self.dtypes, strict=True)]
        return ", or ".join([*forms, *(["None"] if self.optional else [])])


def reads(*shape: str | int, dtype: str = "real", optional: bool = False, about: str = "") -> Argument:
    """An array that the operation reads."""
    return Argument("read", (shape,), (dtype,), optional, about=about)


def writes(
    *shape: str | int, dtype: str = "real", optional: bool = False, alias: str | Sequence[str] = (), about: str = ""
) -> Argument:
    """An array all of which the operation writes, whatever it holds."""
    return Argument("write", (shape,), (dtype,), optional, _names(alias), about)


def updates(*shape: str | int, dtype: str = "real", optional: bool = False, about: str = "") -> Argument:
    """An array that the operation reads and writes."""
    return Argument("update", (shape,), (dtype,), optional, about=about)


def constant(about: str, names: Collection[str] | None = None, place_in: str | None = None) -> Argument:
    """A number, one of these names, or a place in the array of that name; the same in every step."""
    return Argument("constant", about=about, names=names, place_in=place_in)


#: Combinations of shapes and dtypes that an operation remembers as right.
_MOST_ACCEPTED = 1000


@dataclass(frozen=True)
class Operation:
    """The declaration of one operation.

    Attributes
    ----------
    name : str
    arguments : dict of Argument
        By name, in the order in which they are given.
    defaults : dict
        Values of the arguments at the end that need not be given.
    splits : tuple of {"rows", "columns", "parts"}
        What its work may be split by; empty if it may not.
    role : {"forward", "backward", "loss", "update", "bookkeeping"}
        Its place in a training step.
    """

    name: str
    arguments: Mapping[str, Argument]
    defaults: Mapping[str, Any]
    splits: tuple[Split, ...]
    role: str

    def bind(self, given: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name, in order; those left out at the end are not in it.

        Raises
        ------
        TypeError
            As a function of this signature would raise it.
        """
        names = list(self.arguments)
        if len(given) > len(names):
            raise TypeError(f"{self.name} takes {len(names)} arguments, received {len(given)}")
        bound = dict(zip(names, given, strict=False))
        for name, value in named.items():
            if name not in self.arguments or name in bound:
                what = "twice" if name in bound else f"which is none of {', '.join(names)}"
                raise TypeError(f"{self.name} received the argument {name!r} {what}")
            bound[name] = value
        missing = [name for name in names if name not in bound and name not in self.defaults]
        if missing:
            raise TypeError(f"{self.name} lacks {', '.join(missing)}")
        return {name: bound[name] for name in names if name in bound}

    @cached_property
    def written(self) -> tuple[str, ...]:
        """Names of the arrays that it writes."""
        return tuple(name for name, argument in self.arguments.items() if argument.written)

    @cached_property
    def _names(self) -> dict[str, Collection[str]]:
        """For each constant that is a name, what it may be."""
        return {name: argument.names for name, argument in self.arguments.items() if argument.names is not None}

    @cached_property
    def _places(self) -> dict[str, str]:
        """For each constant that is a place in an array, the array."""
        return {name: argument.place_in for name, argument in self.arguments.items() if argument.place_in is not None}

    @cached_property
    def arrays(self) -> tuple[str, ...]:
        """Names of all its arrays."""
        return tuple(name for name, argument in self.arguments.items() if argument.access != "constant")

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Hold a call to the declaration: the shapes, dtypes and shared memory of its arrays, and its names.

        It runs once, when a call is recorded, so that no kernel has to look.

        Raises
        ------
        InvalidInputError
            A shape, dtype or name is none of those declared, a place is outside its array, or arrays share memory that
            may not.
        """
        for name, valid in self._names.items():
            given = arguments.get(name)
            if not isinstance(given, str) or given not in valid:
                raise UnknownNameError(f"{name} of {self.name}", given, valid)
        arrays = [arguments.get(name) for name in self.arrays]
        try:
            kinds = tuple([None if array is None else _kind_of(array) for array in arrays])
        except AttributeError:
            raise InvalidInputError(self._no_array(arguments)) from None
        if kinds not in self._accepted:
            self._check_kinds(arguments)
            if len(self._accepted) == _MOST_ACCEPTED:
                self._accepted.clear()
            self._accepted.add(kinds)
        for name, array in self._places.items():
            length = arguments[array].shape[0]
            if not isinstance(arguments[name], int) or not 0 <= arguments[name] < length:
                raise InvalidInputError(
                    f"{self.name}: {name} must be a place in {array}, 0 to {length - 1}, received "
                    f"{shown(arguments[name])}"
                )
        self._check_memory(arguments)

    @cached_property
    def _accepted(self) -> set[tuple[Any, ...]]:
        """Shapes, dtypes and strides that were accepted before, so that recording the same step again is fast."""
        return set()

    def _check_kinds(self, arguments: Mapping[str, Any]) -> None:
        extents: dict[str, Any] = {}
        for name in self.arrays:
            array = arguments.get(name)
            if array is None:
                if not self.arguments[name].optional and name not in self.defaults:
                    raise InvalidInputError(f"{self.name}: {name} must be an array, received None")
            elif not self._fits(self.arguments[name], array, extents):
                raise InvalidInputError(self._misfit(name, array, extents))
            elif not _last_axis_is_contiguous(array):
                raise InvalidInputError(
                    f"{self.name}: the elements of a row of {name} must be neighbours in memory, received strides of "
                    f"{array.strides} bytes; copy it to a buffer"
                )

    def _fits(self, argument: Argument, array: Any, extents: dict[str, Any]) -> bool:
        shape, dtype = tuple(array.shape), dtype_name(array)
        if len(argument.shapes) == 1:
            # What a misfit leaves in the extents is read by the error message alone.
            return _matches(argument.shapes[0], shape, extents) and _is_kind(argument.dtypes[0], dtype, extents)
        for wanted, kind in zip(argument.shapes, argument.dtypes, strict=True):
            found = dict(extents)
            if _matches(wanted, shape, found) and _is_kind(kind, dtype, found):
                extents.update(found)
                return True
        return False

    def _misfit(self, name: str, array: Any, extents: Mapping[str, Any]) -> str:
        known = ", ".join(f"{key} = {value}" for key, value in extents.items() if key in str(self.arguments[name]))
        return (
            f"{self.name}: {name} must be {self.arguments[name]}{f' with {known}' if known else ''}, "
            f"received {tuple(array.shape)} {dtype_name(array)}"
        )

    def _no_array(self, arguments: Mapping[str, Any]) -> str:
        """The message for a call in which something stands in an array's place."""
        for name in self.arrays:
            value = arguments.get(name)
            if value is not None and not (hasattr(value, "shape") and hasattr(value, "dtype")):
                return f"{self.name}: {name} must be {self.arguments[name]}, received {shown(value)}"
        return f"{self.name} takes arrays"

    @cached_property
    def _pairs(self) -> tuple[tuple[str, str], ...]:
        """Each array that is written, with each other one."""
        return tuple(
            (name, other) for name, other in permutations(self.arrays, 2)
            if name in self.written and not (other in self.written and other < name)
        )  # fmt: skip

    def _check_memory(self, arguments: Mapping[str, Any]) -> None:
        spans = {name: span_of(arguments[name]) for name in self.arrays if arguments.get(name) is not None}
        for name, other in self._pairs:
            if name not in spans or other not in spans or not _overlap(spans[name], spans[other]):
                continue
            if not self._may_alias(name, arguments[name], other, arguments[other]):
                raise InvalidInputError(
                    f"{self.name}: {name}, which it writes, shares memory with {other}; give it a buffer of its own"
                )

    def _may_alias(self, name: str, out: Any, other: str, array: Any) -> bool:
        allowed = other in self.arguments[name].alias or name in self.arguments[other].alias
        same = out is array or (
            span_of(out) == span_of(array) and getattr(out, "strides", 0) == getattr(array, "strides", 0)
        )
        return allowed and same


@dataclass(eq=False)
class Call:
    """One entry of a recorded step: an operation and what it is called with.

    An argument is an attribute: ``call.out``. A function that a layer brings is recorded under the name ``"custom"``;
    it is called as ``function(backend, *arguments)``.

    Attributes
    ----------
    operation : str
    arguments : dict
        By name, in the order of the declaration; a function's by their place.
    function : callable, optional
    """

    operation: str
    arguments: Mapping[str, Any]
    function: Callable[..., None] | None = None

    @classmethod
    def of(cls, operation: str, /, *given: Any, **named: Any) -> Call:
        """A call of an operation of the contract, unchecked."""
        return cls(operation, OPERATIONS[operation].bind(given, named))

    @classmethod
    def custom(cls, function: Callable[..., None], *given: Any) -> Call:
        """A call of a function from outside."""
        return cls("custom", {f"argument_{place}": value for place, value in enumerate(given)}, function)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "arguments":
            raise AttributeError(name)
        if name in self.arguments:
            return self.arguments[name]
        declared = OPERATIONS.get(self.operation)
        if declared is not None and name in declared.defaults:
            return declared.defaults[name]
        raise AttributeError(f"a call of {self.operation} has no argument {name!r}")

    @property
    def declaration(self) -> Operation | None:
        """What the contract says of the operation; None for a function from outside."""
        return OPERATIONS.get(self.operation)

    @property
    def outside(self) -> str | None:
        """That it is a function from outside, in words; None for an operation of the contract."""
        if self.function is None:
            return None
        return f"{getattr(self.function, '__name__', type(self.function).__name__)} is a function from outside"

    def written(self) -> Iterator[Array]:
        """The arrays that the call writes."""
        declared = OPERATIONS[self.operation]
        return (self.arguments[name] for name in declared.written if self.arguments.get(name) is not None)

    def __repr__(self) -> str:
        return f"<Call {self.operation}({', '.join(self.arguments)})>"


#: Every declared operation, by name, in the order of their declarations.
OPERATIONS: dict[str, Operation] = {}


def operation(role: str, splits: Sequence[Split] = (), **arguments: Argument) -> Callable[[_Function], _Function]:
    """Declare the decorated abstract method as an operation of the contract.

    Parameters
    ----------
    role : {"forward", "backward", "loss", "update", "bookkeeping"}
    splits : sequence of {"rows", "columns", "parts"}
    **arguments : Argument
        Of the method, in its order.
    """

    def declare(method: _Function) -> _Function:
        parameters = list(inspect.signature(method).parameters.values())[1:]
        if [parameter.name for parameter in parameters] != list(arguments):
            raise TypeError(f"{method.__name__} does not take the arguments that are declared: {', '.join(arguments)}")
        defaults = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
        OPERATIONS[method.__name__] = Operation(method.__name__, arguments, defaults, tuple(splits), role)
        if method.__doc__:
            method.__doc__ = _documentation(inspect.cleandoc(method.__doc__), OPERATIONS[method.__name__], parameters)
        return method

    return declare


def _documentation(text: str, declared: Operation, parameters: Sequence[inspect.Parameter]) -> str:
    """A method's docstring with the section on its parameters."""
    lines = [text, "", "Parameters", "----------"]
    for parameter in parameters:
        argument = declared.arguments[parameter.name]
        kind = str(argument) if argument.access != "constant" else str(parameter.annotation)
        lines.append(f"{parameter.name} : {kind}")
        notes = [argument.about] if argument.about else []
        if argument.written:
            notes.append("Written." if argument.access == "write" else "Read and written.")
        if argument.alias:
            notes.append(f"May be the same array as {' or '.join(f'`{name}`' for name in argument.alias)}.")
        if notes:
            lines.append(f"    {' '.join(notes)}")
    return "\n".join(lines)


def _kind_of(array: Any) -> tuple[Any, ...]:
    """All that the check of a single array looks at."""
    return tuple(array.shape), dtype_name(array), getattr(array, "strides", None)


def dtype_name(array: Any) -> str:
    """The name of an array's dtype, whatever library it is of."""
    dtype = array.dtype
    library: Any = type(dtype)
    name: str = _name_of(library, dtype)
    return name


@cache
def _name_of(library: Any, dtype: Any) -> str:
    # Cached because NumPy takes microseconds to spell a dtype. Dtypes of two libraries are never compared.
    return str(dtype).rpartition(".")[2]


def span_of(array: Any) -> tuple[int, int] | None:
    """Addresses of the first byte of an array and behind its last; None if its library does not tell."""
    interface = getattr(array, "__array_interface__", None) or getattr(array, "__cuda_array_interface__", None)
    if interface is None:
        return None
    begin, itemsize, strides = int(interface["data"][0]), int(array.dtype.itemsize), interface.get("strides")
    if strides is None:
        return begin, begin + math.prod(array.shape) * itemsize
    if 0 in array.shape:
        return begin, begin
    steps = [(extent - 1) * step for extent, step in zip(array.shape, strides, strict=True)]
    return begin + sum(min(step, 0) for step in steps), begin + itemsize + sum(max(step, 0) for step in steps)


def _last_axis_is_contiguous(array: Any) -> bool:
    """Whether it is, as far as its library tells."""
    strides = getattr(array, "strides", None)
    return not strides or array.shape[-1] <= 1 or 0 in array.shape or strides[-1] == array.dtype.itemsize


def _overlap(one: tuple[int, int] | None, other: tuple[int, int] | None) -> bool:
    return one is not None and other is not None and one[0] < other[1] and other[0] < one[1]


def _matches(wanted: tuple[str | int, ...], shape: tuple[int, ...], extents: dict[str, Any]) -> bool:
    """Whether a shape is the wanted one where the extents known so far are given; notes those that are new."""
    if wanted and isinstance(wanted[-1], str) and wanted[-1].startswith("*"):
        fixed = len(wanted) - 1
        if len(shape) < fixed or extents.setdefault(wanted[-1], shape[fixed:]) != shape[fixed:]:
            return False
        wanted, shape = wanted[:-1], shape[:fixed]
    if len(wanted) != len(shape):
        return False
    for name, extent in zip(wanted, shape, strict=True):
        if extent != (name if isinstance(name, int) else extents.setdefault(name, extent)):
            return False
    return True


def _is_kind(kind: str, dtype: str, extents: dict[str, Any]) -> bool:
    if kind == dtype:
        return True
    real = dtype in _REAL and extents.setdefault("real", dtype) == dtype
    return any(each == dtype or (each == "real" and real) for each in kind.split("|"))


def _shape_text(shape: tuple[str | int, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
