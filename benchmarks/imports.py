"""What a program waits for before it trains: importing, the first network, the first steps. Fresh processes each.

A ``timeraw_`` method returns source code, or (source code, what to run before the clock starts); the interpreter's own
start is not counted.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.common import Suite
from nnbackend.backends.contract import Backend

_NETWORK = """
import nnbackend as nn
layers = [nn.Dense(200, activation="relu"), nn.Dense(80, activation="relu"), nn.Dense(10)]
network = nn.Network(layers, 784, backend="{backend}")
network.backend.synchronize()
"""

_TRAINING = """
import numpy as np
x = np.zeros((600, 784), np.uint8)
y = np.arange(600) % 10
network.fit(x, y, epochs=1, batch_size=256, loss="softmax_cross_entropy", optimizer="sgd", verbose=False)
"""


class Import:
    """The package's promise: hardly more than NumPy, which it needs in any case."""

    version = "1"

    def timeraw_numpy(self) -> str:
        return "import numpy"

    def timeraw_nnbackend(self) -> str:
        return "import nnbackend"

    def timeraw_nnbackend_over_numpy(self) -> tuple[str, str]:
        return "import nnbackend", "import numpy"

    timeraw_numpy.pretty_name = "import numpy"
    timeraw_nnbackend.pretty_name = "import nnbackend"
    timeraw_nnbackend_over_numpy.pretty_name = "import nnbackend after import numpy"


class Start(Suite):
    """From a bare interpreter to a network on the backend, and to its first three trained steps."""

    repeat = (2, 4, 10.0)

    def build(self, device: Backend) -> None:
        # Jitted kernels are kept on disk. What is timed is the second process, not the one that compiles them.
        subprocess.run([sys.executable, "-c", self.timeraw_first_steps(device.name)], check=True)

    def timeraw_first_network(self, backend: str) -> str:
        return _NETWORK.format(backend=backend)

    def timeraw_first_steps(self, backend: str) -> str:
        return _NETWORK.format(backend=backend) + _TRAINING

    timeraw_first_network.pretty_name = "first network"
    timeraw_first_steps.pretty_name = "first network and three training steps"
