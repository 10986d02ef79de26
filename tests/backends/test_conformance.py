"""Every operation of the contract, on every backend, against float64 NumPy."""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.contract import OPERATIONS, Backend
from nnbackend.backends.image_operations import ImageOperations, implements
from nnbackend.backends.numpy import NumpyBackend
from nnbackend.errors import InvalidInputError
from nnbackend.testing import CASES, Lab, check_backend
from nnbackend.testing.conformance import SHAPES, Shape

DTYPES = ("float32", "float64")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_operations_follow_the_contract(backend, case, dtype):
    # A fiber for every CUDA thread is slow, and the largest shape adds no other path through a kernel.
    for shape in SHAPES[:4] if backend.name == "cupy" else SHAPES:
        CASES[case](Lab(backend, dtype, shape))


def test_every_operation_has_a_case():
    source = "".join(map(inspect.getsource, {inspect.getmodule(case) for case in CASES.values()}))
    missing = [name for name in OPERATIONS if f'"{name}"' not in source and f".{name}(" not in source]
    assert not missing


def test_signatures_are_the_contract_s(backend):
    for name in OPERATIONS:
        wanted = list(inspect.signature(getattr(Backend, name)).parameters)[1:]
        assert list(inspect.signature(getattr(backend, name)).parameters) == wanted, name


def test_only_image_operations_may_be_missing():
    """All of the package's own backends have them; see also `test_an_operation_is_complete`."""

    class Dense(NumpyBackend):
        name = "dense"
        convolution = ImageOperations.convolution
        layer_norm = ImageOperations.layer_norm

    assert check_backend(Dense(), shapes=SHAPES[:2]) == ["convolution", "layer_norm"]
    for operation in OPERATIONS:
        assert implements(NumpyBackend(), OPERATIONS[operation])
    x = np.zeros((2, 6, 6, 1), np.float32)
    net = nn.Network([nn.Conv2D(2, 3), nn.Flatten(), nn.Dense(2)], (6, 6, 1), backend=Dense())
    with pytest.raises(
        InvalidInputError, match=r"backend 'dense' has no operation 'convolution', .* use backend='numpy'"
    ):
        net.predict(x)


