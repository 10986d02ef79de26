"""Records: structs that Python writes and jitted code reads by field name.

A `Record` lists the fields, each 8 bytes: addresses and counts as int64, constants as float64. Python packs values into
it with :meth:`Record.pack`. Jitted code receives the address and reads fields as attributes::

    line = at(record, address)
    rows = line.rows

The record is a constant to jitted code, so each field is one load from a known offset.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_constant
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, intrinsic, lower_getattr_generic, models, register_model, typeof_impl

from nnbackend.support.fork_lock import cached_property

__all__ = ["INTEGER", "REAL", "Record", "at"]

#: Kinds of fields, by the letters of `struct`.
INTEGER, REAL = "q", "d"

_BYTES = 8


@dataclass(frozen=True)
class Record:
    """A struct of numbers.

    Attributes
    ----------
    name : str
    fields : tuple of (name, kind)
        In memory order; the kind is INTEGER or REAL.
    """

    name: str
    fields: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, name: str, **fields: str) -> Record:
        """Create a record with these fields: ``Record.of("update", rates=INTEGER, momentum=REAL)``."""
        return cls(name, tuple(fields.items()))

    @property
    def size(self) -> int:
        """Bytes."""
        return _BYTES * len(self.fields)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The equivalent NumPy dtype."""
        return np.dtype([(name, {INTEGER: np.int64, REAL: np.float64}[kind]) for name, kind in self.fields])

    def offset(self, name: str) -> int:
        """Offset of a field in bytes."""
        return self._offsets[name]

    def pack(self, buffer: Any, offset: int, values: Mapping[str, Any]) -> None:
        """Write the values to a buffer; fields without a value become 0."""
        self._layout.pack_into(buffer, offset, *[values.get(name, 0) for name, _ in self.fields])

    @cached_property
    def _offsets(self) -> dict[str, int]:
        return {name: _BYTES * place for place, (name, _) in enumerate(self.fields)}

    @cached_property
    def _layout(self) -> struct.Struct:
        return struct.Struct("=" + "".join(kind for _, kind in self.fields))

    def __reduce__(self) -> tuple[Any, ...]:
        # Numba pickles records, and a struct cannot be pickled.
        return Record, (self.name, self.fields)


class _RecordType(types.Type):
    """Numba's type of a Record. The name is its identity, also in the cache on disk."""

    def __init__(self, record: Record) -> None:
        self.record = record
        super().__init__(name=f"Record({record.name}: {record.fields})")


class _PlaceType(types.Type):
    """Numba's type of the address of a record."""

    def __init__(self, record: Record) -> None:
        self.record = record
        super().__init__(name=f"At({record.name}: {record.fields})")


# The compiled code has no record, only addresses.
register_model(_RecordType)(models.OpaqueModel)


@register_model(_PlaceType)
class _PlaceModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.IntType(64))


@typeof_impl.register(Record)
def _typeof(record: Record, context: Any) -> _RecordType:
    return _RecordType(record)


@lower_constant(_RecordType)
def _constant(context: Any, builder: Any, kind: _RecordType, record: Record) -> Any:
    return context.get_dummy_value()


@intrinsic
def at(context, record, address):
    """The record at an address, whose fields are attributes."""

    def generate(target, builder, signature, arguments):
        return arguments[1]

    return _PlaceType(record.record)(record, types.int64), generate


@infer_getattr
class _Fields(AttributeTemplate):
    key = _PlaceType

    def generic_resolve(self, place: Any, name: Any) -> Any:  # type: ignore[override]
        kind = dict(place.record.fields).get(name)
        return None if kind is None else {INTEGER: types.int64, REAL: types.float64}[kind]


@lower_getattr_generic(_PlaceType)
def _load(context: Any, builder: Any, kind: _PlaceType, place: Any, name: str) -> Any:
    number = kind.record.offset(name) // _BYTES
    real = dict(kind.record.fields)[name] == REAL
    pointer = builder.inttoptr(place, (ir.DoubleType() if real else ir.IntType(64)).as_pointer())
    return builder.load(builder.gep(pointer, [ir.Constant(ir.IntType(64), number)]))
