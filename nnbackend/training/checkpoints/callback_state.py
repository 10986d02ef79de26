"""The state of callbacks as plain JSON and arrays, and back.

A state is a dict of JSON values and arrays. What JSON would change (tuples, sets, keys that are not text, NumPy's
scalars, arrays within lists) is written as a dict with the key "$", and restored exactly. What cannot be restored is
rejected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.errors import InvalidInputError, ModelFileError, shown

__all__ = ["pack_state", "unpack_state"]

#: The key of a dict that stands for something that JSON does not have.
_TAG = "$"

#: Dtypes of arrays that are stored as they are. Others are stored as bytes.
_STORED = {"bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
           "float16", "float32", "float64"}  # fmt: skip

#: Dtypes of arrays that are stored as bytes: numbers of any byte order, complex numbers, text, bytes, dates.
_AS_BYTES = re.compile(r"[<>|=]?([biufcSU]\d{1,9}|[mM]8(\[\d{0,9}[A-Za-z]{1,2}\])?)")

#: Containers within each other; more would exhaust Python's stack.
_DEEPEST = 60

#: Largest number of bits of an integer. Python refuses to read integers of more than 4,300 decimal digits.
_MOST_BITS = 14_000

_SETS: dict[str, type[Any]] = {"set": set, "frozenset": frozenset}


def pack_state(callback: str, state: Any) -> tuple[dict[str, Any], dict[str, HostArray]]:
    """The state of a callback as plain JSON and arrays.

    Parameters
    ----------
    callback : str
        Its class, for messages.
    state : dict
        What its `state` returned.

    Returns
    -------
    plain : dict
        JSON values by name, without the arrays of the state.
    arrays : dict of arrays
        Contiguous, in the machine's byte order.

    Raises
    ------
    InvalidInputError
        The state holds something that cannot be restored exactly; the message says where and what to do.
    """
    if not isinstance(state, Mapping):
        raise InvalidInputError(
            f"the state of {callback} must be a dict of JSON values and NumPy arrays, received {shown(state)}"
        )
    for key in state:
        if not isinstance(key, str):
            raise InvalidInputError(f"the state of {callback} must have text as keys, received {shown(key)}")
    arrays = {key: np.asarray(value, order="C") for key, value in state.items() if _is_stored(value)}
    packer = _Packer(callback, arrays)
    plain = {packer.text(key, key): packer.pack(value, key, 1) for key, value in state.items() if not _is_stored(value)}
    for key in arrays:
        packer.text(key, key)
    return plain, {**arrays, **packer.nested}


def unpack_state(plain: Any, arrays: Mapping[str, HostArray]) -> dict[str, Any]:
    """The state from which `pack_state` made these values.

    Raises
    ------
    ModelFileError
        They were not made by it.
    """
    try:
        unpacker = _Unpacker(arrays)
        state = {key: unpacker.unpack(value) for key, value in plain.items()}
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise ModelFileError(f"the state of a callback is damaged ({shown(error)})") from error
    # Copies, which callbacks may change.
    return state | {key: np.array(array) for key, array in unpacker.arrays.items()}


def _is_stored(value: Any) -> bool:
    """Whether a value is an array that a file holds as it is."""
    if type(value) not in (np.ndarray, np.memmap):
        return False
    return value.dtype.name in _STORED and value.dtype.isnative


class _Packer:
    """Converts the values of a state; arrays within them are moved to `nested`."""

    def __init__(self, callback: str, taken: Mapping[str, HostArray]) -> None:
        self._callback, self._taken = callback, taken
        self.nested: dict[str, HostArray] = {}

    def pack(self, value: Any, place: str, depth: int) -> Any:
        kind = type(value)
        if value is None or kind in (bool, float):
            return value
        if kind is int:
            if value.bit_length() > _MOST_BITS:
                raise self._error(place, "an integer of thousands of digits", "store it as text, with hex()")
            return value
        if kind is str:
            return self.text(value, place)
        if kind is np.float64:
            return float(value)
        if kind is bytes:
            return {_TAG: "bytes", **self._bytes(np.frombuffer(value, np.uint8), place)}
        if isinstance(value, np.generic):
            return {_TAG: "scalar", **self._bytes(np.asarray(value), place)}
        if kind in (np.ndarray, np.memmap):
            return {_TAG: "array", **self._bytes(value, place)}
        if depth > _DEEPEST:
            place = f"{place[:20]}..."
            raise self._error(place, f"containers more than {_DEEPEST} levels deep", "store something flatter")
        if kind is list:
            return self._items(value, place, depth)
        if kind is tuple:
            return {_TAG: "tuple", "items": self._items(value, place, depth)}
        if kind in _SETS.values():
            # Sorted, so that equal sets make equal files.
            return {_TAG: kind.__name__, "items": self._items(sorted(value, key=repr), place, depth)}
        if kind is dict:
            return self._dict(value, place, depth)
        what = f"a {kind.__module__}.{kind.__qualname__}" if isinstance(value, np.ndarray) else shown(value)
        raise self._error(place, what, _advice(value))

    def text(self, value: str, place: str) -> str:
        """Text that can be encoded."""
        try:
            value.encode()
        except UnicodeEncodeError:
            raise self._error(place, f"the text {value!r}", "remove the lone surrogates") from None
        return value

    def _items(self, values: Any, place: str, depth: int) -> list[Any]:
        return [self.pack(value, f"{place}[{index}]", depth + 1) for index, value in enumerate(values)]

    def _dict(self, value: dict[Any, Any], place: str, depth: int) -> dict[str, Any]:
        if _TAG not in value and all(type(key) is str for key in value):
            return {
                self.text(key, place): self.pack(each, f"{place}[{key!r}]", depth + 1) for key, each in value.items()
            }
        pairs = [list(pair) for pair in value.items()]
        return {_TAG: "dict", "items": self._items(pairs, place, depth)}

    def _bytes(self, array: HostArray, place: str) -> dict[str, Any]:
        """An array, whose elements are moved to `nested`."""
        if not _AS_BYTES.fullmatch(array.dtype.str):
            raise self._error(place, f"an array of {array.dtype}", "convert it to an array of numbers or text")
        number = len(self.nested)
        while (name := f"{_TAG}{number}") in self._taken or name in self.nested:
            number += 1
        self.nested[name] = np.frombuffer(array.tobytes(), np.uint8)
        return {"name": name, "dtype": array.dtype.str, "shape": list(array.shape)}

    def _error(self, place: str, what: str, advice: str) -> InvalidInputError:
        return InvalidInputError(f"a checkpoint cannot hold the state of {self._callback}: {place} is {what}; {advice}")


def _advice(value: Any) -> str:
    if isinstance(value, np.ma.MaskedArray):
        return "store its data and its mask"
    if isinstance(value, np.ndarray):
        return "store numpy.asarray(...) of it"
    if isinstance(value, dict | list | tuple | set | int | float | str):
        return f"convert it to a plain {next(kind for kind in _PLAIN if isinstance(value, kind)).__name__}"
    return "store numbers, text, lists, tuples, dicts or NumPy arrays from which set_state can make it again"


_PLAIN = (dict, list, tuple, set, int, float, str)


class _Unpacker:
    """The reverse of `_Packer`; takes nested arrays out of `arrays`."""

    def __init__(self, arrays: Mapping[str, HostArray]) -> None:
        self.arrays = dict(arrays)

    def unpack(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.unpack(each) for each in value]
        if not isinstance(value, dict):
            return value
        if _TAG not in value:
            return {key: self.unpack(each) for key, each in value.items()}
        kind = value[_TAG]
        if kind in _SETS:
            return _SETS[kind](self.unpack(value["items"]))
        kinds: dict[str, Callable[[dict[str, Any]], Any]] = {
            "array": self._array,
            "bytes": lambda value: self._array(value).tobytes(),
            "scalar": lambda value: self._array(value)[()],
            "tuple": lambda value: tuple(self.unpack(value["items"])),
            "dict": lambda value: dict(self.unpack(value["items"])),
        }
        return kinds[kind](value)

    def _array(self, value: dict[str, Any]) -> HostArray:
        if not _AS_BYTES.fullmatch(value["dtype"]):
            raise ValueError(f"{value['dtype']!r} is no dtype of an array in a checkpoint")
        elements = self.arrays.pop(value["name"]).tobytes()
        array: HostArray = np.ndarray(tuple(value["shape"]), value["dtype"], elements)
        return array.copy()
