"""Buffers of any shape, scratch memory, and views with other shapes."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.arrays import dtype_name
from nnbackend.backends.numpy import NumpyBackend
from nnbackend.errors import InvalidInputError
from nnbackend.step.recorder import Recorder, Workspace
from nnbackend.testing import check_gradients
from tests.conftest import PaddedNumpyBackend
from tests.helpers import any_device, images, same_weights
from tests.layers.custom import assign

X, Y = images(features=30)


def recorder(backend, rows=6, workspace=None):
    net = nn.Network([nn.Dense(3)], 5, backend=backend)
    return Recorder(net.model, workspace or Workspace(net.backend, 6), rows, None, training=True)


class Record(nn.Layer):
    """Calls a function with the step when it is recorded."""

    def __init__(self, function):
        self.function = function

    def forward(self, step, x):
        self.function(step, x)
        return x, None

    def backward(self, step, saved, upstream, need_input_gradient):
        return upstream

    def output_shape(self, input_shape):
        return input_shape


def recorded(backend, function, shape=(5, 3, 2)):
    net = nn.Network([Record(function), nn.Flatten(), nn.Dense(4)], shape, backend=backend)
    net.predict(np.zeros((2, *shape), np.float32))


def test_a_layer_sees_samples_of_their_shape(backend):
    def look(step, x):
        seen.append((step.input_shape, tuple(x.shape), tuple(step.matrix(x).shape), tuple(step.channels(x).shape)))

    seen = []
    recorded(backend, look)
    assert seen == [((5, 3, 2), (2, 5, 3, 2), (2, 30), (30, 2))]
    seen.clear()
    recorded(backend, look, (7,))
    assert seen == [((7,), (2, 7), (2, 7), (2, 7))]


def test_buffers_have_the_asked_shape_and_dtype(backend):
    def look(step, x):
        for shape, dtype in [((3,), None), ((2, 5), None), ((4, 3, 2), "int32"), ((), "float64")]:
            buffer = step.buffer(*shape, dtype=dtype)
            assert tuple(buffer.shape) == (2, *shape)
            assert dtype_name(buffer) == (dtype or "float32")
        assert tuple(step.like(x).shape) == tuple(x.shape)
        assert tuple(step.scratch((7, 2)).shape) == (7, 2)

    recorded(backend, look)


def test_only_flat_buffers_are_padded():
    each = recorder(PaddedNumpyBackend())
    assert each.buffer(5).strides == (64, 4)
    assert each.buffer(2, 5).flags.c_contiguous
    assert each.buffer(3, 3, 5).flags.c_contiguous
    padded, packed = each.buffer(5), each.matrix(each.buffer(1, 5))
    assert each.like(padded).strides == (64, 4)
    assert each.like(packed).strides == (20, 4)


def test_a_shorter_batch_gets_the_first_rows_of_the_same_buffers():
    backend = PaddedNumpyBackend()
    workspace = Workspace(backend, 6)

    def take(rows):
        each = recorder(backend, rows, workspace)
        taken = [
            each.buffer(5),
            each.buffer(2, 3),
            each.buffer(4, dtype="int32"),
            each.buffer(),
            each.scratch((rows, 9)),
        ]
        return [*taken, each.like(taken[0]), each.like(taken[1])]

    for full, short in zip(take(6), take(4), strict=True):
        assert short.shape == (4, *full.shape[1:])
        assert full.ctypes.data == short.ctypes.data
        assert full.strides == short.strides


def test_a_view_that_would_copy_is_refused():
    each = recorder(PaddedNumpyBackend())
    with pytest.raises(InvalidInputError, match="has no view of shape"):
        each.matrix(np.zeros((6, 4, 5), np.float32)[:, :, :3])
    with pytest.raises(InvalidInputError, match="has no view of shape"):
        each.model.backend.reshape(each.buffer(5), (30,))


def test_a_padded_matrix_is_copied_into_axes():
    each = recorder(PaddedNumpyBackend())
    padded = each.buffer(6)
    image = each.reshape(padded, (2, 3))
    assert image.shape == (6, 2, 3)
    assert [call.operation for call in each.calls] == ["activation_forward"]
    assert each.reshape(image, (6,)).ctypes.data == image.ctypes.data
    assert each.reshape(image, (3, 2)).ctypes.data == image.ctypes.data
    assert len(each.calls) == 1


class ApartIfFull(nn.Layer):
    """Passes its input on; for a full batch, by way of whole numbers."""

    def forward(self, step, x):
        out = step.buffer(x.shape[1])
        if x.shape[0] == 4:
            step.call(assign, x, step.buffer(x.shape[1], dtype="int64"))
        step.call(assign, x, out)
        return out, None

    def backward(self, step, saved, upstream, need_input_gradient):
        return upstream


@pytest.mark.float64
def test_a_layer_may_ask_for_other_buffers_in_a_shorter_batch(backend):
    x, y = X[:6] / 255, Y[:6]
    nets = [
        nn.Network([*layers, nn.Dense(4)], 30, backend=backend, seed=1, dtype="float64")
        for layers in ([], [ApartIfFull()])
    ]
    for net in nets:
        net.fit(x, y, epochs=2, batch_size=4, loss="softmax_cross_entropy")
    one, other = (net.get_weights() for net in nets)
    np.testing.assert_allclose(one["layers.0.weight"], other["layers.1.weight"], rtol=1e-12)


class TestScratch:
    @pytest.mark.parametrize("seen", ["before", "after"])
    def test_views_of_it_end_with_it(self, seen):
        each = recorder(NumpyBackend())
        scratch, buffer = each.scratch((6, 2, 2)), each.buffer(4)
        view = each.matrix(scratch) if seen == "before" else None
        each.call(assign, buffer, scratch)
        with pytest.raises(InvalidInputError, match="uses a scratch buffer of an earlier call"):
            each.call(assign, each.matrix(scratch) if view is None else view, buffer)

    def test_a_layer_may_not_return_it(self):
        class Careless(nn.Layer):
            def forward(self, step, x):
                return step.scratch(tuple(x.shape)), None

            def backward(self, step, saved, upstream, need_input_gradient):
                return upstream

        net = nn.Network([Careless()], 3, backend="numpy")
        with pytest.raises(InvalidInputError, match=r"layers\.0, Careless\(\): forward must not return scratch memory"):
            net.predict(np.ones((2, 3)))

    def test_calls_one_after_the_other_share_it(self):
        each = recorder(NumpyBackend())
        one = each.scratch((3, 4))
        each.call(assign, one, one)
        other = each.scratch((12,))
        assert one.ctypes.data == other.ctypes.data

    def test_scratch_buffers_of_one_call_do_not_overlap(self):
        each = recorder(NumpyBackend())
        for _ in range(2):
            arrays = [each.scratch((5,)), each.scratch((9,)), each.scratch((2, 2)), each.scratch((9,), "float64")]
            for place, one in enumerate(arrays):
                assert not any(np.shares_memory(one, other) for other in arrays[:place])
            each.call(assign, *arrays)

    def test_a_call_without_the_scratch_buffer_releases_it_too(self):
        each = recorder(NumpyBackend())
        scratch, buffer = each.scratch((6, 5)), each.buffer(5)
        each.record("activation_forward", buffer, "relu", 0.0, buffer)
        with pytest.raises(InvalidInputError, match="uses a scratch buffer of an earlier call"):
            each.call(assign, scratch, buffer)
        with pytest.raises(InvalidInputError, match="uses a scratch buffer of an earlier call"):
            each.record("activation_forward", buffer, "relu", 0.0, scratch)

    def test_its_memory_is_allocated_once(self):
        backend = NumpyBackend()
        workspace = Workspace(backend, 6)
        addresses = set()
        for rows in (6, 4):
            each = recorder(backend, rows, workspace)
            for _ in range(3):
                scratch = each.scratch((rows, 7))
                addresses.add(scratch.ctypes.data)
                each.call(assign, scratch, scratch)
        assert len(addresses) == 1


LAYERS = {
    "activation": lambda: nn.Activation("gelu"),
    "dropout": lambda: nn.Dropout(0.3),
    "elu": lambda: nn.Activation("elu"),
}


@pytest.mark.float64
def test_a_backend_of_the_array_api_standard_has_the_views():
    """Its arrays cannot be sliced or reshaped."""
    pytest.importorskip("array_api_strict")
    from tests.plugin.nnbackend_strict import StrictBackend

    def look(step, x):
        seen.append((tuple(step.matrix(x).shape), tuple(step.channels(x).shape), tuple(step.scratch((2, 3)).shape)))

    seen = []
    recorded(StrictBackend(), look)
    assert seen == [((2, 30), (30, 2), (2, 3))]
    nets = []
    for where in (StrictBackend(), "numpy"):
        layers = [nn.Dropout(0.2), nn.Activation("elu"), nn.Flatten(), nn.Dense(5, trainable=False), nn.Dense(4)]
        net = nn.Network(layers, (5, 3, 2), backend=where, dtype="float64")
        net.fit(X.reshape(-1, 5, 3, 2), Y, epochs=1, loss="softmax_cross_entropy", verbose=False)
        nets.append(net)
    for name, value in nets[0].get_weights().items():
        np.testing.assert_allclose(value, nets[1].get_weights()[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_do_the_same_whatever_the_shape(backend, kind):
    """Images and flat rows give the same bits on one backend."""
    nets = []
    for shape in ((30,), (5, 6), (5, 3, 2)):
        net = nn.Network([LAYERS[kind](), nn.Flatten(), LAYERS[kind](), nn.Dense(4)], shape, backend=backend, seed=4)
        net.fit(X.reshape(-1, *shape), Y, epochs=2, batch_size=16, loss="softmax_cross_entropy", verbose=False)
        nets.append(net)
    assert same_weights(nets[0], nets[1])
    assert same_weights(nets[0], nets[2])
    np.testing.assert_array_equal(nets[0].predict(X), nets[2].predict(X))


def test_outputs_may_have_several_axes(backend):
    net = nn.Network([nn.Activation("tanh"), nn.Dropout(0.2)], (5, 6), backend=backend)
    x = X.astype(np.float32).reshape(-1, 5, 6) / 255
    assert net.predict(x).shape == (70, 5, 6)
    np.testing.assert_allclose(net.predict(x), np.tanh(x), rtol=1e-5)
    net = nn.Network([nn.LayerNormalization(), nn.Dropout(0.2)], (5, 6), backend=backend)
    net.fit(x, x.reshape(70, -1), epochs=1, loss="mean_squared_error", verbose=False)
    assert net.evaluate(x, x.reshape(70, -1))["loss"] > 0
    assert net.predict(x).shape == (70, 5, 6)


@pytest.mark.float64
def test_the_gradient_of_flatten_has_the_axes(backend):
    """Between layers that learn, where rows of flat gradients may be padded."""

    class Factors(nn.Layer):
        def parameters(self, input_shape):
            return (nn.Parameter("scale", (1, input_shape[-1]), nn.Normal(1.0, 0.2)),)

        def forward(self, step, x):
            out = step.buffer(*step.input_shape)
            step.call(multiply, x, step.parameter("scale"), out)
            return out, x

        def backward(self, step, saved, upstream, need_input_gradient):
            step.call(sum_of_products, saved, upstream, step.gradient("scale"))
            if need_input_gradient:
                step.call(multiply, upstream, step.parameter("scale"), upstream)
            return upstream

    layers = [Factors(), Factors(), nn.Flatten(), nn.Dense(7, activation="tanh"), nn.Dense(4)]
    net = nn.Network(layers, (3, 2), backend=backend, dtype="float64")
    check_gradients(net, X[:6, :6] / 255, Y[:6], loss="softmax_cross_entropy", samples=9)
    flat = nn.Network([nn.Dense(30), nn.MaxAbsNorm(), nn.Dense(4)], 30, backend=backend, dtype="float64")
    check_gradients(flat, X[:6] / 255, Y[:6], loss="softmax_cross_entropy", samples=9)


@any_device
def multiply(backend, x, scale, out):
    out[...] = x * scale[0]


@any_device
def sum_of_products(backend, x, upstream, out):
    out[0] = (x * upstream).reshape(-1, x.shape[-1]).sum(axis=0)


@pytest.mark.parametrize("method", ["forward", "backward"])
def test_a_layer_that_returns_another_shape_is_named(method):
    class Wrong(nn.Layer):
        def forward(self, step, x):
            return step.matrix(x) if method == "forward" else x, None

        def backward(self, step, saved, upstream, need_input_gradient):
            return step.matrix(upstream)

    class Learns(nn.Layer):
        def parameters(self, input_shape):
            return (nn.Parameter("nothing", (1,), nn.Zeros()),)

        def forward(self, step, x):
            return x, None

        def backward(self, step, saved, upstream, need_input_gradient):
            return upstream

    net = nn.Network([Learns(), Wrong(), nn.Flatten(), nn.Dense(4)], (5, 6), backend="numpy")
    message = rf"layers\.1, Wrong\(\): {method} must return an array of shape \(32, 5, 6\).*received \(32, 30\)"
    with pytest.raises(InvalidInputError, match=message):
        net.fit(X.reshape(-1, 5, 6), Y, epochs=1, loss="softmax_cross_entropy")


@pytest.mark.parametrize("returned", ["an array", None, (1, 2, 3)])
def test_a_forward_pass_that_does_not_return_two_things_is_named(returned):
    class Short(nn.Layer):
        def forward(self, step, x):
            return x if returned == "an array" else returned

        def backward(self, step, saved, upstream, need_input_gradient):
            return upstream

    net = nn.Network([nn.Dense(4), Short()], 4, backend="numpy")
    with pytest.raises(InvalidInputError, match=r"layers\.1, Short\(\): forward must return two things"):
        net.predict(np.ones((2, 4)))


def test_a_shape_may_be_a_tuple():
    def look(step, x):
        assert tuple(step.buffer((4,)).shape) == (2, 4)
        assert tuple(step.buffer((3, 5)).shape) == (2, 3, 5)
        assert tuple(step.scratch([3, 5]).shape) == (3, 5)
        assert tuple(step.scratch(7).shape) == (7,)

    recorded("numpy", look)


@pytest.mark.parametrize("shape", [(2.5,), (-1,), ("a",), (None,), ((2, 3), 4), (True,)])
def test_a_shape_that_is_none_is_named(shape):
    def buffer(step, x):
        step.buffer(*shape)

    def scratch(step, x):
        step.scratch(shape)

    for name, look in (("buffer", buffer), ("scratch", scratch)):
        with pytest.raises(InvalidInputError, match=rf"an axis of step.{name}\(\) must be a whole number"):
            recorded("numpy", look)


def test_a_dtype_that_is_none_is_named():
    with pytest.raises(InvalidInputError, match="a buffer's dtype must be one of NumPy's, received 'floaty'"):
        recorded("numpy", lambda step, x: step.buffer(3, dtype="floaty"))
