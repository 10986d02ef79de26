"""Start-up times, each in a new process: the import, the first network, the first steps.

A ``timeraw_`` method returns source code, or (source code, code to run before timing); the start of the interpreter is
not included.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.common import Suite
from nnbackend.backends.contract import Backend

_NETWORK = """
import nnbackend as nn
layers = [nn.Dense(200, activation="relu"), nn.Dense(80, activation="relu"), nn.Dense(10)]
network = nn.Network(layers, 784, backend="{backend}", input_scale=1 / 255)
network.backend.synchronize()
"""

_TRAINING = """
import numpy as np
x = np.zeros((600, 784), np.uint8)
y = np.arange(600) % 10
network.fit(x, y, epochs=1, batch_size=256, loss="softmax_cross_entropy", optimizer="sgd", verbose=False)
"""


class Import:
    """The import of the package, which should take little more than NumPy's."""

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
    """The time from a new interpreter to a network on the backend, and to its first three training steps."""

    repeat = (2, 4, 10.0)

    def build(self, device: Backend) -> None:
        # Jitted kernels are cached on disk; time a process that loads them, not the one that compiles them.
        subprocess.run([sys.executable, "-c", self.timeraw_first_steps(device.name)], check=True)

    def timeraw_first_network(self, backend: str) -> str:
        return _NETWORK.format(backend=backend)

    def timeraw_first_steps(self, backend: str) -> str:
        return _NETWORK.format(backend=backend) + _TRAINING

    timeraw_first_network.pretty_name = "first network"
    timeraw_first_steps.pretty_name = "first network and three training steps"
