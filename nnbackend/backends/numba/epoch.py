"""The compiled epoch function: runs the lines of a program's table, step after step, without Python.

Several threads run it at the same time, each on its own share of every line, and meet before lines that have to wait.
It knows no operations: a line holds the address of the function to call, see `compiled.py`. It is compiled only once.
"""

from __future__ import annotations

import numpy as np

from nnbackend.backends.numba import program
from nnbackend.backends.numba.intrinsics import atomic_add, atomic_load, call, flush_subnormals, give_way
from nnbackend.backends.numba.jit import as_written, internal_as_written
from nnbackend.backends.numba.kinds import SCRATCH, STATE

# Numba takes globals of this module for constants.
FUNCTION, WAIT, RECORD = program.FUNCTION, program.WAIT, program.RECORD
STATE_SIZE = len(STATE.fields)
THREAD, THREADS = (STATE.offset(name) // 8 for name in ("thread", "threads"))

#: How often a thread checks before it yields its core to others.
PATIENCE = 4_000


@internal_as_written
def meet(meeting, goal):
    """Wait until `goal` threads have arrived; False if the run was cancelled.

    `meeting` is the address of two numbers: how many threads have arrived, and whether the run is cancelled.
    """
    atomic_add(meeting, 1)
    patience = PATIENCE
    while atomic_load(meeting) < goal:
        patience -= 1
        if patience == 0:
            if atomic_load(meeting + 8):
                return False
            give_way()
            patience = PATIENCE // 100
    return True


@as_written
def run(table, advances, counter, steps, thread, threads, meeting):
    """Run the table `steps` times.

    Parameters
    ----------
    table, advances, counter : of a Program
    thread, threads : int
        Which of the threads this is, and how many there are.
    meeting : int
        Address of two int64 that were 0 before the first of them began, see `meet`.
    """
    before = flush_subnormals(True)
    # Step of the epoch, of the network and of the optimiser, as in the counter.
    state = np.empty(STATE_SIZE, np.int64)
    # One by one: for an assignment to a slice, Numba spends seconds on compiling the text of an error message.
    for place in range(3):
        state[place] = counter[place]
    state[THREAD], state[THREADS] = thread, threads
    scratch = np.empty(SCRATCH, np.uint8)
    goal = 0
    for _ in range(steps):
        # The first line waits for the last of the step before.
        for line in range(len(table)):
            if table[line, WAIT] and threads > 1:
                goal += threads
                if not meet(meeting, goal):
                    flush_subnormals(before)
                    return
            call(table[line, FUNCTION], table[line, RECORD], state.ctypes.data, scratch.ctypes.data)
        if advances:
            for place in range(3):
                state[place] += 1
    flush_subnormals(before)
    if threads > 1:
        meet(meeting, goal + threads)
    if thread == 0:
        for place in range(3):
            counter[place] = state[place]
