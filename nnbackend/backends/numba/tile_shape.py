"""The shape of the tiles that matrix products consist of, for a type and a CPU, as a constant of jitted code.

A `TileShape` is passed to a jitted function like any argument. Each one is a separate Numba type, so its attributes are
compile-time constants, and the same function can be compiled for other types and CPUs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite.binding import get_process_triple
from numba.core import types
from numba.core.imputils import lower_constant
from numba.core.typing.templates import AttributeTemplate
from numba.extending import (
    NativeValue,
    infer_getattr,
    lower_getattr_generic,
    models,
    overload,
    register_model,
    typeof_impl,
    unbox,
)

from nnbackend.backends.numba.targets import magic, selected

__all__ = ["FLOAT32", "FLOAT64", "TileShape", "VectorUnit", "shape_for", "tile_shape_of"]


@dataclass(frozen=True)
class VectorUnit:
    """The vector instructions of a CPU.

    Attributes
    ----------
    width : int
        Bytes of a register.
    registers : int
    fused : bool
        Whether it has fused multiply-add instructions.
    shuffles : bool
        Whether it moves lanes while it multiplies. Intel's CPUs with 64 bytes use the same units for both.
    """

    width: int
    registers: int
    fused: bool
    shuffles: bool = True

    @classmethod
    def of_this_cpu(cls) -> VectorUnit:
        """The unit of the CPU that Numba compiles for; see `targets.py`."""
        selected()
        return cls.described(get_process_triple(), magic()[1])

    @classmethod
    def described(cls, triple: str, features: str) -> VectorUnit:
        """The unit for LLVM's names, such as ``x86_64-unknown-linux-gnu`` with ``+avx,+fma,-avx512f``.

        For unknown platforms it assumes what nearly all have.
        """
        has = set(features.split(","))
        if triple.startswith(("aarch64", "arm64")):
            return cls(16, 32, fused=True)
        if "+avx512f" in has:
            # Only AMD's have this feature.
            return cls(64, 32, fused=True, shuffles="+sse4a" in has)
        return cls(32 if "+avx" in has else 16, 16, fused="+fma" in has)


@dataclass(frozen=True)
class TileShape:
    """How matrices of one type are multiplied: the size of tiles, panels and blocks.

    Attributes
    ----------
    real : {"float32", "float64"}
    lanes : int
        Elements in a vector, a power of two. LLVM supports any number on any CPU.
    fused : bool
        Whether to multiply and add in one instruction.
    rows, vectors : int
        Shape of a tile. Its vectors run along the rows of the result.
    depth : int
        Rows of a panel, which is as wide as a tile; a multiple of `lanes`.
    block : int
        Rows of the left matrix that are multiplied with one panel after the other. With the depth of a panel they
        occupy an eighth of the L2 cache of 1 MB or more, because rows at distances of a power of 2 can use only part of
        it.
    epilogue : str
        What happens to a finished tile: a name in `epilogues.py`.
    paired : bool
        Whether pairs of rows share the last vector of a tile where it is half full at most; see `product_tiles.py`.
    """

    real: str
    lanes: int
    fused: bool
    rows: int
    vectors: int
    depth: int = 128
    block: int = 256
    epilogue: str = "store"
    paired: bool = True

    @classmethod
    def choose(cls, real: str, unit: VectorUnit) -> TileShape:
        """The tile whose sums fill the registers, except for those needed for operands: a row of the panel and an
        element of the left matrix.

        More sums mean fewer loads per multiply-add, and a CPU that starts two multiply-adds per cycle with a latency of
        four needs 8 sums to stay busy. The panel occupies 24 KB of the L1 cache, which has at least 32 KB.
        """
        rows, vectors = (8, 3) if unit.registers >= 32 else (6, 2)
        return cls(real, unit.width // _SIZES[real], unit.fused, rows, vectors, paired=unit.shuffles)

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return _SIZES[self.real]

    @property
    def columns(self) -> int:
        """Columns of a tile."""
        return self.lanes * self.vectors

    @property
    def narrow(self) -> int:
        """Columns of the first of two tiles that share what is left after the others, if a whole tile would leave one
        vector at most: tiles of a single vector wait for loads."""
        return self.lanes * 2 if self.vectors == 3 else self.columns

    def panel_starts(self, columns: int) -> list[int]:
        """The first columns of the panels of a matrix, followed by the number of its columns. Panels are as wide as a
        tile, except for the last two."""
        starts = [0]
        while starts[-1] < columns:
            left = columns - starts[-1]
            width = self.narrow if self.columns < left <= self.columns + self.lanes else self.columns
            starts.append(min(starts[-1] + width, columns))
        return starts

    @property
    def strip(self) -> int:
        """Elements from one strip of a packed block to the next: a little more than it holds, because strips at
        distances of a power of 2 would compete for the same lines of the L1 cache."""
        return self.depth * self.rows + self.lanes

    @property
    def strips(self) -> int:
        """Strips of a block."""
        return -(-self.block // self.rows)

    def function_name(self, kind: str, *shape: Any) -> str:
        """A unique name for the generated code, because LLVM keeps only one of several functions with the same name."""
        return "_".join(str(part) for part in ("nnbackend", kind, *vars(self).values(), *shape))


_SIZES = {"float32": 4, "float64": 8}

FLOAT32 = TileShape.choose("float32", VectorUnit.of_this_cpu())
FLOAT64 = TileShape.choose("float64", VectorUnit.of_this_cpu())


class TileShapeType(types.Type):
    """Numba's type of a TileShape. The name is its identity, also in the cache on disk."""

    def __init__(self, tile_shape: TileShape) -> None:
        self.tile_shape = tile_shape
        super().__init__(name=str(tile_shape))


# The compiled code has only a placeholder.
register_model(TileShapeType)(models.OpaqueModel)


@typeof_impl.register(TileShape)
def _typeof(tile_shape: TileShape, context: Any) -> TileShapeType:
    return TileShapeType(tile_shape)


@lower_constant(TileShapeType)
def _constant(context: Any, builder: Any, kind: TileShapeType, tile_shape: TileShape) -> Any:
    return context.get_dummy_value()


@unbox(TileShapeType)
def _argument(kind: TileShapeType, tile_shape: Any, c: Any) -> Any:
    return NativeValue(c.context.get_dummy_value())


@infer_getattr
class _Attributes(AttributeTemplate):
    """The attributes of a TileShape in jitted code, constants when it is compiled."""

    key = TileShapeType

    def resolve_size(self, kind: TileShapeType) -> Any:
        return types.intp

    resolve_block = resolve_columns = resolve_depth = resolve_lanes = resolve_narrow = resolve_size
    resolve_rows = resolve_strip = resolve_size


@lower_getattr_generic(TileShapeType)
def _attribute(context: Any, builder: Any, kind: TileShapeType, tile_shape: Any, name: str) -> Any:
    return context.get_constant(types.intp, getattr(kind.tile_shape, name))


def shape_for(dtype: np.dtype[Any]) -> TileShape:
    """The tile shape for a NumPy type, float32 or float64."""
    return FLOAT32 if dtype == np.float32 else FLOAT64


def tile_shape_of(array: Any) -> TileShape:
    """In jitted code: the tile shape for an array's type."""
    raise NotImplementedError("for jitted code")


@overload(tile_shape_of)
def _tile_shape_of(array):  # without types: Numba compares the arguments with the lambda's
    tile_shape = FLOAT32 if array.dtype == types.float32 else FLOAT64
    return lambda array: tile_shape
