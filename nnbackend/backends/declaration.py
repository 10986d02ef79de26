"""Declarations of operations: arguments, which of them are read and written, and how the work may be split.

:mod:`nnbackend.backends.operations` contains the declarations, one decorator for each operation. From them come the
list of all operations, the checks of recorded calls, the documentation of arguments, and what executors need to know
about a call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, permutations
from typing import Any, Literal, TypeVar

from nnbackend.backends.arrays import Array, HostArray, dtype_name, kind_of, last_axis_is_contiguous, overlap, span_of
from nnbackend.errors import InvalidInputError, UnknownNameError, shown
from nnbackend.support.fork_lock import cached_property

__all__ = [
    "COUNTER", "Argument", "Array", "Call", "HostArray", "Operation", "constant", "operation", "reads", "updates",
    "writes",
]  # fmt: skip

Access = Literal["read", "write", "update", "constant"]
#: How the work of an operation may be split without splitting any sum: by rows of the batch, by columns of the result,
#: or into parts of a result without a batch axis (the elements of a gradient).
Split = Literal["rows", "columns", "parts"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: The dtypes that ``real`` stands for; all real arrays of a call have the same dtype.
_REAL = ("float32", "float64")


@dataclass(frozen=True)
class Argument:
    """The declaration of one argument.

    Attributes
    ----------
    access : {"read", "write", "update", "constant"}
        What the operation does with the array; "constant" for arguments that are not arrays.
    shapes : tuple of tuples
        Permitted shapes, as names of dimensions: the same name means the same size throughout a call. A name that
        begins with ``*`` stands for any number of dimensions, and a number for itself.
    dtypes : tuple of str
        The dtype of each of these shapes: "real", or names separated by "|".
    optional : bool
        Whether None may be given.
    alias : tuple of str
        Arguments that may be the identical array. It must not overlap any other argument.
    about : str
        A sentence of documentation.
    names : collection of str, optional
        Valid values of a constant that is a name.
    place_in : str, optional
        The array that a constant is an index of.
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
        """Whether the operation depends on its contents."""
        return self.access in ("read", "update")

    def __or__(self, other: Argument) -> Argument:
        """Allow either of two shapes, such as labels or probabilities."""
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
    """An array that the operation overwrites completely."""
    return Argument("write", (shape,), (dtype,), optional, _names(alias), about)


def updates(*shape: str | int, dtype: str = "real", optional: bool = False, about: str = "") -> Argument:
    """An array that the operation reads and writes."""
    return Argument("update", (shape,), (dtype,), optional, about=about)


def constant(about: str, names: Collection[str] | None = None, place_in: str | None = None) -> Argument:
    """A number, one of `names`, or an index of the array called `place_in`; the same in every step."""
    return Argument("constant", about=about, names=names, place_in=place_in)


#: The argument of operations that depend on the step.
COUNTER = reads(
    3, dtype="int64", about="All from 0: the step within the epoch, the network's steps, and this optimiser's steps."
)

#: Takes an array; returns its span, or None if its library does not provide addresses.
FindSpan = Callable[[Any], tuple[int, int] | None]

#: Maximum number of valid combinations of shapes and dtypes that an operation caches.
_MOST_ACCEPTED = 1000


