"""The operations of the backends, one by one, on float32 arrays of the shapes in the three networks.

With the parameter "net", a result is the time of the operation in one training step of that network, over all layers.
Every timed method waits for the device before it returns, so on a GPU each result includes a round trip to the device;
`time_advance`, which changes three numbers, shows its duration.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import common
from benchmarks.common import (
    BACKENDS,
    CLASSES,
    PIXELS,
    SEED,
    NetSuite,
    Suite,
    array,
    dense_shapes,
    images,
    matrix,
    parameter_count,
    vector,
)
from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.backends.contract import Backend, Call
from nnbackend.backends.image_operations import POOLS
from nnbackend.presets import PRESETS

#: Rows and columns for operations that do not depend on the network: the first hidden layer of the middle one.
_ROWS, _COLUMNS = 256, 200

#: For operations on images.
_IMAGES = 32

#: So small that hours of updates hardly change the parameters.
_LEARNING_RATE = 1e-8


class Transfers(Suite):
    """Transfers between host and device: a batch of images, its predictions, a snapshot of the parameters."""

    def build(self, device: Backend) -> None:
        self.device = device
        self.host, _ = images(_ROWS)
        self.batch = device.from_host(self.host)
        self.outputs = matrix(device, _ROWS, CLASSES)
        self.parameters = vector(device, parameter_count("784-200-80-10"))
        self.snapshot = device.empty(self.parameters.shape, np.float32)
        for timed in (self.time_from_host, self.time_write, self.time_to_host, self.time_copy):
            timed(device.name)

    def time_from_host(self, backend: str) -> None:
        self.device.from_host(self.host)
        self.device.synchronize()

    def time_write(self, backend: str) -> None:
        self.device.write(self.host, self.batch)
        self.device.synchronize()

    def time_to_host(self, backend: str) -> None:
        self.device.to_host(self.outputs)

    def time_copy(self, backend: str) -> None:
        self.device.copy(self.parameters, self.snapshot)
        self.device.synchronize()

    time_from_host.pretty_name = "from_host: 256 images"
    time_write.pretty_name = "write: 256 images"
    time_to_host.pretty_name = "to_host: 256 x 10 outputs"
    time_copy.pretty_name = "copy: parameters of 784-200-80-10"


class Gather(NetSuite):
    """The first operation of a step: a batch of shuffled uint8 rows, cast and scaled."""

    def build(self, device: Backend, net: str) -> None:
        self.device = device
        self.batch_size = PRESETS[net].batch_size
        rows = common.GATHER_ROWS
        self.images = device.from_host(images(rows)[0])
        self.order = device.from_host(np.random.default_rng(SEED).permutation(rows))
        # Alternate between batches, because a single batch would stay in the cache.
        steps = range(rows // self.batch_size)
        self.counters = itertools.cycle([device.from_host(np.array([step, 0, 0])) for step in steps])
        self.out = matrix(device, self.batch_size, PIXELS)
        self.time_gather(device.name, net)

    def time_gather(self, backend: str, net: str) -> None:
        self.device.gather(self.images, self.order, next(self.counters), self.batch_size, 1 / 255, self.out)
        self.device.synchronize()

    time_gather.pretty_name = "gather"


class Dense(NetSuite):
    """The dense layers of a network: forward with bias and activation, and the gradients.

    The products run in an executor, as in a step, because this is where a CPU backend limits the threads of BLAS.
    Entering it costs about 50 us, which are included in the results; operations without products are called directly.
    """

    def build(self, device: Backend, net: str) -> None:
        self.device = device
        recipe, shapes = PRESETS[net], dense_shapes(net)
        rows, last = recipe.batch_size, len(shapes) - 1
        forward, input_gradients, weight_gradients = [], [], []
        self.bias_gradients, self.activation_gradients = [], []
        for index, (inputs, outputs) in enumerate(shapes):
            x, weight = matrix(device, rows, inputs), matrix(device, inputs, outputs, scale=inputs**-0.5)
            bias, delta = vector(device, outputs), matrix(device, rows, outputs)
            activation = recipe.activation if index < last else "identity"
            alpha = ACTIVATIONS[activation].alpha
            out = matrix(device, rows, outputs)
            forward.append(Call.of("dense_forward", x, weight, bias, activation, alpha, None, out))
            weight_gradients.append(Call.of("dense_weight_gradient", x, delta, matrix(device, inputs, outputs)))
            self.bias_gradients.append((delta, vector(device, outputs)))
            if index > 0:  # The first layer needs no gradient of its input.
                input_gradients.append(Call.of("dense_input_gradient", delta, weight, matrix(device, rows, inputs)))
            if index < last:
                self.activation_gradients.append((out, activation, alpha, delta, matrix(device, rows, outputs)))
        self.forward = device.executor(forward)
        self.input_gradients = device.executor(input_gradients)
        self.weight_gradients = device.executor(weight_gradients)
        for timed in (
            self.time_dense_forward,
            self.time_dense_input_gradient,
            self.time_dense_weight_gradient,
            self.time_bias_gradient,
            self.time_activation_gradient,
        ):
            timed(device.name, net)

    def time_dense_forward(self, backend: str, net: str) -> None:
        self.forward.run(1)
        self.device.synchronize()

    def time_dense_input_gradient(self, backend: str, net: str) -> None:
        self.input_gradients.run(1)
        self.device.synchronize()

    def time_dense_weight_gradient(self, backend: str, net: str) -> None:
        self.weight_gradients.run(1)
        self.device.synchronize()

    def time_bias_gradient(self, backend: str, net: str) -> None:
        for arguments in self.bias_gradients:
            self.device.bias_gradient(*arguments)
        self.device.synchronize()

    def time_activation_gradient(self, backend: str, net: str) -> None:
        for arguments in self.activation_gradients:
            self.device.activation_gradient(*arguments)
        self.device.synchronize()

    time_dense_forward.pretty_name = "dense_forward, all layers"
    time_dense_input_gradient.pretty_name = "dense_input_gradient, all layers"
    time_dense_weight_gradient.pretty_name = "dense_weight_gradient, all layers"
    time_bias_gradient.pretty_name = "bias_gradient, all layers"
    time_activation_gradient.pretty_name = "activation_gradient, all layers"


class Activations(Suite):
    """Activations that the networks do not use: one with a long formula, and one with sums over the row."""

    params = (BACKENDS, ("gelu", "softmax"))
    param_names = ("backend", "activation")

    def build(self, device: Backend, activation: str) -> None:
        self.device = device
        self.alpha = ACTIVATIONS[activation].alpha
        self.z, self.upstream = matrix(device, _ROWS, _COLUMNS), matrix(device, _ROWS, _COLUMNS)
        self.out, self.gradient = matrix(device, _ROWS, _COLUMNS), matrix(device, _ROWS, _COLUMNS)
        self.saved = self.z if ACTIVATIONS[activation].saves == "preactivation" else self.out
        self.time_forward(device.name, activation)
        self.time_gradient(device.name, activation)

    def time_forward(self, backend: str, activation: str) -> None:
        self.device.activation_forward(self.z, activation, self.alpha, self.out)
        self.device.synchronize()

    def time_gradient(self, backend: str, activation: str) -> None:
        self.device.activation_gradient(self.saved, activation, self.alpha, self.upstream, self.gradient)
        self.device.synchronize()

    time_forward.pretty_name = "activation_forward: 256 x 200"
    time_gradient.pretty_name = "activation_gradient: 256 x 200"


class MaxAbsNorm(Suite):
    """Rows divided by their largest magnitude."""

    def build(self, device: Backend) -> None:
        self.device = device
        self.x, self.upstream = matrix(device, _ROWS, _COLUMNS), matrix(device, _ROWS, _COLUMNS)
        self.out, self.gradient = matrix(device, _ROWS, _COLUMNS), matrix(device, _ROWS, _COLUMNS)
        self.time_forward(device.name)
        self.time_gradient(device.name)

    def time_forward(self, backend: str) -> None:
        self.device.max_abs_norm(self.x, self.out)
        self.device.synchronize()

    def time_gradient(self, backend: str) -> None:
        self.device.max_abs_norm_gradient(self.x, self.upstream, self.gradient)
        self.device.synchronize()

    time_forward.pretty_name = "max_abs_norm: 256 x 200"
    time_gradient.pretty_name = "max_abs_norm_gradient: 256 x 200"


class Convolution(Suite):
    """The second convolution of LeNet: 32 images of 12 x 12 with 20 channels, 40 kernels of 5 x 5."""

    def build(self, device: Backend) -> None:
        self.device = device
        x, kernel, maps = array(device, _IMAGES, 12, 12, 20), (5, 5, 20, 40), array(device, _IMAGES, 8, 8, 40)
        weight, bias, steps = array(device, *kernel, scale=500**-0.5), vector(device, 40), (1, 1, 1, 1, 0, 0)
        forward = Call.of("convolution", x, weight, bias, *steps, array(device, _IMAGES, 8, 8, 40))
        gradient = Call.of("convolution_input_gradient", maps, weight, *steps, array(device, _IMAGES, 12, 12, 20))
        kernels = Call.of("convolution_weight_gradient", x, maps, *steps, array(device, *kernel))
        self.forward, self.input_gradient, self.weight_gradient = (
            device.executor([call]) for call in (forward, gradient, kernels)
        )
        for timed in (self.time_forward, self.time_input_gradient, self.time_weight_gradient):
            timed(device.name)

    def time_forward(self, backend: str) -> None:
        self.forward.run(1)
        self.device.synchronize()

    def time_input_gradient(self, backend: str) -> None:
        self.input_gradient.run(1)
        self.device.synchronize()

    def time_weight_gradient(self, backend: str) -> None:
        self.weight_gradient.run(1)
        self.device.synchronize()

    time_forward.pretty_name = "convolution: 32 x 12 x 12 x 20, 40 kernels of 5 x 5"
    time_input_gradient.pretty_name = "convolution_input_gradient: 32 x 12 x 12 x 20, 40 kernels of 5 x 5"
    time_weight_gradient.pretty_name = "convolution_weight_gradient: 32 x 12 x 12 x 20, 40 kernels of 5 x 5"


class Pools(Suite):
    """Pools of 2 x 2 without overlap: 32 images of 24 x 24 with 20 channels."""

    params = (BACKENDS, POOLS)
    param_names = ("backend", "kind")

    def build(self, device: Backend, kind: str) -> None:
        self.device = device
        x, pooled, upstream = (array(device, _IMAGES, side, side, 20) for side in (24, 12, 12))
        window = (kind, 2, 2, 2, 2, 0, 0)
        self.forward = (x, *window, pooled)
        self.backward = (x, pooled, upstream, *window, array(device, _IMAGES, 24, 24, 20))
        self.time_pool(device.name, kind)
        self.time_pool_gradient(device.name, kind)

    def time_pool(self, backend: str, kind: str) -> None:
        self.device.pool(*self.forward)
        self.device.synchronize()

    def time_pool_gradient(self, backend: str, kind: str) -> None:
        self.device.pool_gradient(*self.backward)
        self.device.synchronize()

    time_pool.pretty_name = "pool: 32 x 24 x 24 x 20"
    time_pool_gradient.pretty_name = "pool_gradient: 32 x 24 x 24 x 20"


class ImageSteps(Suite):
    """Operations that move, add or scale numbers, and normalisation: 32 images of 12 x 12 with 20 channels."""

    params = (
        BACKENDS,
        ("place", "add", "batch_norm", "batch_norm_gradient", "normalize", "layer_norm", "layer_norm_gradient",
         "layer_norm_scale_gradient"),
    )  # fmt: skip
    param_names = ("backend", "operation")

    def build(self, device: Backend, operation: str) -> None:
        self.device, self.operation = device, getattr(device, operation)
        images, rows = array(device, _IMAGES, 12, 12, 20), _IMAGES * 144
        x, upstream, out = (array(device, rows, 20) for _ in range(3))
        scale, shift, mean, gradient = (vector(device, 20) for _ in range(4))
        variance, statistics = device.from_host(np.ones(20, np.float32)), array(device, 2, 20)
        of_rows = device.from_host(np.ones((rows, 2), np.float32))
        self.arguments: tuple[Any, ...] = {
            "place": (images, 1, 1, array(device, _IMAGES, 14, 14, 20)),
            "add": (x, upstream, out),
            "batch_norm": (x, scale, shift, 0.99, 1e-3, mean, variance, statistics, out),
            "batch_norm_gradient": (x, statistics, scale, upstream, gradient, shift, out),
            "normalize": (x, mean, variance, scale, shift, 1e-3, out),
            "layer_norm": (x, scale, shift, 1e-3, of_rows, out),
            "layer_norm_gradient": (x, of_rows, scale, upstream, out),
            "layer_norm_scale_gradient": (x, of_rows, upstream, gradient),
        }[operation]
        self.time_operation(device.name, operation)

    def time_operation(self, backend: str, operation: str) -> None:
        self.operation(*self.arguments)
        self.device.synchronize()

    time_operation.pretty_name = "normalisation and copies: 32 x 12 x 12 x 20"


class Augmentation(Suite):
    """Random transformations of 100 images of 28 x 28, with a Gaussian of 25 taps."""

    params = (BACKENDS, ("draw_transforms", "draw_displacements", "resample"))
    param_names = ("backend", "operation")

    def build(self, device: Backend, operation: str) -> None:
        self.device, self.operation = device, getattr(device, operation)
        counter = device.from_host(np.array([0, 1, 0], np.int64))
        chain = device.from_host(np.array([(0, 2, 2, 0), (1, 0.2, 0, 1), (2, 0.9, 1.1, 2)], np.float64))
        transforms = device.empty((100, 6), np.float64)
        images, out, fields = (device.empty((100, 28, 28, channels), np.float32) for channels in (1, 1, 2))
        kernel = device.from_host(np.full(25, 1 / 25, np.float32))
        device.draw_transforms(chain, 28, 28, SEED, counter, transforms)
        self.arguments: tuple[Any, ...] = {
            "draw_transforms": (chain, 28, 28, SEED, counter, transforms),
            "draw_displacements": (kernel, 34.0, SEED, 3, counter, fields),
            "resample": (images, transforms, fields, out),
        }[operation]
        self.time_operation(device.name, operation)

    def time_operation(self, backend: str, operation: str) -> None:
        self.operation(*self.arguments)
        self.device.synchronize()

    time_operation.pretty_name = "random transformations: 100 x 28 x 28"


class Losses(Suite):
    """Value, gradient and correct of a batch of 256 with 10 outputs."""

    params = (BACKENDS, ("softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"))
    param_names = ("backend", "loss")

    def build(self, device: Backend, loss: str) -> None:
        self.device = device
        self.operation = getattr(device, loss)
        labels = images(_ROWS)[1].astype(np.int32)
        targets = labels if loss == "softmax_cross_entropy" else np.eye(CLASSES, dtype=np.float32)[labels]
        outputs, gradient = matrix(device, _ROWS, CLASSES), matrix(device, _ROWS, CLASSES)
        rows = device.empty((2, _ROWS), np.float32)
        self.arguments = (outputs, device.from_host(targets), None, gradient, rows)
        self.time_loss(device.name, loss)

    def time_loss(self, backend: str, loss: str) -> None:
        self.operation(*self.arguments)
        self.device.synchronize()

    time_loss.pretty_name = "loss and its gradient: 256 x 10"


class Updates(NetSuite):
    """The update of all parameters of a network with its optimizer: SGD, SGD, Adam."""

    def build(self, device: Backend, net: str) -> None:
        self.device = device
        updates = _updates(device, parameter_count(net))
        self.operation, self.arguments = updates[PRESETS[net].optimizer]
        self.time_update(device.name, net)

    def time_update(self, backend: str, net: str) -> None:
        self.operation(*self.arguments)
        self.device.synchronize()

    time_update.pretty_name = "optimiser's update"


class OtherUpdates(Suite):
    """The optimizers that the networks do not use, on the parameters of the middle network."""

    params = (BACKENDS, ("momentum", "rmsprop"))
    param_names = ("backend", "optimizer")

    def build(self, device: Backend, optimizer: str) -> None:
        self.device = device
        self.operation, self.arguments = _updates(device, parameter_count("784-200-80-10"))[optimizer]
        self.time_update(device.name, optimizer)

    def time_update(self, backend: str, optimizer: str) -> None:
        self.operation(*self.arguments)
        self.device.synchronize()

    time_update.pretty_name = "other optimisers, 784-200-80-10"


class Others(Suite):
    """Dropout, the penalty of L1 and L2, and the recording of losses at the end of a step."""

    def build(self, device: Backend) -> None:
        self.device = device
        self.x, self.out = matrix(device, _ROWS, _COLUMNS), matrix(device, _ROWS, _COLUMNS)
        self.counter, self.steps_done = device.empty((3,), np.int64), device.empty((3,), np.int64)
        self.weight = matrix(device, PIXELS, _COLUMNS)
        # Penalties are added to the gradient in every call, so they must be small enough not to overflow.
        self.gradient = matrix(device, PIXELS, _COLUMNS)
        self.penalties = device.empty((1,), np.float32)
        self.rows = device.empty((2, _ROWS), np.float32)
        self.trace = device.empty((1, 3), np.float64)
        for timed in (self.time_dropout, self.time_weight_penalty, self.time_record_loss, self.time_advance):
            timed(device.name)

    def time_dropout(self, backend: str) -> None:
        self.device.dropout(self.x, 0.5, SEED, 0, self.counter, self.out)
        self.device.synchronize()

    def time_weight_penalty(self, backend: str) -> None:
        self.device.weight_penalty(self.weight, 1e-6, 1e-6, self.gradient, self.penalties, 0)
        self.device.synchronize()

    def time_record_loss(self, backend: str) -> None:
        self.device.record_loss(self.rows, None, self.counter, self.trace)
        self.device.synchronize()

    def time_advance(self, backend: str) -> None:
        self.device.advance(self.steps_done)
        self.device.synchronize()

    time_dropout.pretty_name = "dropout: 256 x 200"
    time_weight_penalty.pretty_name = "weight_penalty: 784 x 200"
    time_record_loss.pretty_name = "record_loss: 256 rows"
    time_advance.pretty_name = "advance, the smallest operation"


def _updates(device: Backend, size: int) -> dict[str, tuple[Callable[..., None], tuple[Any, ...]]]:
    """The update operations by name, with their arguments, for a number of parameters."""
    parameters, gradients = vector(device, size), vector(device, size)
    first, second = device.empty((size,), np.float32), device.empty((size,), np.float32)
    step = (device.empty((3,), np.int64), device.from_host(np.array([_LEARNING_RATE])))
    return {
        "sgd": (device.sgd_update, (parameters, gradients, None, *step, 0.0, False, 0.0)),
        "momentum": (device.sgd_update, (parameters, gradients, first, *step, 0.9, False, 0.0)),
        "adam": (device.adam_update, (parameters, gradients, first, second, *step, 0.9, 0.999, 1e-8, 0.0, False)),
        "rmsprop": (device.rmsprop_update, (parameters, gradients, second, *step, 0.9, 1e-8, 0.0)),
    }
