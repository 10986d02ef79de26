"""The table of the two kernels of a step: its counts, and that it is printed without a GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import gpu_step
from nnbackend.backends.cupy.dense_program import THREADS
from tests.backends.cupy.emulator import why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

WORK = replace(gpu_step.works.NETS[1], name="784-8-4-10", hidden=(8, 4), batch_size=6)


@pytest.fixture(scope="module")
def program():
    return gpu_step.executor_of(WORK).program


def test_counts_of_bytes_and_multiplications(program):
    rows, update = gpu_step.needs(program)
    forward, backward = 784 * 8 + 8 * 4 + 4 * 12, 8 * 4 + 4 * 12
    assert (rows.kernel, rows.blocks, update.kernel) == ("rows_1", 6, "update_sgd")
    # Weights with padded rows, and a byte of each pixel.
    assert rows.read == 6 * 4 * (forward + backward) + 6 * 784
    assert rows.written == 6 * 4 * (784 + 8 + 8 + 4 + 4 + 10)
    assert rows.multiplications == 6 * (784 * 8 + 2 * (8 * 4 + 4 * 10))
    # 25 tiles for 785 rows of the first weight and its bias, and one for each of the others.
    assert update.blocks == 28
    assert update.multiplications == 27 * 6 * 32 * 32
    assert update.written == 4 * (784 * 8 + 8 * 4 + 4 * 10)


def test_many_networks_have_more_blocks_but_not_more_kernels(program):
    one, many = gpu_step.needs(program), gpu_step.needs(program, 32)
    assert [kernel.blocks for kernel in many] == [32 * 2, 32 * one[1].blocks]
    assert all(one.seconds() < other.seconds() < 32 * one.seconds() for one, other in zip(one, many, strict=True))


def test_what_limits_the_blocks_of_a_multiprocessor(program):
    rows, _ = gpu_step.needs(program)
    assert rows.concurrent(32) == 2048 // THREADS
    assert rows.concurrent(65) == 65_536 // (72 * THREADS)
    assert replace(rows, shared=60 << 10).concurrent(32) == 3


def test_the_command_prints_a_table_for_each_network(monkeypatch, capsys):
    monkeypatch.setattr(gpu_step.works, "NETS", (WORK, replace(WORK, hidden=(600, 400), optimizer="adam")))
    monkeypatch.setattr(gpu_step.nvrtc, "why_not", lambda: "not here")
    assert gpu_step.main(["--networks", "2"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Estimates for an H200; nothing is measured.")
    assert "### 784-8-4-10, sgd, batch 6, 2 at once" in printed
    assert "| rows_1 " in printed
    assert "not in two kernels: each block would read 3.7 MiB of weights" in printed


def cells(text):
    """The cells of all tables, but those of the compiler, which another version may change."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return [tuple(cell for place, cell in enumerate(row) if place not in (2, 3, 5, 6)) for row in rows]


def test_the_page_has_what_the_command_prints(monkeypatch):
    # What the compiler says takes seconds, and is not compared.
    monkeypatch.setattr(gpu_step.nvrtc, "why_not", lambda: "not asked")
    page = (Path(__file__).parents[2] / "docs" / "gpu_step.md").read_text()
    for work in gpu_step.works.NETS[:2]:
        title = f"### {work.name}, {work.optimizer}, batch {work.batch_size}, 1 at once\n"
        shown = page.partition(title)[2].partition("###")[0]
        wanted = cells(gpu_step.table(gpu_step.executor_of(work).program, 1, "sm_90"))
        assert len(wanted) == 5
        assert cells(shown) == wanted
