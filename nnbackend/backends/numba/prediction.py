"""A step that predicts, from rows of the host to results of the host, in one call from Python.

Steps of a few microseconds are shared, too, by threads that wait for the next one in compiled code. They do so for a
short time only: if no call follows, they return to Python and sleep. Each has a *mail*, numbers in memory of its own
cache lines:

* A thread that begins to wait sets the state to READY.
* The caller sets it to INVITED, and reads its rows. By then a thread that has a core has set it to ACCEPTED.
* The caller then says which step to run, on how many threads, and sets it to STARTED; or it sets it to READY again,
  which dismisses the thread.

A caller never waits for a thread that has lost its core: it runs the step on those that have accepted, or alone.

A step whose threads take chunks of rows needs no such appointment: the caller sets the state to OPEN, and the thread to
STARTED whenever it comes. When there are no more chunks, the caller sets OPEN to READY again, or waits for READY.
"""

from __future__ import annotations

import numpy as np

from nnbackend.backends.executor import INFINITE, NOTHING, SUSPECT
from nnbackend.backends.numba.epoch import SPINS, run_from
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
    "compile_for_threads",
    "copy_finite",
    "dismiss",
    "is_finite",
    "point_to",
    "predict",
    "read_rows",
    "run_open",
    "run_shared",
    "serve",
    "write_results",
]

#: States of a thread.
ASLEEP, WAKING, READY, INVITED, ACCEPTED, STARTED, OPEN = range(7)

#: Fields of a mail, and their number with those that fill its cache lines.
STATE, TABLE, LINES, COUNTER, SCRATCH, THREAD, THREADS, BARRIER, GOAL = range(9)
MAIL = 16

#: Added to the result of `predict`: some threads are to be woken; no thread has come, and nothing was computed.
WAKE, NOBODY = 8, 16


@internal_as_written
def copy_finite(source, scale, largest, out):
    """``out = source * scale`` in the type of `out`; returns whether all results are at most `largest`."""
    bad = False
    for i in range(source.size):
        value = out.dtype.type(source[i]) * scale
        out[i] = value
        # Written so that NaN counts; `|=` of comparisons is vectorised.
        bad |= not abs(value) <= largest
    return not bad


@internal_as_written
def is_finite(source, largest):
    """Whether all numbers are at most `largest`."""
    bad = False
    for i in range(source.size):
        bad |= not abs(source[i]) <= largest
    return not bad


@internal_as_written
def point_to(words, begin):
    """Write an address to the words that depend on it."""
    for i in range(len(words)):
        counts(words[i, 0], 1)[0] = begin + words[i, 1]


@as_written
def read_rows(rows, scale, largest, x, words, look):
    """Make rows the input of a step: converted and scaled in `x`, or where they are, if they need neither.

    Parameters
    ----------
    words : (n, 2) int64
        The words of the step's records that contain the address of its input, and what they contain beside it.
    look : bool
        Whether to look for NaN and infinity also in rows that need no conversion.

    Returns
    -------
    bool
        False if there is NaN or infinity.
    """
    if rows.dtype == x.dtype and scale == 1:
        begin, finite = rows.ctypes.data, not look or is_finite(rows.reshape(-1), largest)
    else:
        begin, finite = x.ctypes.data, copy_finite(rows.reshape(-1), scale, largest, x.reshape(-1))
    point_to(words, begin)
    return finite


@as_written
def write_results(outputs, largest, results):
    """Copy results; False if there is NaN or infinity."""
    return copy_finite(outputs.reshape(-1), outputs.dtype.type(1), largest, results.reshape(-1))


@internal_as_written
def _invite(mails, wake):
    """Invite the threads that wait; returns WAKE or 0."""
    flag = 0
    for i in range(len(mails)):
        state = mails.ctypes.data + 8 * MAIL * i
        if not compare_exchange(state, READY, INVITED) and wake and compare_exchange(state, ASLEEP, WAKING):
            flag = WAKE
    return flag


@internal_as_written
def _instruct(table, counter, scratch, mails, barrier, patience):
    """Tell the threads that have accepted what to run, and dismiss the others; returns their number, including this
    one. With a `patience` of 0 all are dismissed."""
    threads, goal = 1, atomic_load(barrier.ctypes.data)
    for i in range(len(mails)):
        mail, checks = mails.ctypes.data + 8 * MAIL * i, patience
        while atomic_load(mail) == INVITED and checks > 0:
            relax()
            checks -= 1
        # Dismissed if it has not come, or is not needed.
        if compare_exchange(mail, INVITED, READY) or atomic_load(mail) != ACCEPTED:
            continue
        if patience == 0:
            exchange(mail, READY)
            continue
        letter = counts(mail, MAIL)
        letter[TABLE], letter[LINES], letter[COUNTER] = table.ctypes.data, len(table), counter.ctypes.data
        letter[SCRATCH], letter[THREAD], letter[BARRIER], letter[GOAL] = scratch, threads, barrier.ctypes.data, goal
        threads += 1
    return threads