@dataclass(frozen=True)
class Operation:
    """The declaration of one operation.

    Attributes
    ----------
    name : str
    arguments : dict of Argument
        By name, in the order of the signature.
    defaults : dict
        Default values of the optional arguments.
    splits : tuple of {"rows", "columns", "parts"}
        How its work may be split; empty if it must not be.
    role : {"forward", "backward", "loss", "update", "bookkeeping"}
        The part of a training step that it belongs to.
    """

    name: str
    arguments: Mapping[str, Argument]
    defaults: Mapping[str, Any]
    splits: tuple[Split, ...]
    role: str

    def bind(self, given: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """The given arguments by name, in order.

        Raises
        ------
        TypeError
            As for a function with this signature.
        """
        names = self._argument_names
        if len(given) == len(names) and not named:
            return dict(zip(names, given, strict=True))
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
    def _argument_names(self) -> tuple[str, ...]:
        return tuple(self.arguments)

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

    def check(self, arguments: Mapping[str, Any], find_span: FindSpan = span_of) -> None:
        """Check a call against the declaration: shapes, dtypes and shared memory of its arrays, and names.

        Runs once, when a call is recorded, so that kernels need no checks.

        Parameters
        ----------
        arguments : dict
        find_span : callable
            Returns what `span_of` returns, for callers that know the spans of many arrays already.

        Raises
        ------
        InvalidInputError
            A shape, dtype or name does not match the declaration, an index is outside its array, or arrays overlap that
            must not.
        """
        for name, valid in self._names.items():
            given = arguments.get(name)
            if not isinstance(given, str) or given not in valid:
                raise UnknownNameError(f"{name} of {self.name}", given, valid)
        arrays = [arguments.get(name) for name in self.arrays]
        try:
            kinds = tuple([None if array is None else kind_of(array) for array in arrays])
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
        self._check_memory(arguments, find_span)

    @cached_property
    def _accepted(self) -> set[tuple[Any, ...]]:
        """Cache of valid shapes, dtypes and strides, so that recording the same step again is fast."""
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
            elif not last_axis_is_contiguous(array):
                raise InvalidInputError(
                    f"{self.name}: the rows of {name} must be contiguous in memory, received strides of "
                    f"{array.strides} bytes; copy it to a buffer"
                )

    def _fits(self, argument: Argument, array: Any, extents: dict[str, Any]) -> bool:
        shape, dtype = tuple(array.shape), dtype_name(array)
        if len(argument.shapes) == 1:
            # After a mismatch, only the error message uses `extents`.
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
        """Pairs of an array that is written and any other array."""
        return tuple(
            (name, other) for name, other in permutations(self.arrays, 2)
            if name in self.written and not (other in self.written and other < name)
        )  # fmt: skip

    def _check_memory(self, arguments: Mapping[str, Any], find_span: FindSpan) -> None:
        spans = {}
        for name in self.arrays:
            array = arguments.get(name)
            if array is not None and (span := find_span(array)) is not None:
                spans[name] = span
        ordered = sorted(spans.values())
        if all(one[1] <= other[0] for one, other in pairwise(ordered)):
            return
        for name, other in self._pairs:
            if name not in spans or other not in spans or not overlap(spans[name], spans[other]):
                continue
            if not self._may_alias(name, arguments[name], other, arguments[other]):
                raise InvalidInputError(
                    f"{self.name}: the output {name} shares memory with {other}; give it a separate buffer"
                )

    def _may_alias(self, name: str, out: Any, other: str, array: Any) -> bool:
        allowed = other in self.arguments[name].alias or name in self.arguments[other].alias
        same = out is array or (
            span_of(out) == span_of(array) and getattr(out, "strides", 0) == getattr(array, "strides", 0)
        )
        return allowed and same


@dataclass(eq=False)
class Call:
    """One entry of a recorded step: an operation and its arguments.

    Arguments are attributes: ``call.out``. A layer's own function is recorded under the name ``"custom"`` and called as
    ``function(backend, *arguments)``.

    Attributes
    ----------
    operation : str
    arguments : dict
        By name, in the order of the declaration; for a custom function by position.
    function : callable, optional
    """

    operation: str
    arguments: Mapping[str, Any]
    function: Callable[..., None] | None = None

    @classmethod
    def of(cls, operation: str, /, *given: Any, **named: Any) -> Call:
        """A call of an operation of the contract, without checks."""
        return cls(operation, OPERATIONS[operation].bind(given, named))

    @classmethod
    def custom(cls, function: Callable[..., None], *given: Any) -> Call:
        """A call of a user-defined function."""
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
        """The operation's declaration; None for a user-defined function."""
        return OPERATIONS.get(self.operation)

    @property
    def outside(self) -> str | None:
        """Why executors cannot compile it, if it is a user-defined function; None for an operation of the contract."""
        if self.function is None:
            return None
        return f"{getattr(self.function, '__name__', type(self.function).__name__)} is a user-defined function"

    def written(self) -> Iterator[Array]:
        """The arrays that this call writes."""
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
        The method's arguments, in order.
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
    """A method's docstring with a generated section on its parameters."""
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


def _matches(wanted: tuple[str | int, ...], shape: tuple[int, ...], extents: dict[str, Any]) -> bool:
    """Whether a shape matches the declared one, given the dimensions known so far; adds new ones to `extents`."""
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
    # A star would begin emphasis in the documentation.
    names = [f"{name[1:]}..." if isinstance(name, str) and name.startswith("*") else str(name) for name in shape]
    return f"({', '.join(names)}{',' if names == [*map(str, shape)] and len(shape) == 1 else ''})"


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
