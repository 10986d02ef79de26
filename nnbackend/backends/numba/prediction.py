"""A step that predicts, from rows of the host to results of the host, in one call from Python.

Steps of a few microseconds are shared, too, by threads that wait for the next one in compiled code. They do so for a
short time only: if no call follows, they return to Python and sleep. Each has a *mail*, numbers in memory of its own
cache lines:

* A thread that begins to wait sets the state to READY.
* The caller sets it to INVITED, and reads its rows. By then a thread that has a core has set it to ACCEPTED.
* The caller then says which step to run, on how many threads, and sets it to STARTED; or it sets it to READY again,
  which dismisses the thread.

A caller never waits for a thread that has lost its core: it runs the step on those that have accepted, or alone.
"""

from __future__ import annotations

import numpy as np

from nnbackend.backends.numba.epoch import run_from
from nnbackend.backends.numba.intrinsics import atomic_load, compare_exchange, exchange, relax, yield_core
from nnbackend.backends.numba.jit import as_written, internal_as_written
from nnbackend.backends.numba.memory import counts, matrix

__all__ = [
    "ASLEEP",
    "MAIL",
    "NOBODY",
    "STATE",
    "WAKE",
    "WAKING",
    "dismiss",
    "predict",
    "read_rows",
    "serve",
    "write_results",
]

#: States of a thread.
ASLEEP, WAKING, READY, INVITED, ACCEPTED, STARTED = range(6)

#: Fields of a mail, and their number with those that fill its cache lines.
STATE, TABLE, LINES, COUNTER, SCRATCH, THREAD, THREADS, BARRIER, GOAL = range(9)
MAIL = 16

#: Added to the result of `predict`: some threads are to be woken; no thread has come, and nothing was computed.
WAKE, NOBODY = 4, 8


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


@internal_as_written
def _finite(source, largest):
    bad = False
    for i in range(source.size):
        bad |= not abs(source[i]) <= largest
    return not bad


@as_written
def read_rows(rows, scale, largest, x, words):
    """Make rows the input of a step: converted and scaled in `x`, or where they are, if they need neither.

    Parameters
    ----------
    words : (n, 2) int64
        The words of the step's records that contain the address of its input, and what they contain beside it.

    Returns
    -------
    bool
        False if there is NaN or infinity.
    """
    if rows.dtype == x.dtype and scale == 1:
        begin, finite = rows.ctypes.data, _finite(rows.reshape(-1), largest)
    else:
        begin, finite = x.ctypes.data, _copy_finite(rows.reshape(-1), scale, largest, x.reshape(-1))
    for i in range(len(words)):
        counts(words[i, 0], 1)[0] = begin + words[i, 1]
    return finite


@as_written
def write_results(outputs, largest, results):
    """Copy results; False if there is NaN or infinity."""
    return _copy_finite(outputs.reshape(-1), outputs.dtype.type(1), largest, results.reshape(-1))


@as_written
def predict(
    rows, scale, largest, x, words, table, counter, scratch, outputs, results, mails, barrier, wake, patience, alone
):
    """Read rows, run the step, and write its results.

    Parameters
    ----------
    mails : (threads, MAIL) int64
        Of the threads that may help; empty if none may.
    barrier : (2,) int64
    wake : bool
        Whether to count threads that are asleep as woken, which the caller must then do.
    patience : int
        Number of checks for which to wait for a thread.
    alone : bool
        Whether to run the step on this thread if no other has come.

    Returns
    -------
    int
        0, or 1 if the rows hold NaN or infinity and nothing was computed, or 2 if the results do; plus WAKE or NOBODY.
    """
    flag = 0
    for i in range(len(mails)):
        state = mails.ctypes.data + 8 * MAIL * i
        if not compare_exchange(state, READY, INVITED) and wake and compare_exchange(state, ASLEEP, WAKING):
            flag = WAKE
    finite = read_rows(rows, scale, largest, x, words)
    threads, goal = 1, atomic_load(barrier.ctypes.data)
    for i in range(len(mails)):
        mail = mails.ctypes.data + 8 * MAIL * i
        checks = patience if finite else 0
        while atomic_load(mail) == INVITED and checks > 0:
            relax()
            checks -= 1
        # Dismissed if it has not come, or is not needed.
        if compare_exchange(mail, INVITED, READY) or atomic_load(mail) != ACCEPTED:
            continue
        if not finite:
            exchange(mail, READY)
            continue
        letter = counts(mail, MAIL)
        letter[TABLE], letter[LINES], letter[COUNTER] = table.ctypes.data, len(table), counter.ctypes.data
        letter[SCRATCH], letter[THREAD], letter[BARRIER], letter[GOAL] = scratch, threads, barrier.ctypes.data, goal
        threads += 1
    if not finite:
        return flag | 1
    if threads == 1 and not alone:
        return flag | NOBODY
    for i in range(len(mails)):
        mail = mails.ctypes.data + 8 * MAIL * i
        if atomic_load(mail) == ACCEPTED:
            counts(mail, MAIL)[THREADS] = threads
            exchange(mail, STARTED)
    run_from(table, False, counter, 1, scratch, 0, threads, barrier.ctypes.data, goal)
    return flag if write_results(outputs, largest, results) else flag | 2


@as_written
def dismiss(mails):
    """Let all threads that wait, or will, return to Python. No other thread may call `predict` now."""
    for i in range(len(mails)):
        mail = mails.ctypes.data + 8 * MAIL * i
        if not compare_exchange(mail, WAKING, ASLEEP):
            compare_exchange(mail, READY, ASLEEP)


@as_written
def serve(mails, place, waits):
    """Help callers of `predict` until none has called for a number of checks, each of some 20 nanoseconds, or until
    dismissed. Begins by changing the state WAKING."""
    mail = mails.ctypes.data + 8 * MAIL * place
    letter = counts(mail, MAIL)
    if not compare_exchange(mail, WAKING, READY):
        return
    left = waits
    while True:
        state = atomic_load(mail)
        if state == ASLEEP:
            return
        if state == INVITED and compare_exchange(mail, INVITED, ACCEPTED):
            while state in (ACCEPTED, INVITED):
                relax()
                state = atomic_load(mail)
            if state == STARTED:
                table = matrix(letter[TABLE], letter[LINES], 3, np.int64)
                run_from(
                    table, False, counts(letter[COUNTER], 3), 1, letter[SCRATCH], letter[THREAD], letter[THREADS],
                    letter[BARRIER], letter[GOAL],
                )  # fmt: skip
                exchange(mail, READY)
            left = waits
        relax()
        left -= 1
        if left % 64 == 0:
            yield_core()
        if left <= 0 and compare_exchange(mail, READY, ASLEEP):
            return