@internal_as_written
def _start(table, counter, scratch, mails, barrier, threads):
    """Run the table on this thread and those that were instructed."""
    goal = atomic_load(barrier.ctypes.data)
    for i in range(len(mails)):
        mail = mails.ctypes.data + 8 * MAIL * i
        if atomic_load(mail) == ACCEPTED:
            counts(mail, MAIL)[THREADS] = threads
            exchange(mail, STARTED)
    run_from(table, False, counter, 1, scratch, 0, threads, barrier.ctypes.data, goal)


@as_written
def run_shared(table, counter, scratch, mails, barrier, wake, patience, alone):
    """Run the lines of a table, as `predict` does it."""
    flag = _invite(mails, wake)
    threads = _instruct(table, counter, scratch, mails, barrier, patience)
    if threads == 1 and not alone:
        return flag | NOBODY
    _start(table, counter, scratch, mails, barrier, threads)
    return flag


@as_written
def run_open(table, counter, scratch, mails, wake):
    """Run the lines of a table, each of which shares its work among all threads that come, with those that wait.

    If `wake`, first look for threads that are asleep; if there are, nothing is run, and the result is WAKE. Otherwise
    it is NOBODY if there are, or 0.
    """
    flag = 0
    for i in range(len(mails)):
        mail = mails.ctypes.data + 8 * MAIL * i
        if atomic_load(mail) == ASLEEP:
            flag = NOBODY
            if wake:
                exchange(mail, WAKING)
    if flag and wake:
        return WAKE
    for i in range(len(mails)):
        mail = mails.ctypes.data + 8 * MAIL * i
        letter = counts(mail, MAIL)
        letter[TABLE], letter[LINES], letter[COUNTER] = table.ctypes.data, len(table), counter.ctypes.data
        letter[SCRATCH], letter[THREAD] = scratch, i + 1
        if not compare_exchange(mail, READY, OPEN):
            compare_exchange(mail, WAKING, OPEN)
    run_from(table, False, counter, 1, scratch, 0, 1, 0, 0)
    for i in range(len(mails)):
        mail = mails.ctypes.data + 8 * MAIL * i
        if not compare_exchange(mail, OPEN, READY):
            spins = SPINS
            while atomic_load(mail) == STARTED:
                relax()
                spins -= 1
                if spins == 0:
                    yield_core()
                    spins = SPINS // 100
    return flag


@as_written
def predict(
    rows, scale, largest, x, words, look, flags, table, counter, scratch, outputs, results, mails, barrier, wake,
    patience, alone,
):  # fmt: skip
    """Read rows, run the step, and write its results.

    Parameters
    ----------
    flags : (2,) int64
        To the first the step writes 1 if its input may hold NaN or infinity.
    mails : (threads, MAIL) int64
        Of the threads that may help; empty if none may.
    barrier : (2,) int64
    wake : bool
        Whether to count threads that are asleep as woken, which the caller must then do.
    patience : int
        Number of checks for which to wait for a thread, if there are mails at least 1.
    alone : bool
        Whether to run the step on this thread if no other has come.

    Returns
    -------
    int
        Flags of :data:`nnbackend.backends.executor.RunRows`, and WAKE or NOBODY.
    """
    flag = _invite(mails, wake)
    finite = read_rows(rows, scale, largest, x, words, look)
    threads = _instruct(table, counter, scratch, mails, barrier, patience if finite else 0)
    if not finite:
        return flag | NOTHING
    if threads == 1 and not alone:
        return flag | NOBODY
    flags[0] = 0
    _start(table, counter, scratch, mails, barrier, threads)
    if flags[0]:
        flag |= SUSPECT
    return flag if write_results(outputs, largest, results) else flag | INFINITE


@as_written
def dismiss(mails):
    """Let all threads that wait, or will, return to Python. No other thread may call `predict` now."""
    for i in range(len(mails)):
        mail = mails.ctypes.data + 8 * MAIL * i
        if not compare_exchange(mail, WAKING, ASLEEP):
            compare_exchange(mail, READY, ASLEEP)


@as_written
def serve(mails, place, waits):
    """Help callers of `predict` and `run_open` until none has called for a number of checks, each of some 20
    nanoseconds, or until dismissed. Begins by changing the state WAKING."""
    mail = mails.ctypes.data + 8 * MAIL * place
    letter = counts(mail, MAIL)
    compare_exchange(mail, WAKING, READY)
    left = waits
    while True:
        state = atomic_load(mail)
        if state == ASLEEP:
            return
        if state == OPEN and compare_exchange(mail, OPEN, STARTED):
            table = matrix(letter[TABLE], letter[LINES], 3, np.int64)
            # Without barriers, as if it were alone.
            run_from(table, False, counts(letter[COUNTER], 3), 1, letter[SCRATCH], letter[THREAD], 1, 0, 0)
            exchange(mail, READY)
            left = waits
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
        # Not at once: calls that follow each other would then lose the core to any other process.
        if left % 64 == 0 and 2 * left < waits:
            yield_core()
        if left <= 0 and compare_exchange(mail, READY, ASLEEP):
            return


def compile_for_threads() -> None:
    """Compile what a call needs only if threads meet in some way, and what it therefore may or may not compile."""
    asleep = np.full((1, MAIL), ASLEEP, np.int64)
    dismiss(asleep)
    serve(asleep, 0, 0)
    # Runs nothing, because a thread is asleep.
    run_open(np.zeros((0, 1), np.int64), np.zeros(1, np.int64), 0, asleep, True)
