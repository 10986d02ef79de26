"""Compare nnbackend with other libraries: the same networks, data and updates, in alternating rounds on the same cores.

    python -m pip install -e ".[peers]" && python -m benchmarks.peers        # everything; takes over an hour
    python -m benchmarks.peers nets                                         # the three networks
    python -m benchmarks.peers table                                        # print the stored results
    python -m benchmarks.peers page                                         # update docs/performance.md and its
                                                                            # picture (roofline: only the picture)

Each library runs in its own process (`worker.py`), bound to the same cores, so that they do not share a thread pool.
The parent lets each in turn run some steps, and waits until it is idle before the next one starts. `contenders/` has
the training code for each library, in the fastest form that its documentation describes as usual. A library is timed
only if its losses agree with ours in float64.
"""
