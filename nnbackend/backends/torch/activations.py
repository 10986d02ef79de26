"""PyTorch's own functions for activations, which write to a given array, and their derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from nnbackend.backends.arrays import Array

__all__ = ["FORWARD", "GRADIENT"]

_ops = torch.ops.aten

#: By name: the function of the pre-activation z, the parameter a and the output. The others have no such function that
#: keeps to the contract: PyTorch's softplus rounds, and its softmax may not write to its input.
FORWARD: Mapping[str, Callable[[Array, float, Array], object]] = {
    "identity": lambda z, a, out: out.copy_(z),
    "relu": lambda z, a, out: torch.clamp_min(z, 0, out=out),
    "leaky_relu": lambda z, a, out: _ops.leaky_relu.out(z, a, out=out),
    "elu": lambda z, a, out: _ops.elu.out(z, a, out=out),
    "sigmoid": lambda z, a, out: torch.sigmoid(z, out=out),
    "tanh": lambda z, a, out: torch.tanh(z, out=out),
    "gelu": lambda z, a, out: _ops.gelu.out(z, approximate="tanh", out=out),
    "silu": lambda z, a, out: _ops.silu.out(z, out=out),
    "exponential": lambda z, a, out: torch.exp(z, out=out),
}

#: By name: the function of what the forward pass saved, the parameter a, the gradient g of the output, and the result.
GRADIENT: Mapping[str, Callable[[Array, float, Array, Array], object]] = {
    "identity": lambda s, a, g, out: out.copy_(g),
    # A product, because PyTorch's own function drops a NaN in g where the output is 0.
    "relu": lambda s, a, g, out: torch.mul(g, s > 0, out=out),
    "leaky_relu": lambda s, a, g, out: _ops.leaky_relu_backward.grad_input(g, s, a, True, grad_input=out),
    "elu": lambda s, a, g, out: _ops.elu_backward.grad_input(g, a, 1, 1, True, s, grad_input=out),
    "sigmoid": lambda s, a, g, out: _ops.sigmoid_backward.grad_input(g, s, grad_input=out),
    "tanh": lambda s, a, g, out: _ops.tanh_backward.grad_input(g, s, grad_input=out),
    "gelu": lambda s, a, g, out: _ops.gelu_backward.grad_input(g, s, approximate="tanh", grad_input=out),
    "silu": lambda s, a, g, out: _ops.silu_backward.grad_input(g, s, grad_input=out),
    "exponential": lambda s, a, g, out: torch.mul(g, s, out=out),
}
