"""PyTorch's own convolutions and pools, on views whose channels come first, as PyTorch has them.

They pad images alike on opposite sides. Where the contract's padding differs, the images are padded first; where a
window lies in the padding by more than half, pools are those of the array API standard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from nnbackend.backends.array_api.executor import Replaced
from nnbackend.backends.array_api.images import ImageWindows
from nnbackend.backends.arrays import Array
from nnbackend.backends.contract import Call
from nnbackend.backends.image_geometry import Pair, extent

__all__ = ["TorchImages", "shared_places"]

_ops = torch.ops.aten


class TorchImages(ImageWindows):
    """Convolutions and pools."""

    _on_host: bool

    # ---- convolution -----------------------------------------------------------------------------------------

    def convolution(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        stride_y: int,
        stride_x: int,
        dilation_y: int,
        dilation_x: int,
        top: int,
        left: int,
        out: Array,
    ) -> None:
        steps, between = (stride_y, stride_x), (dilation_y, dilation_x)
        images, padding = self._even(x, out.shape[1:3], weight.shape[:2], steps, between, (top, left))
        maps = torch.nn.functional.conv2d(
            images, _filters_first(weight), bias, steps, padding, between, x.shape[3] // weight.shape[2]
        )
        out.copy_(maps.permute(0, 2, 3, 1))

    def convolution_input_gradient(
        self,
        delta: Array,
        weight: Array,
        stride_y: int,
        stride_x: int,
        dilation_y: int,
        dilation_x: int,
        top: int,
        left: int,
        out: Array,
    ) -> None:
        steps, between, positions = (stride_y, stride_x), (dilation_y, dilation_x), delta.shape[1:3]
        size = weight.shape[:2]
        if even := _is_even(out.shape[1:3], positions, size, steps, between, (top, left)):
            images, padding = _channels_first(out), (top, left)
        else:
            rows, columns = extent(positions, size, steps, between)
            images, padding = _channels_first(out.new_empty(out.shape[0], rows, columns, out.shape[3])), (0, 0)
        groups = out.shape[3] // weight.shape[2]
        # Only the shape and the layout of the images matter.
        result, _, _ = _ops.convolution_backward(
            _channels_first(delta), images, _filters_first(weight), None, steps, padding, between, False, (0, 0),
            groups, (True, False, False),
        )  # fmt: skip
        result = result.permute(0, 2, 3, 1)
        if even:
            out.copy_(result)
        else:
            self.place(result, -top, -left, out)

    def convolution_weight_gradient(
        self,
        x: Array,
        delta: Array,
        stride_y: int,
        stride_x: int,
        dilation_y: int,
        dilation_x: int,
        top: int,
        left: int,
        out: Array,
    ) -> None:
        steps, between = (stride_y, stride_x), (dilation_y, dilation_x)
        images, padding = self._even(x, delta.shape[1:3], out.shape[:2], steps, between, (top, left))
        groups = x.shape[3] // out.shape[2]
        # Only the shape and the layout matter. In float64, PyTorch fails for a single filter in another layout.
        filters = _filters_first(out)
        if out.shape[3] == 1:
            filters = filters.contiguous()
        _, result, _ = _ops.convolution_backward(
            _channels_first(delta), images, filters, None, steps, padding, between, False, (0, 0), groups,
            (False, True, False),
        )  # fmt: skip
        out.copy_(result.permute(2, 3, 1, 0))

    def _even(
        self, x: Array, positions: Sequence[int], size: Sequence[int], steps: Pair, between: Pair, before: Pair
    ) -> tuple[Array, Pair]:
        """Images with channels first, and the padding on both sides with which the windows have these positions."""
        if _is_even(x.shape[1:3], positions, size, steps, between, before):
            return _channels_first(x), before
        padded = self._padded(x, _pair(positions), _pair(size), steps, between, before, 0.0)
        return _channels_first(padded), (0, 0)

    # ---- pooling ---------------------------------------------------------------------------------------------

    def pool(
        self,
        x: Array,
        kind: str,
        pool_height: int,
        pool_width: int,
        stride_y: int,
        stride_x: int,
        top: int,
        left: int,
        out: Array,
    ) -> None:
        window = (pool_height, pool_width), (stride_y, stride_x), (top, left)
        if kind == "l2" or not _has_pool(x, out, *window):
            super().pool(x, kind, pool_height, pool_width, stride_y, stride_x, top, left, out)
        elif kind == "max":
            largest = torch.nn.functional.max_pool2d(_channels_first(x), *window)
            out.copy_(largest.permute(0, 2, 3, 1))
        else:
            mean = torch.nn.functional.avg_pool2d(_channels_first(x), *window, count_include_pad=False)
            out.copy_(mean.permute(0, 2, 3, 1))

    def max_pool(self, x: Array, size: Pair, steps: Pair, before: Pair, out: Array) -> Array:
        """Write the largest element of each window; returns their places for `max_pool_gradient`."""
        largest, places = _ops.max_pool2d_with_indices(_channels_first(x), size, steps, before)
        out.copy_(largest.permute(0, 2, 3, 1))
        if self._on_host:
            return places
        # PyTorch takes the last NaN of a window for its place, the contract the first (or an infinity before it).
        finite = torch.nan_to_num(_channels_first(x), nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
        return _ops.max_pool2d_with_indices(finite, size, steps, before)[1]

    def pool_gradient(
        self,
        x: Array,
        pooled: Array,
        upstream: Array,
        kind: str,
        pool_height: int,
        pool_width: int,
        stride_y: int,
        stride_x: int,
        top: int,
        left: int,
        out: Array,
    ) -> None:
        size, steps, before = (pool_height, pool_width), (stride_y, stride_x), (top, left)
        if kind == "l2" or not _has_pool(x, pooled, size, steps, before) or (kind == "max" and self._has_nan(pooled)):
            arguments = (pool_height, pool_width, stride_y, stride_x, top, left, out)
            super().pool_gradient(x, pooled, upstream, kind, *arguments)
        elif kind == "max":
            places = self.max_pool(x, size, steps, before, torch.empty_like(pooled))
            self.max_pool_gradient(x, upstream, size, steps, before, places, out)
        else:
            result = _ops.avg_pool2d_backward(
                _channels_first(upstream), _channels_first(x), size, steps, before, False, False, None
            )
            out.copy_(result.permute(0, 2, 3, 1))

    def max_pool_gradient(
        self, x: Array, upstream: Array, size: Pair, steps: Pair, before: Pair, places: Array, out: Array
    ) -> None:
        """The gradient of `max_pool`."""
        result = _ops.max_pool2d_with_indices_backward(
            _channels_first(upstream), _channels_first(x), size, steps, before, (1, 1), False, places
        )
        out.copy_(result.permute(0, 2, 3, 1))

    def _has_nan(self, pooled: Array) -> bool:
        """Whether there is a NaN, on a CPU, where asking does not make the program wait."""
        return self._on_host and bool(torch.isnan(pooled.sum()))


class _Places:
    """The places of the largest elements in the windows of one pool, from its forward pass for its gradient."""

    def __init__(self, backend: TorchImages) -> None:
        self._backend = backend
        self._places: Array = None

    def forward(self, x: Array, kind: str, *window_and_out: Any) -> None:
        height, width, stride_y, stride_x, top, left, out = window_and_out
        self._places = self._backend.max_pool(x, (height, width), (stride_y, stride_x), (top, left), out)

    def backward(self, x: Array, pooled: Array, upstream: Array, kind: str, *window_and_out: Any) -> None:
        height, width, stride_y, stride_x, top, left, out = window_and_out
        if self._backend._has_nan(pooled):
            self._backend.pool_gradient(x, pooled, upstream, kind, *window_and_out)
        else:
            window = (height, width), (stride_y, stride_x), (top, left)
            self._backend.max_pool_gradient(x, upstream, *window, self._places, out)


def shared_places(backend: TorchImages, calls: Sequence[Call]) -> Replaced:
    """Find the largest elements of a max pool's windows once: its gradient goes to the same places."""
    pools: dict[int, tuple[int, Call]] = {}
    replaced: dict[int, Callable[..., None]] = {}
    for place, call in enumerate(calls):
        if call.operation == "pool" and call.kind == "max":
            window = (call.pool_height, call.pool_width), (call.stride_y, call.stride_x), (call.top, call.left)
            if _has_pool(call.x, call.out, *window):
                pools[id(call.out)] = place, call
        elif call.operation == "pool_gradient" and id(call.pooled) in pools:
            first, forward = pools[id(call.pooled)]
            if forward.x is call.x:
                places = _Places(backend)
                replaced[first], replaced[place] = places.forward, places.backward
    return replaced


def _channels_first(images: Array) -> Array:
    return images.permute(0, 3, 1, 2)


def _filters_first(weight: Array) -> Array:
    return weight.permute(3, 2, 0, 1)


def _pair(numbers: Sequence[int]) -> Pair:
    first, second = numbers
    return first, second


def _is_even(
    image: Sequence[int], positions: Sequence[int], size: Sequence[int], steps: Pair, between: Pair, before: Pair
) -> bool:
    """Whether the same padding on both sides gives this number of positions."""
    window = extent((1, 1), _pair(size), steps, between)
    return all(
        (image[axis] + 2 * before[axis] - window[axis]) // steps[axis] + 1 == positions[axis] for axis in range(2)
    )


def _has_pool(x: Array, out: Array, size: Pair, steps: Pair, before: Pair) -> bool:
    """Whether PyTorch has the pool."""
    half = all(2 * before[axis] <= size[axis] for axis in range(2))
    return half and _is_even(x.shape[1:3], out.shape[1:3], size, steps, (1, 1), before)
