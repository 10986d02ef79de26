"""The compiled epoch function: runs the lines of a program's table, step after step, without Python.

Several threads run it at the same time, each on its own share of every line, with barriers before some lines. It is
independent of operations, because a line contains the address of the function to call (see `compiled.py`), so it is
compiled only once.
"""

from __future__ import annotations

import numpy as np
from numba import types

from nnbackend.backends.numba import program
from nnbackend.backends.numba.intrinsics import atomic_add, atomic_load, call, flush_subnormals, yield_core
from nnbackend.backends.numba.jit import as_written, internal_as_written
from nnbackend.backends.numba.kinds import STATE

# Numba treats globals as constants.
FUNCTION, WAIT, RECORD = program.FUNCTION, program.WAIT, program.RECORD
STATE_SIZE = len(STATE.fields)
THREAD, THREADS = (STATE.offset(name) // 8 for name in ("thread", "threads"))

#: Types of the arguments of `run`.
SIGNATURE = (types.int64[:, ::1], types.boolean, types.int64[::1], *[types.int64] * 5)

#: Number of checks before a waiting thread yields its core.
SPINS = 4_000


@internal_as_written
def wait_at_barrier(barrier, goal):
    """Barrier: wait until `goal` threads have arrived; False if the run was cancelled.

    `barrier` is the address of two numbers: how many threads have arrived, and whether the run is cancelled.
    """
    atomic_add(barrier, 1)
    spins = SPINS
    while atomic_load(barrier) < goal:
        spins -= 1
        if spins == 0:
            if atomic_load(barrier + 8):
                return False
            yield_core()
            spins = SPINS // 100
    return True


@internal_as_written
def run_from(table, advances, counter, steps, scratch_bytes, thread, threads, barrier, goal):
    """As `run`, with a barrier at which `goal` threads have arrived before."""
    before = flush_subnormals(True)
    # Step counts of the epoch, the network and the optimiser, as in the counter.
    state = np.empty(STATE_SIZE, np.int64)
    # One by one, because for an assignment to a slice Numba spends seconds compiling an error message.
    for place in range(3):
        state[place] = counter[place]
    state[THREAD], state[THREADS] = thread, threads
    scratch = np.empty(scratch_bytes, np.uint8)
    for _ in range(steps):
        # The first line waits for the last line of the previous step.
        for line in range(len(table)):
            if table[line, WAIT] and threads > 1:
                goal += threads
                if not wait_at_barrier(barrier, goal):
                    flush_subnormals(before)
                    return
            call(table[line, FUNCTION], table[line, RECORD], state.ctypes.data, scratch.ctypes.data)
        if advances:
            for place in range(3):
                state[place] += 1
    flush_subnormals(before)
    if threads > 1:
        wait_at_barrier(barrier, goal + threads)
    if thread == 0:
        for place in range(3):
            counter[place] = state[place]


@as_written
def run(table, advances, counter, steps, scratch_bytes, thread, threads, barrier):
    """Run the table `steps` times.

    Parameters
    ----------
    table, advances, counter : of a Program
    steps : int
    scratch_bytes : int
        Of temporary memory.
    thread, threads : int
        Index of this thread, and number of threads.
    barrier : int
        Address of two int64 that are 0 before the first thread starts; see `wait_at_barrier`.
    """
    run_from(table, advances, counter, steps, scratch_bytes, thread, threads, barrier, 0)
