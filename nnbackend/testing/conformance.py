"""The acceptance suite of a backend: every operation of the contract against float64 NumPy."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import numpy as np

from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.backends.contract import OPERATIONS, Backend
from nnbackend.backends.image_operations import implements
from nnbackend.errors import MissingOperationError
from nnbackend.testing import augmentation_cases, image_cases, loss_cases, normalization_cases, table_cases  # noqa: F401, they add their cases
from nnbackend.testing.lab import CASES, Lab, Shape, case

__all__ = ["CASES", "SHAPES", "Lab", "Shape", "check_backend"]

#: One row, one column, odd sizes, and sizes larger than a tile, a block and a warp.
SHAPES = (Shape(1, 1, 1), Shape(2, 3, 2), Shape(7, 17, 10), Shape(33, 65, 40), Shape(100, 130, 257))


def check_backend(
    backend: Backend, dtypes: Sequence[str] = ("float32", "float64"), shapes: Sequence[Shape] = SHAPES
) -> list[str]:
    """Check that a backend fulfils the contract.

    A backend may lack the operations on images, and normalisation; cases that need a missing one are skipped.

    Parameters
    ----------
    backend : Backend
    dtypes : sequence of str
    shapes : sequence of Shape

    Returns
    -------
    list of str
        The operations that the backend lacks.

    Raises
    ------
    AssertionError
        The message lists every failed case with the first value that differs.
    """
    failures = _signature_failures(backend)
    for dtype in dtypes:
        for shape in shapes:
            for name, check in CASES.items():
                try:
                    check(Lab(backend, dtype, shape))
                except MissingOperationError:
                    continue
                except Exception as error:
                    # Report every kind of failure of the backend under test.
                    failures.append(f"{name} [{dtype}, {shape}]: {type(error).__name__}: {error}")
    lacking = [name for name, declared in OPERATIONS.items() if not implements(backend, declared)]
    if failures:
        note = f" (it lacks {', '.join(lacking)}, whose cases were skipped)" if lacking else ""
        raise AssertionError(f"backend {backend.name!r} fails {len(failures)} checks{note}:\n" + "\n".join(failures))
    return lacking


def _signature_failures(backend: Backend) -> list[str]:
    """Every operation must take the contract's arguments in the contract's order."""
    failures: list[str] = []
    for name in OPERATIONS:
        wanted = list(OPERATIONS[name].arguments)
        given = list(inspect.signature(getattr(backend, name)).parameters)
        if given != wanted:
            failures.append(f"{name}: takes {given}, the contract says {wanted}")
    return failures


# ---- memory ------------------------------------------------------------------------------------------------


@case
def empty_is_zero(lab: Lab) -> None:
    for shape in ((lab.shape.rows,), (lab.shape.rows, lab.shape.inputs)):
        result = lab.backend.to_host(lab.backend.empty(shape, lab.dtype))
        lab.compare("empty", result, np.zeros(shape))


@case
def transfers(lab: Lab) -> None:
    backend, host = lab.backend, lab.normal(lab.shape.rows, lab.shape.inputs)
    original = host.copy()
    device = backend.from_host(host)
    host += 1
    lab.compare("from_host shares no memory", backend.to_host(device), original)
    read = backend.to_host(device)
    read += 1
    lab.compare("to_host shares no memory", backend.to_host(device), original)
    assert read.flags.c_contiguous, "to_host must return a contiguous array"
    backend.write(host, device)
    lab.compare("write", backend.to_host(device), host)
    other = backend.empty(host.shape, lab.dtype)
    backend.copy(device, other)
    lab.compare("copy", backend.to_host(other), host)
    backend.write(original, device)
    lab.compare("copy shares no memory", backend.to_host(other), host)
    backend.synchronize()


@case
def views_of_a_flat_buffer(lab: Lab) -> None:
    rows, columns = lab.shape.rows, lab.shape.outputs
    stride, offset = columns + 3, 5
    flat = np.zeros(offset + rows * stride + columns, lab.dtype)
    buffer = lab.backend.from_host(flat)
    matrix, vector = lab.normal(rows, columns), lab.normal(columns)
    lab.backend.write(matrix, lab.backend.view(buffer, offset, (rows, columns), stride))
    lab.backend.write(vector, lab.backend.view(buffer, offset + rows * stride, (columns,)))
    flat[offset : offset + rows * stride].reshape(rows, stride)[:, :columns] = matrix
    flat[offset + rows * stride :] = vector
    lab.compare("the buffer behind two views", lab.backend.to_host(buffer), flat)
    lab.compare("a view", lab.backend.to_host(lab.backend.view(buffer, offset, (rows, columns), stride)), matrix)


# ---- batch -------------------------------------------------------------------------------------------------


@case
def gathers(lab: Lab) -> None:
    rows, features = lab.shape.rows, lab.shape.inputs
    count = 2 * rows + 1
    order = lab.order(count)
    images = lab.integers(256, count, features, dtype=np.uint8)
    for step, batch_size, length in ((0, rows, rows), (1, rows, rows), (2, rows, 1)):
        counter = np.array([step, 100, 50], np.int64)
        lab.run("gather", images, order, counter, batch_size, 1 / 255, lab.blank(length, features))
        lab.run("gather", images, order, counter, batch_size, 1.0, lab.blank(length, features))
        lab.run("gather", lab.normal(count, features), order, counter, batch_size, 1.0, lab.blank(length, features))
        lab.run("gather", lab.normal(count, features), order, counter, batch_size, 0.5, lab.blank(length, features))
        lab.run("gather", lab.normal(count), order, counter, batch_size, 1.0, lab.blank(length))
        labels = np.zeros(length, np.int32)
        lab.run("gather", lab.integers(1000, count), order, counter, batch_size, 1.0, labels)


@case
def counters_advance(lab: Lab) -> None:
    lab.run("advance", np.array([0, 41, 2**40], np.int64), repeats=3)


# ---- forward -----------------------------------------------------------------------------------------------


@case
def dense_layers(lab: Lab) -> None:
    n, p, q = lab.shape.rows, lab.shape.inputs, lab.shape.outputs
    for name, kind in ACTIVATIONS.items():
        for bias in (lab.normal(q), None):
            z = lab.blank(n, q) if kind.saves == "preactivation" else None
            x, weight = lab.normal(n, p), lab.normal(p, q, scale=p**-0.5)
            lab.run("dense_forward", x, weight, bias, name, kind.alpha, z, lab.blank(n, q))


@case
def activations(lab: Lab) -> None:
    n, q = lab.shape.rows, lab.shape.outputs
    for name, kind in ACTIVATIONS.items():
        for alpha in {kind.alpha, 0.3 if kind.alpha else 0.0}:
            z = lab.normal(n, q, scale=3)
            lab.run("activation_forward", z, name, alpha, lab.blank(n, q))
            lab.run("activation_forward", z, name, alpha, z)


@case
def activations_of_large_inputs(lab: Lab) -> None:
    for name, kind in ACTIVATIONS.items():
        # The exponential of a large number is infinite.
        largest = [80] if name == "exponential" else [100, 1e4]
        z = np.array([[-1e4, -100, -0.0, 0.0, *largest]], lab.dtype)
        results = lab.run("activation_forward", z, name, kind.alpha, lab.blank(*z.shape))
        assert np.isfinite(results[-1]).all(), f"{name} of large inputs is not finite: {results[-1]}"


@case
def activations_pass_nan_on(lab: Lab) -> None:
    for name, kind in ACTIVATIONS.items():
        z = lab.normal(2, 3)
        z[1, 1] = np.nan
        result = lab.run("activation_forward", z, name, kind.alpha, lab.blank(2, 3))[-1]
        assert np.isnan(result[1, 1]), f"{name} lost a NaN"


@case
def activation_gradients(lab: Lab) -> None:
    n, q = lab.shape.rows, lab.shape.outputs
    for name, kind in ACTIVATIONS.items():
        saved = lab.normal(n, q, scale=2)
        if kind.saves == "output":
            # The gradient is computed from the output, so `saved` must be an output.
            output = lab.device(saved)
            lab.backend.activation_forward(output, name, kind.alpha, output)
            saved = lab.backend.to_host(output)
        upstream = lab.normal(n, q)
        scale = float(np.abs(upstream).max())
        lab.run("activation_gradient", saved, name, kind.alpha, upstream, lab.blank(n, q), scale=scale)
        lab.run("activation_gradient", saved, name, kind.alpha, upstream, upstream, scale=scale)


@case
def dropout_masks(lab: Lab) -> None:
    n, q = lab.shape.rows, lab.shape.outputs
    for rate, seed, stream, step in ((0.5, 0, 0, 0), (0.2, 2**63 - 1, 3, 1), (0.9, 2**40 + 5, 2**32 - 1, 2**33 + 1)):
        x = lab.uniform(n, q, low=1, high=2)
        counter = np.array([1, step, 2], np.int64)
        lab.run("dropout", x, rate, seed, stream, counter, lab.blank(n, q))
        lab.run("dropout", x, rate, seed, stream, counter, x)
        # With a row offset, as on a rank that does not have the first rows of the batch.
        lab.run("dropout", x, rate, seed, stream, counter, lab.blank(n, q), 3)


# ---- loss --------------------------------------------------------------------------------------------------


def _try_loss(lab: Lab, name: str, outputs: np.ndarray, targets: np.ndarray) -> None:
    n, q = outputs.shape
    for weights in (None, lab.uniform(n, low=0.1, high=2)):
        lab.run(name, outputs, targets, weights, lab.blank(n, q), lab.blank(2, n))
        aliased = outputs.copy()
        lab.run(name, aliased, targets, weights, aliased, lab.blank(2, n))


@case
def softmax_cross_entropy_of_labels(lab: Lab) -> None:
    n, q = lab.shape.rows, lab.shape.outputs
    _try_loss(lab, "softmax_cross_entropy", lab.normal(n, q, scale=3), lab.integers(q, n))


@case
def softmax_cross_entropy_of_probabilities(lab: Lab) -> None:
    n, q = lab.shape.rows, lab.shape.outputs
    targets = lab.uniform(n, q, low=0.01)
    targets /= targets.sum(axis=1, keepdims=True)
    _try_loss(lab, "softmax_cross_entropy", lab.normal(n, q, scale=3), targets)


@case
def sigmoid_cross_entropies(lab: Lab) -> None:
    n, q = lab.shape.rows, lab.shape.outputs
    _try_loss(lab, "sigmoid_cross_entropy", lab.normal(n, q, scale=3), lab.uniform(n, q))


@case
def mean_squared_errors(lab: Lab) -> None:
    n, q = lab.shape.rows, lab.shape.outputs
    _try_loss(lab, "mean_squared_error", lab.normal(n, q), lab.normal(n, q))


@case
def losses_of_huge_logits_are_finite(lab: Lab) -> None:
    logits = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 3e3], [88.0, 89.0, 90.0]], lab.dtype)
    labels = np.array([1, 1, 0], np.int32)
    one_hot = np.eye(3, dtype=lab.dtype)[labels]
    for name, targets in (
        ("softmax_cross_entropy", labels),
        ("softmax_cross_entropy", one_hot),
        ("sigmoid_cross_entropy", one_hot),
    ):
        *_, gradient, rows = lab.run(name, logits, targets, None, lab.blank(3, 3), lab.blank(2, 3))
        assert np.isfinite(gradient).all(), f"{name}: the gradient of huge logits is not finite"
        assert np.isfinite(rows).all(), f"{name}: the loss of huge logits is not finite"


@case
def losses_pass_nan_on(lab: Lab) -> None:
    outputs = lab.normal(3, 4)
    outputs[1, 2] = np.nan
    one_hot = np.eye(4, dtype=lab.dtype)[[0, 2, 3]]
    labels = np.array([0, 2, 3], np.int32)
    for name, targets in (
        ("softmax_cross_entropy", labels),
        ("softmax_cross_entropy", one_hot),
        ("sigmoid_cross_entropy", one_hot),
        ("mean_squared_error", one_hot),
    ):
        gradient, rows = lab.backend.empty((3, 4), lab.dtype), lab.backend.empty((2, 3), lab.dtype)
        put = lab.backend.from_host
        getattr(lab.backend, name)(put(outputs), put(targets), None, gradient, rows)
        losses = lab.backend.to_host(rows)[0]
        assert np.isnan(losses[1]), f"{name}: a NaN output is lost in the loss"
        assert np.isfinite(losses[[0, 2]]).all(), f"{name}: a NaN output affects other rows"


@case
def the_first_of_equal_outputs_is_the_prediction(lab: Lab) -> None:
    outputs = np.array([[1, 1, 0], [0, 2, 2], [3, 3, 3]], lab.dtype)
    labels = np.array([0, 2, 0], np.int32)
    expected = np.array([1.0, 0.0, 1.0])
    one_hot = np.eye(3, dtype=lab.dtype)[labels]
    for name, targets in (
        ("softmax_cross_entropy", labels),
        ("softmax_cross_entropy", one_hot),
        ("mean_squared_error", one_hot),
    ):
        rows = lab.run(name, outputs, targets, None, lab.blank(3, 3), lab.blank(2, 3))[-1]
        lab.compare(f"correct of {name}", rows[1], expected)


@case
def losses_are_recorded(lab: Lab) -> None:
    n = lab.shape.rows
    trace = np.zeros((3, 3))
    counter = np.array([1, 7, 7], np.int64)
    lab.run("record_loss", lab.normal(2, n), None, counter, trace)
    lab.run("record_loss", lab.normal(2, n), lab.uniform(3), counter, trace)


# ---- backward ----------------------------------------------------------------------------------------------


@case
def dense_gradients(lab: Lab) -> None:
    n, p, q = lab.shape.rows, lab.shape.inputs, lab.shape.outputs
    delta = lab.normal(n, q)
    lab.run("dense_input_gradient", delta, lab.normal(p, q), lab.blank(n, p))
    lab.run("dense_weight_gradient", lab.normal(n, p), delta, lab.blank(p, q))
    lab.run("bias_gradient", delta, lab.blank(q))


@case
def weight_penalties(lab: Lab) -> None:
    p, q = lab.shape.inputs, lab.shape.outputs
    for l1, l2 in ((0.0, 0.1), (0.2, 0.0), (0.3, 0.4)):
        weight = lab.normal(p, q)
        weight[0, 0] = 0
        lab.run("weight_penalty", weight, l1, l2, lab.normal(p, q), lab.blank(3), 1)
        lab.run("weight_penalty", lab.normal(q), l1, l2, lab.normal(q), lab.blank(3), 1)


# ---- update ------------------------------------------------------------------------------------------------


def _update_arguments(lab: Lab) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    size = lab.shape.inputs * lab.shape.outputs
    counter = np.array([1, 9, 4], np.int64)
    return lab.normal(size), lab.normal(size), counter, np.array([7.0, 0.05, 9.0])


@case
def sgd_updates(lab: Lab) -> None:
    parameters, gradients, counter, rates = _update_arguments(lab)
    for momentum, nesterov, decay in ((0.0, False, 0.0), (0.0, False, 0.1), (0.9, False, 0.0), (0.8, True, 0.1)):
        velocity = lab.normal(parameters.size) if momentum else None
        lab.run("sgd_update", parameters, gradients, velocity, counter, rates, momentum, nesterov, decay, repeats=2)
    for nesterov in (False, True):
        scheduled = (0.9, nesterov, 0.1, np.array([0.1, 0.7, 0.2]))
        lab.run("sgd_update", parameters, gradients, lab.normal(parameters.size), counter, rates, *scheduled, repeats=2)


@case
def adam_updates(lab: Lab) -> None:
    parameters, gradients, counter, rates = _update_arguments(lab)
    first, second = lab.normal(parameters.size), lab.uniform(parameters.size)
    for decay, decoupled in ((0.0, False), (0.1, False), (0.1, True)):
        rule = (0.9, 0.999, 1e-8, decay, decoupled)
        lab.run("adam_update", parameters, gradients, first, second, counter, rates, *rule, repeats=2)
    for decoupled in (False, True):
        scheduled = (0.9, 0.999, 1e-8, 0.1, decoupled, np.array([0.1, 0.7, 0.2]))
        lab.run("adam_update", parameters, gradients, first, second, counter, rates, *scheduled, repeats=2)
    # The first step, from zero moments.
    zero, start = np.zeros_like(parameters), np.array([0, 0, 0], np.int64)
    lab.run("adam_update", parameters, gradients, zero, zero.copy(), start, rates, 0.9, 0.999, 1e-8, 0.0, False)


@case
def rmsprop_updates(lab: Lab) -> None:
    parameters, gradients, counter, rates = _update_arguments(lab)
    square = lab.uniform(parameters.size)
    for decay in (0.0, 0.1):
        lab.run("rmsprop_update", parameters, gradients, square, counter, rates, 0.9, 1e-8, decay, repeats=2)


# ---- determinism -------------------------------------------------------------------------------------------


@case
def repeats_are_bit_identical(lab: Lab) -> None:
    n, p, q = lab.shape.rows, lab.shape.inputs, lab.shape.outputs
    x, weight, bias, labels = lab.normal(n, p), lab.normal(p, q), lab.normal(q), lab.integers(q, n)

    def once() -> list[bytes]:
        backend, put = lab.backend, lab.device
        sizes = (n, q), (n, q), (2, n), (p, q), (q,), (n, p)
        results = [backend.empty(size, lab.dtype) for size in sizes]
        out, gradient, rows, weight_gradient, bias_gradient, x_gradient = results
        backend.dense_forward(put(x), put(weight), put(bias), "sigmoid", 0.0, None, out)
        backend.softmax_cross_entropy(out, put(labels), None, gradient, rows)
        backend.dense_weight_gradient(put(x), gradient, weight_gradient)
        backend.bias_gradient(gradient, bias_gradient)
        backend.max_abs_norm_gradient(put(x), put(x), x_gradient)
        return [backend.to_host(array).tobytes() for array in results]

    assert once() == once(), "repeating the same calls with the same numbers gave different bits"
