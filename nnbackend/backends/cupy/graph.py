"""A recorded step as a CUDA graph: captured once, then started for every batch with a single launch.

Launching the kernels of a step one by one from Python takes many times longer than running them. A graph contains all
launches, validated and uploaded in advance. It repeats them with the same arguments, so kernels read values that change
between steps from device memory: the index of the batch, the learning rate, the optimiser's t.
"""

from __future__ import annotations

import logging
from functools import partial

from nnbackend.backends.contract import Executor
from nnbackend.backends.cupy.interface import CaptureError, Graph, Runtime

__all__ = ["UNROLLED", "GraphExecutor"]

_log = logging.getLogger("nnbackend")

#: Steps in the longer of two graphs: the device pauses between graphs, but not between the steps of one graph.
UNROLLED = 8


class GraphExecutor(Executor):
    """Captures the step when it runs for the second time, and replays the graph from then on.

    The first run is not captured: it is a normal step that also compiles the kernels and allocates temporary memory,
    which is not allowed during capture.

    Parameters
    ----------
    runtime : Runtime
    plain : Executor
        Runs the step operation by operation, and keeps the arrays used by the graphs alive.
    """

    name = "graph"
    reason = "every operation of the step can be captured in a CUDA graph"

    def __init__(self, runtime: Runtime, plain: Executor) -> None:
        self._runtime = runtime
        self._plain = plain
        self._warm = False
        self._captures = True
        self._graphs: dict[int, Graph] = {}

    def run(self, repeats: int) -> None:
        if repeats and not self._warm:
            self._plain.run(1)
            self._warm = True
            repeats -= 1
        for steps in (UNROLLED, 1):
            times, repeats = divmod(repeats, steps)
            graph = self._graph(steps) if times else None
            if graph is None:
                self._plain.run(times * steps)
                continue
            for _ in range(times):
                graph.launch()

    def _graph(self, steps: int) -> Graph | None:
        """The graph of this many steps; None if the device cannot capture the step."""
        if steps not in self._graphs and self._captures:
            try:
                self._graphs[steps] = self._runtime.capture(partial(self._plain.run, steps))
            except CaptureError as error:
                # Nothing has run, because a capture only records.
                self._captures = False
                self.name, self.reason = self._plain.name, f"the step could not be captured in a CUDA graph: {error}"
                _log.warning("training continues with the %s executor: %s", self.name, self.reason)
        return self._graphs.get(steps)
