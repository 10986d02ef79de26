"""Initial weights that depend on the data, but not on the targets."""

from __future__ import annotations

import copy

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.backends.products import ALONE
from nnbackend.layers import Dense
from nnbackend.network import Network

__all__ = ["scale_to_data"]

#: More rows would change the deviations little.
_MOST_ROWS = 1024

#: Units whose values differ less than this keep their weights.
_LEAST = 1e-6


def scale_to_data(network: Network, x: HostArray) -> None:
    """Scale the initial weights of hidden layers such that, over the rows, all units have a standard deviation of 1.

    This is so before the activation, and without the biases, which do not change (Holzmueller et al. 2024, section 3).
    The last layer does not change.

    Parameters
    ----------
    network : Network
    x : (n, features) array
    """
    values = x[:: -(-len(x) // _MOST_ROWS)].astype(np.float64)
    weights = network.get_weights()
    for place, layer in enumerate(network.layers[:-1]):
        prefix = f"layers.{place}."
        own = {name: value.astype(np.float64) for name, value in weights.items() if name.startswith(prefix)}
        if isinstance(layer, Dense):
            # With several threads, the order of BLAS's sums depends on their number.
            with ALONE:
                deviations = (values @ own[f"{prefix}weight"]).std(axis=0)
            own[f"{prefix}weight"] /= np.where(deviations > _LEAST, deviations, 1.0)
        weights |= own
        # On every backend, the host computes the same values.
        alone = Network([copy.deepcopy(layer)], values.shape[1:], backend="numpy", dtype=np.float64, input_scale=1.0)
        alone.set_weights({name.replace(prefix, "layers.0.", 1): value for name, value in own.items()})
        values = alone.predict(values)
    network.set_weights(weights)