class TestTheSuiteItself:
    """A suite that cannot fail proves nothing, so each of these backends has one error."""

    SHAPE = (Shape(7, 17, 10),)

    def broken(self, **methods) -> Backend:
        return type("Broken", (NumpyBackend,), {"name": "broken", **methods})()

    def assert_caught(self, backend: Backend, *cases: str) -> None:
        with pytest.raises(AssertionError) as error:
            check_backend(backend, shapes=self.SHAPE)
        for case in cases:
            assert case in str(error.value)

    def test_wrong_values(self):
        def bias_gradient(self, delta, out):
            out[...] = delta[1:].sum(axis=0)

        self.assert_caught(self.broken(bias_gradient=bias_gradient), "dense_gradients")

    def test_relu_that_loses_nan(self):
        def activation_forward(self, z, activation, alpha, out):
            if activation == "relu":
                out[...] = np.fmax(z, 0)
            else:
                NumpyBackend.activation_forward(self, z, activation, alpha, out)

        self.assert_caught(self.broken(activation_forward=activation_forward), "activations_pass_nan_on")

    def test_another_mask(self):
        def dropout(self, x, rate, seed, stream, counter, out, first_row=0):
            NumpyBackend.dropout(self, x, rate, seed + 1, stream, counter, out, first_row)

        self.assert_caught(self.broken(dropout=dropout), "dropout_masks")

    def test_shared_memory(self):
        def from_host(self, array):
            return array

        self.assert_caught(self.broken(from_host=from_host), "transfers")

    def test_unstable_softmax(self):
        def softmax_cross_entropy(self, logits, targets, weights, gradient, rows):
            with np.errstate(all="ignore"):
                p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
                index = np.arange(len(p))
                t = np.eye(p.shape[1])[targets] if targets.ndim == 1 else targets
                rows[0] = -(t * np.log(p)).sum(axis=1)
                rows[1] = p.argmax(axis=1) == t.argmax(axis=1)
                gradient[...] = (p - t) / len(index)

        self.assert_caught(self.broken(softmax_cross_entropy=softmax_cross_entropy), "losses_of_huge_logits_are_finite")

    def test_a_row_multiplied_by_a_reciprocal(self):
        def max_abs_norm(self, x, out):
            with np.errstate(all="ignore"):
                out[...] = x * (1 / np.abs(x).max(axis=1, keepdims=True))

        self.assert_caught(self.broken(max_abs_norm=max_abs_norm), "max_abs_norms_of_tiny_and_huge_rows")

    def test_subnormal_numbers_may_count_as_zeros_in_float32_only(self):
        def flushed(array):
            return np.where(np.abs(array) < np.finfo(array.dtype).smallest_normal, 0, array)

        def max_abs_norm(self, x, out):
            NumpyBackend.max_abs_norm(self, flushed(x), out)

        def max_abs_norm_gradient(self, x, upstream, out):
            NumpyBackend.max_abs_norm_gradient(self, flushed(x), flushed(upstream), out)

        backend = self.broken(max_abs_norm=max_abs_norm, max_abs_norm_gradient=max_abs_norm_gradient)
        check_backend(backend, dtypes=["float32"], shapes=self.SHAPE)
        self.assert_caught(backend, "max_abs_norms_of_tiny_and_huge_rows [float64")

    def test_the_last_of_equals(self):
        def max_abs_norm_gradient(self, x, upstream, out):
            results = np.empty_like(out)
            NumpyBackend.max_abs_norm_gradient(self, x[:, ::-1], upstream[:, ::-1], results)
            out[...] = results[:, ::-1]

        self.assert_caught(self.broken(max_abs_norm_gradient=max_abs_norm_gradient), "max_abs_norms")

    def test_a_flipped_kernel(self):
        def convolution(self, x, weight, bias, *geometry):
            NumpyBackend.convolution(self, x, weight[::-1, ::-1], bias, *geometry)

        self.assert_caught(self.broken(convolution=convolution), "a_convolution_computed_by_hand")

    def test_the_last_of_equals_in_a_window(self):
        def pool_gradient(self, x, pooled, upstream, kind, *window_and_out):
            *window, out = window_and_out
            NumpyBackend.pool_gradient(self, x, pooled, upstream, kind, *window, out)
            if kind == "max" and window == [2, 2, 2, 2, 0, 0]:
                flipped = np.empty_like(out)
                NumpyBackend.pool_gradient(
                    self, x[:, ::-1, ::-1], pooled[:, ::-1, ::-1], upstream[:, ::-1, ::-1], kind, *window, flipped
                )
                out[...] = flipped[:, ::-1, ::-1]

        self.assert_caught(
            self.broken(pool_gradient=pool_gradient), "the_first_of_equals_gets_the_gradient_of_a_max_pool"
        )

    def test_a_mean_with_the_padding(self):
        def pool(self, x, kind, height, width, *rest):
            NumpyBackend.pool(self, x, kind, height, width, *rest)
            if kind == "average":
                shares = np.empty_like(rest[-1])
                NumpyBackend.pool(self, np.ones_like(x), "l2", height, width, *rest[:-1], shares)
                rest[-1][...] *= shares**2 / (height * width)

        self.assert_caught(self.broken(pool=pool), "pools_of_every_geometry")

    def test_an_unbiased_variance(self):
        def batch_norm(self, x, scale, shift, momentum, epsilon, mean, variance, *rest):
            before = variance.copy()
            NumpyBackend.batch_norm(self, x, scale, shift, momentum, epsilon, mean, variance, *rest)
            variance += (variance - momentum * before) / max(len(x) - 1, 1)

        self.assert_caught(self.broken(batch_norm=batch_norm), "batch_norms", "batch_norms_that_forget")

    def test_padding_of_a_kernel_that_is_written(self):
        def convolution_weight_gradient(self, x, delta, *geometry_and_out):
            NumpyBackend.convolution_weight_gradient(self, x, delta, *geometry_and_out)
            out = geometry_and_out[-1]
            if out.base is not None:
                out.base.reshape(*out.shape[:3], -1)[..., out.shape[3] :] = 1

        backend = self.broken(convolution_weight_gradient=convolution_weight_gradient, row_multiple=8)
        self.assert_caught(backend, "convolution_weight_gradient, out: its padding was written")

    def test_written_padding(self):
        def max_abs_norm(self, x, out):
            NumpyBackend.max_abs_norm(self, x, out)
            if out.base is not None:
                out.base.reshape(len(out), -1)[:, out.shape[1] :] = 1

        backend = self.broken(max_abs_norm=max_abs_norm, row_multiple=8)
        self.assert_caught(backend, "max_abs_norm, out: its padding was written")

    def test_other_arguments(self):
        def advance(self, count):
            count += 1

        self.assert_caught(self.broken(advance=advance), "advance: takes ['count']")

    def test_random_results(self):
        calls = itertools.count()

        def bias_gradient(self, delta, out):
            # Random factors could be equal, and then this test would fail.
            out[...] = delta.sum(axis=0) * (1 + 1e-14 * (next(calls) % 2))

        self.assert_caught(self.broken(bias_gradient=bias_gradient), "repeats_are_bit_identical")
