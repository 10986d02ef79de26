"""Which training steps two kernels compute, and why not the others."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.contract import Call
from nnbackend.backends.cupy import CupyBackend, dense_step
from nnbackend.backends.cupy.dense_program import UnsupportedStepError
from nnbackend.backends.cupy.dense_step import rows_of_block
from nnbackend.backends.cupy.dense_translation import dense_program
from tests.backends.cupy.dense_networks import BATCH, FEATURES, RELU, ROWS, data, network, watched
from tests.backends.cupy.emulator import EmulatedRuntime

pytestmark = pytest.mark.usefixtures("needs_compiler")


def summary_of(layers, backend=None, inputs=FEATURES, optimizer=None, **options):
    made = nn.Network(layers, inputs, backend=backend or watched()[0])
    if optimizer is not None:
        x = np.zeros((options.pop("rows", 4), inputs), np.float32)
        made.train_on_batch(x, np.zeros(len(x), int), loss="softmax_cross_entropy", optimizer=optimizer, **options)
        executor = made.batch_step._executor
        return f"{executor.name}: {executor.reason}"
    return made.summary().splitlines()[-1].partition("executor ")[2]


def test_the_summary_says_how():
    assert summary_of([nn.Dense(9), nn.Dense(4)]) == (
        "two kernels: dense layers of this size take two launches a step, for batches of at most 1,242,756 rows; "
        "4 rows of activations take 17 KiB of a block's memory of 48 KiB"
    )


class ChangesDelta(nn.Dense):
    """Changes the gradient of its output after it was used."""

    def backward(self, step, saved, upstream, need_input_gradient):
        x, out = saved
        step.record("dense_weight_gradient", x, upstream, step.gradient("weight"))
        step.record("bias_gradient", upstream, step.gradient("bias"))
        step.record("activation_gradient", out, "relu", 0.0, upstream, upstream)
        below = step.like(x)
        step.record("dense_input_gradient", upstream, step.parameter("weight"), below)
        return below


class Unused(nn.Dense):
    """Has a parameter whose gradient is always zero."""

    def parameters(self, input_shape):
        return (*super().parameters(input_shape), nn.Parameter("unused", (3,), self.bias_initializer))


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (ChangesDelta, "a buffer is used for several matrices"),
        (Unused, "not all trained parameters are weights and biases of dense layers"),
    ],
)
def test_layers_of_the_user(layer, why):
    """Those that the kernels would compute wrongly take the other way."""
    x, y = data()
    found = []
    for backend in (watched()[0], "numpy"):
        made = nn.Network([nn.Dense(9, **RELU), layer(5), nn.Dense(4)], FEATURES, backend=backend, dtype="float64")
        options = {"epochs": 2, "batch_size": BATCH, "loss": "softmax_cross_entropy", "verbose": False}
        made.fit(x, y, optimizer=nn.SGD(0.1, momentum=0.9, weight_decay=0.1), **options)
        found.append(np.concatenate([*map(np.ravel, made.get_weights().values())]))
        if made.backend.name == "cupy":
            assert made.summary().endswith(why)
    np.testing.assert_allclose(*found, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        ([nn.Dense(9, activation="softmax"), nn.Dense(4)], "they do not compute softmax between layers"),
        ([nn.MaxAbsNorm(), nn.Dense(4)], "they do not compute max_abs_norm"),
        ([nn.Reshape((3, 4, 1)), nn.Conv2D(2, 2), nn.Flatten(), nn.Dense(4)], "they do not compute convolution"),
        ([nn.Dense(6000), nn.Dense(4)], "a row of activations takes 52 KiB, and a block has 48 KiB of memory"),
        ([nn.Dense(512), nn.Dense(600), nn.Dense(4)], "each block would read 2.4 MiB of weights, more than 2 MiB"),
        ([nn.Dense(520)], "there are more than 512 outputs"),
    ],
)
def test_the_summary_says_why_not(layers, why):
    found = summary_of(layers)
    assert found.startswith("graph: every operation of the step can be captured in a CUDA graph; not in two kernels: ")
    assert why in found


def recorded(layers, loss="softmax_cross_entropy", **options):
    """The backend and the calls of a step."""
    backend, _ = watched()
    found = []
    x, y = data()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense_step, "dense_program", lambda calls: found.append(calls) or dense_program(calls))
        if loss != "softmax_cross_entropy" and loss.name == "sigmoid_cross_entropy":
            y = np.eye(4)[y]
        network(backend, layers).train_on_batch(x, y, loss=loss, optimizer=nn.SGD(0.1), **options)
    return backend, list(found[0])


def other(array, backend):
    """An array of the same kind elsewhere, which begins at a multiple of 256 bytes."""
    return backend.empty(tuple(array.shape), array.dtype)


def shifted(array, backend):
    return backend.view(backend.empty((array.size + 100,), array.dtype), 1, tuple(array.shape), 36)


@pytest.mark.parametrize(
    ("operation", "place", "name", "change", "why"),
    [
        ("dropout", 0, "first_row", lambda *_: 3, "other ranks"),
        ("dropout", 0, "counter", other, "several counters"),
        ("sgd_update", 0, "counter", other, "several counters"),
        ("gather", 1, "order", other, "different orders"),
        ("gather", 2, "scale", lambda *_: 0.5, "changed before the loss"),
        ("gather", 0, "source", lambda array, backend: backend.empty((9, 12), np.float32), "not matrices"),
        ("dense_forward", 0, "weight", shifted, "multiples of 16 bytes"),
        ("dense_forward", 1, "x", other, "no other one has computed"),
        ("softmax_cross_entropy", 0, "row_losses", other, "not those of the rows"),
        ("bias_gradient", 0, "delta", other, "without the weight"),
        ("record_loss", 0, "penalties", lambda _, backend: backend.empty((1,), np.float64), "not that of a layer"),
        ("dense_weight_gradient", 0, "out", other, "without the weight"),
    ],
)
def test_calls_that_are_connected_in_another_way(operation, place, name, change, why):
    backend, calls = recorded("dropout", sample_weight=np.ones(ROWS))
    dense_program(calls)
    at = [number for number, call in enumerate(calls) if call.operation == operation][place]
    given = calls[at].arguments
    calls[at] = Call(operation, {**given, name: change(given.get(name), backend)})
    with pytest.raises(UnsupportedStepError, match=why):
        dense_program(calls)


def first_elements(array, backend):
    return backend.view(array, 0, (16,))


#: Of the losses that scikit-learn shows: classes without and with weights, and independent outputs.
SHOWN = {"rows": "softmax_cross_entropy", "weighted": "softmax_cross_entropy", "outputs": "sigmoid_cross_entropy"}


@pytest.mark.parametrize(
    ("kind", "operation", "place", "name", "change", "why"),
    [
        ("parts", "sgd_update", 1, "weight_decay", lambda *_: 0.5, "differ in more than their learning rates"),
        ("parts", "sgd_update", 0, "parameters", other, "one update of all parameters"),
        ("parts", "sgd_update", 1, "gradients", other, "one update of all parameters"),
        ("limited", "clip_value", 0, "gradients", first_elements, "limit all gradients alike"),
        ("rows", "clip_value", 0, "gradients", other, "clip_value of other things"),
        ("rows", "activation_forward", -1, "z", other, "clip_value of other things"),
        ("rows", "activation_forward", -1, "out", other, "clip_value of other things"),
        ("weighted", "focal_rows", 0, "gamma", lambda *_: 1.0, "clip_value of other things"),
        ("weighted", "softmax_cross_entropy", 0, "weights", lambda _, backend: backend.empty((ROWS,), np.float64),
         "clip_value of other things"),
        ("weighted", "softmax_cross_entropy", 1, "logits", other, "clip_value of other things"),
        ("weighted", "softmax_cross_entropy", 1, "row_losses", other, "clip_value of other things"),
        ("outputs", "sigmoid_cross_entropy", 1, "logits", other, "clip_value of other things"),
        ("outputs", "sigmoid_cross_entropy", 1, "row_losses", other, "clip_value of other things"),
        ("outputs", "sigmoid_cross_entropy", 1, "targets", other, "clip_value of other things"),
        ("outputs", "activation_forward", -1, "z", other, "clip_value of other things"),
    ],
)  # fmt: skip
def test_updates_and_losses_that_are_connected_in_another_way(kind, operation, place, name, change, why):
    if kind in SHOWN:
        pytest.importorskip("sklearn")
        from nnbackend.interop.sklearn.losses import recorded_loss

        weights = {"sample_weight": np.ones(ROWS)} if kind == "weighted" else {}
        backend, calls = recorded("one layer", recorded_loss(SHOWN[kind], nn.NumpyBackend()), **weights)
    else:
        backend, calls = recorded("scaled", **({"clip_value": 1.0} if kind == "limited" else {}))
    dense_program(calls)
    at = [number for number, call in enumerate(calls) if call.operation == operation][place]
    given = calls[at].arguments
    calls[at] = Call(operation, {**given, name: change(given.get(name), backend)})
    with pytest.raises(UnsupportedStepError, match=why):
        dense_program(calls)


def test_gradients_that_are_limited_after_the_update():
    _, calls = recorded("scaled", clip_value=1.0)
    at = next(number for number, call in enumerate(calls) if call.operation == "clip_value")
    calls.insert(-2, calls.pop(at))
    with pytest.raises(UnsupportedStepError, match="another order"):
        dense_program(calls)


def test_averages_of_something_else():
    backend, calls = recorded("scaled")
    update = next(call for call in calls if call.operation == "sgd_update")
    size = max(8, int(update.parameters.size))
    arguments = {"source": backend.empty((size,), np.float64), "share": 0.5, "counter": update.counter,
                 "shares": update.learning_rates, "out": backend.empty((size,), np.float64)}  # fmt: skip
    with pytest.raises(UnsupportedStepError, match="only parameters with their average"):
        dense_program([*calls[:-2], Call("blend", arguments), *calls[-2:]])


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        ("bias_gradient", "without the weight"),
        ("dense_weight_gradient", "two layers"),
        ("softmax_cross_entropy", "one loss"),
        ("sgd_update", "one update"),
        ("record_loss", "exactly one"),
    ],
)
def test_calls_that_come_twice(operation, why):
    _, calls = recorded("dropout")
    at = next(number for number, call in enumerate(calls) if call.operation == operation)
    with pytest.raises(UnsupportedStepError, match=why):
        dense_program([*calls[: at + 1], *calls[at:]])


@pytest.mark.parametrize("options", [{"two_kernels": False}, {"precision": "tf32"}])
def test_backends_without_them(options):
    found = summary_of([nn.Dense(4)], CupyBackend(EmulatedRuntime(), **options))
    assert found.startswith("graph")


def test_large_batches_have_products(monkeypatch):
    """The bytes of the weights, for each block of four rows."""
    layers = [nn.Dense(9, **RELU), nn.Dense(4)]
    # 12 x 12 and 9 x 4 weights forward, including padding, and 9 x 4 backward.
    weights = 4 * (12 * 12 + 9 * 4 + 9 * 4)
    monkeypatch.setattr(dense_step, "MOST_BYTES_READ", 2 * weights)
    assert summary_of(layers, optimizer=nn.SGD(0.1), rows=8).startswith("two kernels")
    found = summary_of(layers, optimizer=nn.SGD(0.1), rows=9)
    assert found.endswith("the batch has more than 8 rows, the most for weights of this size")


@pytest.mark.parametrize(("hidden", "rows", "expected"), [((200, 80), 256, 4), ((200, 80), 252, 2), ((40,), 126, 1)])
def test_rows_of_a_block(hidden, rows, expected):
    """Four or two if there are enough blocks, of one network or of several."""
    layers = [*(nn.Dense(units, **RELU) for units in hidden), nn.Dense(10)]
    made = nn.Network(layers, 784, backend=watched()[0])
    found = []
    original = dense_step.dense_program
    x, y = np.zeros((rows, 784), np.float32), np.zeros(rows, int)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense_step, "dense_program", lambda calls: found.append(original(calls)) or found[-1])
        made.train_on_batch(x, y, loss="softmax_cross_entropy", optimizer=nn.SGD(0.1))
    assert rows_of_block(found[0]) == expected
    assert rows_of_block(found[0], 32) == 4
