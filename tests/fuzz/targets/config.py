"""Configurations of networks."""

from __future__ import annotations

import json
import random

import nnbackend as nn
from tests.fuzz.targets.base import Target
from tests.fuzz.targets.networks import WORDS, use
from tests.fuzz.trees import change, to_text

__all__ = ["ConfigTarget"]


class ConfigTarget(Target):
    """`Network.from_config` with parsed JSON."""

    name = "config"
    share = 4
    #: A configuration may describe a large network; the limit is the memory of the machine, here that of the worker.
    most_memory = 640 << 20

    def mutate(self, chance: random.Random, data: bytes, other: bytes) -> bytes:
        try:
            return to_text(chance, change(chance, json.loads(data), WORDS))
        except (ValueError, RecursionError):
            return super().mutate(chance, data, other)

    def run(self, data: bytes) -> None:
        try:
            config = json.loads(data)
        except (ValueError, RecursionError):
            return  # Not JSON; parsing the text is not part of the target.
        network = nn.Network.from_config(config, "numpy")
        json.dumps(network.config(), allow_nan=False)
        if network.steps_trained < 2**62:
            use(network)
