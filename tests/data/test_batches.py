"""Dividing the rows of a batch: every row once, in the order of the batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnbackend.data.batches import Batches
from nnbackend.distributed import Slice, batch_slices, rows_of, shard_slices


@given(rows=st.integers(1, 60), batch_size=st.integers(1, 60), size=st.integers(1, 7))
def test_the_ranks_parts_are_the_batches(rows, batch_size, size):
    batch_size = min(batch_size, rows)
    order = np.random.default_rng(rows).permutation(rows)
    plans = [Batches(rows, batch_size, rank=rank, ranks=size) for rank in range(size)]
    parts = [plan.part(order) for plan in plans]
    sizes = [batch_size] * (rows // batch_size) + [rows % batch_size] * (rows % batch_size > 0)
    for plan, part in zip(plans, parts, strict=True):
        assert plan.sizes.tolist() == sizes
        assert len(part) == plan.own_rows
        assert plan.size == max([piece.rows for piece in plan.slices])
    begin = 0
    for step, batch in enumerate(sizes):
        # The rows that each rank's gather selects: from its own order, starting at step times its batch size.
        taken = []
        for plan, part in zip(plans, parts, strict=True):
            own = [piece.rows for piece in plan.slices for _ in range(piece.repeats)][step]
            firsts = [piece.first for piece in plan.slices for _ in range(piece.repeats)][step]
            assert firsts == len(taken)
            taken += part[step * plan.size :][:own].tolist()
        assert taken == order[begin : begin + batch].tolist()
        begin += batch


def test_slices_are_as_equal_as_possible():
    assert batch_slices(70, 16, 0, 3) == [Slice(6, 0, 16, 4), Slice(2, 0, 6, 1)]
    assert batch_slices(70, 16, 1, 3) == [Slice(5, 6, 16, 4), Slice(2, 2, 6, 1)]
    assert batch_slices(70, 16, 2, 3) == [Slice(5, 11, 16, 4), Slice(2, 4, 6, 1)]
    assert batch_slices(17, 16, 1, 2) == [Slice(8, 8, 16, 1), Slice(0, 1, 1, 1)]
    assert [rows_of(10, rank, 4) for rank in range(4)] == [3, 3, 2, 2]


@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=5), more=st.integers(0, 20))
def test_every_row_of_every_shard_is_taken_once(counts, more):
    batch_size = min(sum(counts), len(counts) + more)
    slices = [shard_slices(counts, batch_size, rank) for rank in range(len(counts))]
    assert len({tuple((piece.batch, piece.repeats) for piece in own) for own in slices}) == 1
    for rank, (own, count) in enumerate(zip(slices, counts, strict=True)):
        rows = [piece.rows for piece in own for _ in range(piece.repeats)]
        # The gather requests full slices first, then the rest.
        each = rows_of(batch_size, rank, len(counts))
        wanted = [each] * (count // each) + [count % each]
        assert rows == (wanted + [0] * len(rows))[: len(rows)]
        assert sum(rows) == count
    for pieces in zip(*slices, strict=True):
        assert [piece.first for piece in pieces] == np.cumsum([0, *(piece.rows for piece in pieces)])[:-1].tolist()
        assert pieces[0].batch == sum(piece.rows for piece in pieces) > 0


@pytest.mark.parametrize("rank", [0, 1])
def test_epochs_of_a_number_of_steps(rank):
    plan = Batches(100, 7, steps=3, rank=rank, ranks=2)
    assert (plan.rows, plan.steps, plan.own_rows) == (21, 3, (12, 9)[rank])
