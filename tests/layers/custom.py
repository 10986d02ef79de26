"""User-defined layers for several tests: state, four axes, nested layers."""

from __future__ import annotations

import nnbackend as nn
from nnbackend.layers import check_layers, follow_shapes, layers_config
from tests.helpers import any_device


class RunningScale(nn.Layer):
    """Divide by a running mean of the batch's mean magnitude: state that the forward pass updates."""

    def __init__(self, momentum=0.9):
        self.momentum = momentum

    def parameters(self, input_shape):
        return (nn.Parameter("mean", (1,), nn.Normal(1.0, 0.0), trainable=False),)

    def forward(self, step, x):
        out, mean = step.like(x), step.parameter("mean")
        if step.training and step.trainable:
            step.call(update_mean, x, mean, self.momentum)
        step.call(divide, x, mean, out)
        return out, None

    def backward(self, step, saved, upstream, need_input_gradient):
        if need_input_gradient:
            step.call(divide, upstream, step.parameter("mean"), upstream)
        return upstream

    def config(self):
        return {"momentum": self.momentum}


@any_device
def update_mean(backend, x, mean, momentum):
    mean[...] = momentum * mean + (1 - momentum) * abs(x).mean()


@any_device
def divide(backend, x, by, out):
    out[...] = x / by[0]


class Convolution(nn.Layer):
    """A 2-D convolution as a sum over kernel positions, with the number of training steps as state."""

    def __init__(self, filters, size):
        self.filters, self.size = filters, size

    def output_shape(self, input_shape):
        height, width, _ = input_shape
        return (height - self.size + 1, width - self.size + 1, self.filters)

    def parameters(self, input_shape):
        shape = (self.size, self.size, input_shape[-1], self.filters)
        return (
            nn.Parameter("weight", shape, nn.GlorotUniform(), l2=1e-3),
            nn.Parameter("steps", (1,), nn.Zeros(), trainable=False),
        )

    def forward(self, step, x):
        out = step.buffer(*self.output_shape(step.input_shape))
        if step.training:
            step.call(count_step, step.parameter("steps"))
        step.call(convolve, x, step.parameter("weight"), out)
        return out, x

    def backward(self, step, saved, upstream, need_input_gradient):
        if step.trainable:
            step.call(kernel_gradient, saved, upstream, step.gradient("weight"))
        downstream = step.buffer(*step.input_shape)
        if need_input_gradient:
            step.call(input_gradient, upstream, step.parameter("weight"), downstream)
        return downstream

    def config(self):
        return {"filters": self.filters, "size": self.size}


@any_device
def count_step(backend, steps):
    steps += 1


@any_device
def convolve(backend, x, weight, out):
    out[...] = 0
    for i, j, part in _places(x, weight, out):
        out[...] += part @ weight[i, j]


@any_device
def kernel_gradient(backend, x, upstream, out):
    for i, j, part in _places(x, out, upstream):
        out[i, j] = part.reshape(-1, part.shape[-1]).T @ upstream.reshape(-1, upstream.shape[-1])


@any_device
def input_gradient(backend, upstream, weight, out):
    out[...] = 0
    for i, j, part in _places(out, weight, upstream):
        part += upstream @ weight[i, j].T


def _places(image, kernel, result):
    height, width = result.shape[1:3]
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            yield i, j, image[:, i : i + height, j : j + width]


class Chain(nn.Layer):
    """Its layers in sequence, using only operations of the contract."""

    def __init__(self, layers):
        self.sublayers = check_layers(layers)

    def output_shape(self, input_shape):
        return follow_shapes(self.sublayers, input_shape)[1]

    def forward(self, step, x):
        return step.forward(self.sublayers, x)

    def backward(self, step, saved, upstream, need_input_gradient):
        return step.backward(self.sublayers, saved, upstream, need_input_gradient)

    def config(self):
        return {"layers": layers_config(self.sublayers)}


class Shortcut(Chain):
    """``x + layers(x)``."""

    def forward(self, step, x):
        inner, saved = step.forward(self.sublayers, x)
        out = step.like(inner)
        step.call(add, x, inner, out)
        return out, saved

    def backward(self, step, saved, upstream, need_input_gradient):
        # The layers may overwrite their arguments.
        kept = step.like(upstream)
        step.call(assign, upstream, kept)
        downstream = step.backward(self.sublayers, saved, upstream, need_input_gradient)
        if need_input_gradient:
            step.call(add, kept, downstream, downstream)
        return downstream


@any_device
def add(backend, one, other, out):
    out[...] = one + other


@any_device
def assign(backend, source, out):
    out[...] = source
