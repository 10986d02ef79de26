"""A program that trains; run as a script, from standard input or with ``python -c``, which leaves no ``__file__``.

It reads its settings from the variables ``GUEST_RESULTS`` (the file for its results), ``GUEST_FOLDER`` (for the
network's file) and ``GUEST_BACKENDS`` (their names, separated by spaces).
"""

import json
import os
import random
import sys
from pathlib import Path

random.seed(4)
drawn = random.Random(4).random()
before = {"environment": dict(os.environ), "arguments": list(sys.argv), "path": list(sys.path)}

import nnbackend as nn  # noqa: E402
from tests.guest.work import work  # noqa: E402

after = {"environment": dict(os.environ), "arguments": list(sys.argv), "path": list(sys.path)}
results = {name: work(name, Path(os.environ["GUEST_FOLDER"])) for name in os.environ["GUEST_BACKENDS"].split()}
found = {
    "results": results,
    "changed": [name for name in before if before[name] != after[name]],
    "drawn": random.random() == drawn,
    "usable": [info.name for info in nn.available_backends() if info.usable],
    "optimised": sys.flags.optimize,
    "streams": [sys.stdin is not None, sys.stdout is not None, sys.stderr is not None],
}
Path(os.environ["GUEST_RESULTS"]).write_text(json.dumps(found))
