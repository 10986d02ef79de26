"""The machine code of the innermost loops, for CPUs that need not be this one: LLVM compiles for all of them."""

from __future__ import annotations

import functools
import re

import llvmlite.binding as llvm
import pytest
from llvmlite import ir

from nnbackend.backends.numba.product_tiles import _write_product
from nnbackend.backends.numba.simd import INTEGER
from nnbackend.backends.numba.tile_shape import TileShape, VectorUnit

#: (triple, CPU, features, a fused multiply-add of whole vectors for each type, any call, any scalar multiply-add).
TARGETS = {
    "NEON": (
        "aarch64-unknown-linux-gnu",
        "neoverse-n1",
        "+neon",
        {"float32": r"fmla\s+v\d+\.4s", "float64": r"fmla\s+v\d+\.2d"},
    ),
    "AVX2": (
        "x86_64-unknown-linux-gnu",
        "haswell",
        "+avx,+avx2,+fma",
        {"float32": r"vfmadd\d+ps\s.*%ymm", "float64": r"vfmadd\d+pd\s.*%ymm"},
    ),
    "AVX-512": (
        "x86_64-unknown-linux-gnu",
        "skylake-avx512",
        "+avx,+avx2,+fma,+avx512f",
        {"float32": r"vfmadd\d+ps\s.*%zmm", "float64": r"vfmadd\d+pd\s.*%zmm"},
    ),
}
_CALL = re.compile(r"^\s+(callq?|bl|blr)\s", re.MULTILINE)
_SCALAR = re.compile(r"^\s+(vfmadd\d+s[sd]|fmadd)\s", re.MULTILINE)


@functools.cache
def assembly(real: str, target: str) -> tuple[TileShape, dict[str, str]]:
    """The tiles of products for a type and a CPU: the shape, and the assembly of each function."""
    triple, cpu, features, _ = TARGETS[target]
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=3)
    except RuntimeError as error:
        pytest.skip(f"this llvmlite does not compile for {triple}: {error}")
    shape = TileShape.choose(real, VectorUnit.described(triple, features))
    module = ir.Module()
    module.triple, module.data_layout = triple, str(machine.target_data)
    function = ir.Function(module, ir.FunctionType(INTEGER, [INTEGER] * 19), "tile")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(_write_product(shape, builder, function.args))
    compiled = llvm.parse_assembly(str(module))
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(compiled, passes)
    text = machine.emit_assembly(compiled)
    parts = re.split(r"^(nnbackend_product_tile\w*):", text, flags=re.MULTILINE)
    return shape, {name: body.partition(".Lfunc_end")[0] for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def loops(body: str) -> list[str]:
    """The loops of a function that consist of one block: from a label to a jump back to it."""
    blocks = re.split(r"^(\.LBB\w+):", body, flags=re.MULTILINE)
    found = []
    for label, block in zip(blocks[1::2], blocks[2::2], strict=True):
        back = re.search(rf"^\s+(?:j\w+|b\.\w+|cbn?z\s+\w+,|tbn?z\s.*,|b)\s*{re.escape(label)}\b", block, re.MULTILINE)
        if back:
            found.append(block[: back.end()])
    return found


@pytest.mark.parametrize("real", ["float32", "float64"])
@pytest.mark.parametrize("target", TARGETS)
def test_tiles_multiply_and_add_whole_vectors_in_registers(real, target):
    """A step of the innermost loop is a multiply-add for each vector of sums, and nothing else that would take time."""
    shape, functions = assembly(real, target)
    fused = re.compile(TARGETS[target][3][real])
    whole = [body for name, body in functions.items() if name.endswith(f"_{shape.rows}_{shape.vectors}_False_False")]
    assert len(whole) == 1
    counts = [(len(fused.findall(loop)), loop) for loop in loops(whole[0])]
    number, innermost = max(counts)
    sums = shape.rows * shape.vectors
    # LLVM may repeat the step in the loop.
    assert number >= sums, whole[0]
    assert number % sums == 0
    assert not _CALL.search(innermost)
    assert not _SCALAR.search(innermost)
    # The sums stay in registers: nothing is stored.
    assert not re.search(r"^\s+v?mov\w*\s+%[xyz]mm\d+, |^\s+st[rp]\s+q", innermost, re.MULTILINE)


@pytest.mark.parametrize("target", TARGETS)
def test_no_tile_calls_a_function(target):
    """A call would be one of the C library's fma() for every lane, on a CPU that has the instruction."""
    _, functions = assembly("float32", target)
    assert len(functions) > 4
    for name, body in functions.items():
        assert not _CALL.search(body), name
