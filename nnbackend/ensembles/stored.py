"""Several networks as the contents of one file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.errors import InvalidInputError, ModelFileError, shown
from nnbackend.layers import Layer
from nnbackend.network import Network

__all__ = ["MEMBERS", "TABULAR", "pack_members", "unpack_members"]

#: Key of the descriptions of all networks in a file, and prefix of the names of their weights.
MEMBERS = "members"

#: Key of the description of an estimator for tables in a file that has its networks, too.
TABULAR = "tabular"

#: Most networks in a file: each takes memory beyond that of its weights.
_MOST_MEMBERS = 10_000


def pack_members(networks: Sequence[Network]) -> tuple[list[dict[str, Any]], dict[str, HostArray]]:
    """The networks' descriptions as plain JSON, and their weights by name.

    Raises
    ------
    InvalidInputError
        There are more than 10,000 networks.
    """
    if len(networks) > _MOST_MEMBERS:
        raise InvalidInputError(f"a file may have at most {_MOST_MEMBERS:,} networks, not {len(networks):,}")
    weights = {
        f"{MEMBERS}.{place}.{name}": array
        for place, network in enumerate(networks)
        for name, array in network.get_weights().items()
    }
    return [network.config() for network in networks], weights


def unpack_members(
    path: str, members: Any, weights: dict[str, HostArray], backend: Backend, custom_layers: Sequence[type[Layer]] = ()
) -> list[Network]:
    """The networks from what a file holds.

    Raises
    ------
    ModelFileError
        It is damaged.
    """
    if not isinstance(members, list) or not 0 < len(members) <= _MOST_MEMBERS:
        raise ModelFileError(f"{path}: its description of the ensemble is damaged")
    parts: list[dict[str, HostArray]] = [{} for _ in members]
    for name, array in weights.items():
        prefix, _, rest = name.partition(".")
        place, _, own = rest.partition(".")
        if prefix != MEMBERS or not place.isdecimal() or not place.isascii() or len(place) > 9:
            raise ModelFileError(f"{path}: {shown(name)} belongs to no network of the ensemble")
        if int(place) >= len(parts) or own in parts[int(place)]:
            raise ModelFileError(f"{path}: {shown(name)} belongs to no network of the ensemble")
        parts[int(place)][own] = array
    return [
        Network.from_file(f"{path}: {MEMBERS}.{place}", each, own, backend, custom_layers)
        for place, (each, own) in enumerate(zip(members, parts, strict=True))
    ]
