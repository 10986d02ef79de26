"""Model files."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import nnbackend as nn
from tests.fuzz.mutations import extreme, mutate
from tests.fuzz.targets.base import Target
from tests.fuzz.targets.networks import WORDS, use
from tests.fuzz.trees import change, to_text

__all__ = ["EnsembleTarget", "ModelTarget"]

_TYPES = ["F64", "F32", "F16", "BF16", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F4", "I64", "I32", "I16", "I8", "U64", "U32"]
_TYPES += ["U16", "U8", "BOOL", "C64"]
_HEADER_WORDS = [*_TYPES, "__metadata__", "nnbackend", "dtype", "shape", "data_offsets", "layers.0.weight", "format"]


class ModelTarget(Target):
    """`Network.load`, and use of the loaded network."""

    name = "model"
    share = 3

    def mutate(self, chance: random.Random, data: bytes, other: bytes) -> bytes:
        way = chance.random()
        if way < 0.2 or len(data) < 8:
            return mutate(chance, data, other)
        (size,) = struct.unpack("<Q", data[:8])
        body = data[8 + size :]
        try:
            header: Any = json.loads(data[8 : 8 + size])
            if way < 0.6:
                description = change(chance, json.loads(header["__metadata__"]["nnbackend"]), WORDS)
                header["__metadata__"]["nnbackend"] = to_text(chance, description).decode("latin-1")
                text = json.dumps(header).encode()
            else:
                _retype(chance, header)
                text = to_text(chance, change(chance, header, _HEADER_WORDS))
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
            return mutate(chance, data, other)
        if way > 0.9:
            body = mutate(chance, body, other) if body else b"\0"
        length = extreme(chance, 8) if chance.random() < 0.03 else struct.pack("<Q", len(text))
        return length + text + body

    def run(self, data: bytes) -> None:
        path = self.folder / "model.safetensors"
        path.write_bytes(data)
        network = nn.Network.load(path, "numpy")
        assert all(array.dtype == network.dtype for array in network.get_weights().values())
        use(network)


class EnsembleTarget(ModelTarget):
    """`Ensemble.load`, and use of the loaded networks."""

    name = "ensemble"
    share = 1

    def run(self, data: bytes) -> None:
        path = self.folder / "ensemble.safetensors"
        path.write_bytes(data)
        ensemble = nn.Ensemble.load(path, "numpy")
        assert 0 < len(ensemble) <= 10_000
        for network in ensemble:
            assert network.output_shape == ensemble.output_shape
        use(ensemble[0])


def _retype(chance: random.Random, header: Any) -> None:
    """Change the dtype, shape or offset of an array so that sizes often still match."""
    names = [name for name, entry in header.items() if isinstance(entry, dict) and "shape" in entry]
    if not names or chance.random() < 0.4:
        return
    entry = header[chance.choice(names)]
    way = chance.randrange(4)
    if way == 0:
        entry["dtype"] = chance.choice(_TYPES)
    elif way == 1:
        entry["dtype"] = chance.choice(("I32", "U32"))
    elif way == 2:
        entry["shape"] = [*entry["shape"][::-1], *chance.choice(([], [1], [1] * 70, [0], [2**63]))]
    else:
        begin, end = (int(place) for place in entry["data_offsets"])
        entry["data_offsets"] = chance.choice(([end, begin], [begin, end + 4], [0, end], [begin, 2**64 - 1]))
