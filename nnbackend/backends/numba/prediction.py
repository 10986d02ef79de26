"""A step that predicts, from rows of the host to results of the host, in one call from Python."""

from __future__ import annotations

from nnbackend.backends.numba import epoch
from nnbackend.backends.numba.jit import as_written, internal_as_written

__all__ = ["predict", "read_rows", "write_results"]


@internal_as_written
def _copy_finite(source, scale, largest, out):
    """``out = source * scale`` in the type of `out`; returns whether all results are at most `largest`."""
    bad = False
    for i in range(source.size):
        value = out.dtype.type(source[i]) * scale
        out[i] = value
        # Written so that NaN counts; `|=` of comparisons is vectorised.
        bad |= not abs(value) <= largest
    return not bad


@as_written
def read_rows(rows, scale, largest, x):
    """Copy rows to the input of a step, converted and scaled; False if there is NaN or infinity."""
    return _copy_finite(rows.reshape(-1), scale, largest, x.reshape(-1))


@as_written
def write_results(outputs, scale, largest, results):
    """Copy results; False if there is NaN or infinity."""
    return _copy_finite(outputs.reshape(-1), scale, largest, results.reshape(-1))


@as_written
def predict(rows, scale, largest, one, x, table, counter, scratch, outputs, results):
    """Read rows, run the step on this thread, and write its results.

    Returns
    -------
    int
        0, or 1 if the rows hold NaN or infinity and nothing was computed, or 2 if the results do.
    """
    if not read_rows(rows, scale, largest, x):
        return 1
    epoch.run(table, False, counter, 1, scratch, 0, 1, 0)
    return 0 if write_results(outputs, one, largest, results) else 2
