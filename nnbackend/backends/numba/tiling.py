"""How matrices are cut into tiles on a CPU, as a compile-time constant that jitted functions take for an argument."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numba.core import types
from numba.core.imputils import lower_constant
from numba.core.registry import cpu_target
from numba.extending import NativeValue, models, overload_attribute, register_model, typeof_impl, unbox

__all__ = ["FINGERPRINT", "FLOAT32", "FLOAT64", "Tiling", "VectorUnit"]


@dataclass(frozen=True)
class VectorUnit:
    """What a CPU has for computing with vectors.

    Attributes
    ----------
    width : int
        Bytes of a register.
    registers : int
    fused : bool
        Whether it multiplies and adds in one instruction.
    """

    width: int
    registers: int
    fused: bool

    @classmethod
    def of_this_cpu(cls) -> VectorUnit:
        """The unit that Numba compiles for: this CPU's, or a lesser one where ``NUMBA_CPU_NAME`` or
        ``NUMBA_CPU_FEATURES`` say so."""
        triple, _, features = cpu_target.target_context.codegen().magic_tuple()
        if triple.startswith(("aarch64", "arm64")):
            return cls(16, 32, True)
        has = set(features.split(","))
        if "+avx512f" in has:
            return cls(64, 32, True)
        return cls(32 if "+avx" in has else 16, 16, "+fma" in has)


@dataclass(frozen=True)
class Tiling:
    """How matrices of one type are multiplied.

    Attributes
    ----------
    real : {"float32", "float64"}
    lanes : int
        Elements in a vector.
    fused : bool
        Whether to multiply and add in one instruction.
    rows, vectors : int
        Shape of a tile; its vectors lie along the rows of the result.
    """

    real: str
    lanes: int
    fused: bool
    rows: int
    vectors: int
    depth: int = 128

    @classmethod
    def choose(cls, real: str, unit: VectorUnit) -> Tiling:
        """The largest tile whose sums leave registers for the operands of one step: a row of b, an element of a and a
        mask.

        A large tile reads less for each multiply-add. It also needs some 8 sums at least: most CPUs begin two
        multiply-adds a cycle, and each takes 4 cycles.
        """
        lanes = unit.width // _SIZES[real]
        if unit.registers >= 32:
            return cls(real, lanes, unit.fused, rows=8, vectors=3)
        return cls(real, lanes, unit.fused, rows=6, vectors=2)

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return _SIZES[self.real]

    @property
    def columns(self) -> int:
        """Columns of a tile."""
        return self.lanes * self.vectors


_SIZES = {"float32": 4, "float64": 8}

FLOAT32 = Tiling.choose("float32", VectorUnit.of_this_cpu())
FLOAT64 = Tiling.choose("float64", VectorUnit.of_this_cpu())


def _fingerprint() -> str:
    """Changes with the code of the tiles.

    Numba's cache on disk only looks at the file of a jitted function, and would keep tiles whose own file was changed.
    """
    here = Path(__file__).parent
    try:
        return f"{zlib.crc32(b''.join((here / name).read_bytes() for name in ('simd.py', 'tiles.py'))):08x}"
    except OSError:
        return ""  # an application frozen into one file, which does not change


FINGERPRINT = _fingerprint()


class TilingType(types.Type):  # type: ignore[misc]
    """A type for each Tiling, so that Numba compiles for it anew. Its name is its identity, in the cache too."""

    def __init__(self, tiling: Tiling) -> None:
        self.tiling = tiling
        super().__init__(name=f"{tiling} {FINGERPRINT}")


# Nothing of it exists in the running program.
register_model(TilingType)(models.OpaqueModel)


@typeof_impl.register(Tiling)
def _typeof(tiling: Tiling, context: Any) -> TilingType:
    return TilingType(tiling)


@lower_constant(TilingType)
def _constant(context: Any, builder: Any, kind: TilingType, tiling: Tiling) -> Any:
    return context.get_dummy_value()


@unbox(TilingType)
def _argument(kind: TilingType, tiling: Any, c: Any) -> NativeValue:
    return NativeValue(c.context.get_dummy_value())


def _attribute(name: str) -> None:
    @overload_attribute(TilingType, name)
    def attribute(kind):  # type: ignore[no-untyped-def]
        value: int = getattr(kind.tiling, name)
        return lambda kind: value


for _name in ("size", "lanes", "columns", "depth"):
    _attribute(_name)
