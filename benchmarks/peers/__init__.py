"""nnbackend beside other libraries: the same nets, the same data, the same updates, in turns on the same cores.

    python -m pip install -e ".[peers]" && python -m benchmarks.peers        # everything; takes about an hour
    python -m benchmarks.peers nets                                         # the three nets
    python -m benchmarks.peers table                                        # what was measured before, printed again
    python -m benchmarks.peers page                                         # the same into docs/performance.md, and
                                                                            # its picture (roofline: that alone)

Every library has a process of its own (`worker.py`), bound to the same cores, so that no two share a pool of threads.
The parent gives each in turn the word to run some steps, and waits until it is quiet again before the next begins.
`contenders/` says how each of them trains, in the fastest form that its own documentation would call ordinary. None is
timed before its losses have been found to agree with ours in float64.
"""
