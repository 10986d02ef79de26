"""Translates a recorded training step of dense layers to a program for two kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Array, Call
from nnbackend.backends.cupy.dense_loss import LIMITED, LOSS_OPERATIONS, step_loss
from nnbackend.backends.cupy.dense_program import (
    HEAD_INTS,
    KINDS,
    MOST_OUTPUTS,
    STAGE_INTS,
    TILE,
    DenseProgram,
    UnsupportedStepError,
    address,
)
from nnbackend.backends.cupy.dense_update import OPTIMIZERS, step_update
from nnbackend.backends.cupy.layout import stride
from nnbackend.backends.philox import keep_threshold
from nnbackend.backends.training_operations import ELEMENTWISE_LOSSES

__all__ = ["dense_program"]

_TILE_INTS = 14
#: Elements of a weight whose penalties a block of the first kernel adds up, in whole rows.
_PART = 8192
#: Parameters begin at multiples of this many elements in the flat buffer.
_ALIGNMENT = 16

# The enums of the kernels.
_ACTIVATIONS = (
    "identity", "relu", "leaky_relu", "elu", "sigmoid", "tanh", "gelu", "silu", "softplus", "exponential",
    "selu", "mish",
)  # fmt: skip
_LOSSES = ("labels", "softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error", *ELEMENTWISE_LOSSES)
#: Words before the tables of learning rates.
_WORDS, _NUMBERS = 16, 6


def dense_program(calls: Sequence[Call]) -> DenseProgram:
    """The program of a recorded step.

    Raises
    ------
    UnsupportedStepError
        The kernels cannot compute a call, or the calls are connected in an unusual way.
    """
    return _Translation(calls).program()


@dataclass
class _Trained:
    """A layer whose weight is trained: its input and delta, with the word of their addresses, the gradients, and the
    place of the penalties' factors."""

    word: int
    x: Array
    delta: Array
    weight: Array
    bias: Array | None = None
    number: int = -1


@dataclass
class _Scaled:
    """Trained factors of columns: their input and delta, with the word of their addresses, and the gradient."""

    word: int
    x: Array
    delta: Array
    gradient: Array


class _Translation:
    """Follows the calls of a step from buffer to buffer."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls
        self._record = self._only("record_loss")
        self._update = step_update(calls)
        self._dtype = np.dtype(self._update.call.parameters.dtype)
        rest = [call for call in calls if id(call) not in self._update.kinds]
        self._loss = step_loss(rest, self._record.row_losses)
        #: Calls without a stage of their own.
        self._known = {*self._update.kinds, *(id(call) for call in self._loss.calls)}
        self._arrays: list[Array] = []
        self._stages: list[tuple[int, ...]] = []
        self._words: list[int] = [0] * (_WORDS + len(self._update.tables))
        self._numbers: list[float] = [0.0] * _NUMBERS
        #: Slots by the address of the buffer that each replaces: its first column, and the number of its columns.
        self._slots: dict[int, tuple[int, int]] = {}
        self._columns = 0
        self._stored: set[int] = set()
        #: By the address of the delta.
        self._layers: dict[int, _Trained] = {}
        self._scaled: list[_Scaled] = []
        self._gathers = {address(call.out): call for call in calls if call.operation == "gather"}
        #: Elements of weights that the first kernel reads.
        self._read_weights = 0

    def program(self) -> DenseProgram:
        """Translate all calls."""
        gathers = [call for call in self._calls if call.operation == "gather"]
        if not gathers:
            raise UnsupportedStepError("the step gathers no rows")
        first = gathers[0]
        if any(each.order is not first.order for each in gathers):
            raise UnsupportedStepError("rows are gathered in different orders")
        if first.out.ndim != 2 or first.source.dtype not in (np.uint8, self._dtype):
            raise UnsupportedStepError("rows are not matrices")
        self._write(first.out)
        for call in self._calls:
            if id(call) in self._known:
                continue
            translate = _TRANSLATIONS.get(call.operation)
            if translate is None:
                name = call.outside or f"they do not compute {call.operation}"
                raise UnsupportedStepError(name)
            translate(self, call)
        self._fixed(first)
        update, parts = self._update.call, self._parts()
        flag = update.arguments.get("nesterov", update.arguments.get("decoupled", False))
        head = [
            int(first.out.shape[0]), int(first.batch_size), int(first.out.shape[1]), stride(first.source),
            int(first.source.dtype == np.uint8), self._slots[address(first.out)][0], len(self._stages), self._columns,
            len(self._words), len(self._numbers), list(OPTIMIZERS).index(update.operation), int(flag), len(parts),
            len(self._update.tables),
        ]  # fmt: skip
        assert len(head) == HEAD_INTS
        ints = np.array([*head, *(value for line in (*self._stages, *parts) for value in line)], np.int32)
        return DenseProgram(
            head[0], self._dtype, ints, self._tiles(), np.array(self._words, np.int64),
            np.array(self._numbers, np.float64), update.operation.removesuffix("_update"), self._columns,
            self._read_weights, len(parts), len(self._update.tables), self._arrays,
        )  # fmt: skip

    # ---- calls ---------------------------------------------------------------------------------------------

    def _nothing(self, call: Call) -> None:
        """The kernels do this without a stage."""

    def _dense(self, call: Call) -> None:
        outputs = int(call.out.shape[1])
        if call.activation not in _ACTIVATIONS:
            raise UnsupportedStepError(f"they do not compute {call.activation} between layers")
        x = self._read(call.x)
        kept = -1 if call.preactivation is None else self._write(call.preactivation)
        words = self._word(self._pointer(call.weight), self._pointer(call.bias))
        self._stage("dense", x, self._write(call.out), kept, int(call.x.shape[1]), outputs, self._read_weight(call),
                    _ACTIVATIONS.index(call.activation), words, self._number(call.alpha))  # fmt: skip

    def _activation(self, call: Call) -> None:
        if call.activation not in _ACTIVATIONS:
            raise UnsupportedStepError(f"they do not compute {call.activation} between layers")
        z = self._read(call.z)
        self._stage("activate", z, self._write(call.out), -1, 0, int(call.out.shape[1]), 0,
                    _ACTIVATIONS.index(call.activation), 0, self._number(call.alpha))  # fmt: skip

    def _dropout(self, call: Call) -> None:
        if call.first_row:
            raise UnsupportedStepError("other ranks have rows of the batch")
        x = self._read(call.x)
        words = self._word(int(call.seed), int(call.stream), int(keep_threshold(call.rate)))
        self._stage("drop", x, self._write(call.out), -1, 0, int(call.out.shape[1]), 0, 0, words,
                    self._number(1.0 / (1.0 - float(call.rate))))  # fmt: skip

    def _row_losses(self, call: Call) -> None:
        loss = self._loss
        if call is not loss.call:
            raise UnsupportedStepError("they compute one loss of this package")
        columns, targets = int(loss.outputs.shape[1]), call.targets
        if columns > MOST_OUTPUTS:
            raise UnsupportedStepError(f"there are more than {MOST_OUTPUTS} outputs")
        smoothing, focal = loss.smoothing, loss.focal
        source = self._gathered(targets if smoothing is None else smoothing.targets)
        labelled = source.ndim == 1
        if source.dtype != (np.int32 if labelled else self._dtype) or (labelled and call.operation not in _WITH_LABELS):
            raise UnsupportedStepError("targets are neither labels nor one number for each output")
        weights = call.weights if focal is None else focal.weights
        weight_source = None if weights is None else self._gathered(weights)
        name = call.arguments.get("loss", call.operation)
        if name == "softmax_cross_entropy" and targets.ndim == 1:
            name = "labels"
        words = self._word(
            self._pointer(source), 0 if labelled else stride(source), self._pointer(weight_source),
            self._pointer(call.arguments.get("parameters")), int(loss.counts), LIMITED.index(loss.limited),
        )  # fmt: skip
        fraction = 0.0 if smoothing is None else smoothing.smoothing
        uniform = 0.0 if smoothing is None else smoothing.uniform
        gamma = 0.0 if focal is None else focal.gamma
        numbers = self._number(1.0 - fraction, fraction * uniform, gamma, loss.limit)
        if any(address(array) in self._slots for array in loss.unused):
            raise UnsupportedStepError("a buffer is used for several matrices")
        self._stage("loss", self._read(loss.outputs), self._write(call.gradient), -1 if focal is None else 0,
                    int(labelled), columns, int(smoothing is not None), _LOSSES.index(name), words,
                    numbers)  # fmt: skip

    def _gathered(self, out: Array) -> Array:
        """The array from which the rows of `out` are gathered as they are."""
        gather = self._gathers.get(address(out))
        if gather is None or gather.scale != 1:
            raise UnsupportedStepError("targets or weights are changed before the loss")
        return gather.source

    def _activation_gradient(self, call: Call) -> None:
        if call.activation not in _ACTIVATIONS:
            raise UnsupportedStepError(f"they do not compute {call.activation} between layers")
        saved, upstream = self._read(call.saved), self._read(call.upstream)
        self._stage("activation_gradient", upstream, self._write(call.out), saved, 0, int(call.out.shape[1]), 0,
                    _ACTIVATIONS.index(call.activation), 0, self._number(call.alpha))  # fmt: skip

    def _scale(self, call: Call) -> None:
        x, words = self._read(call.x), self._word(self._pointer(call.scale))
        self._stage("scale_columns", x, self._write(call.out), -1, 0, int(call.out.shape[1]), 0, 0, words, 0)

    def _normalization(self, call: Call) -> None:
        statistics = call.mean, call.variance, call.scale, call.shift
        x, words = self._read(call.x), self._word(*map(self._pointer, statistics))
        self._stage("normalize", x, self._write(call.out), -1, 0, int(call.out.shape[1]), 0, 0, words,
                    self._number(call.epsilon))  # fmt: skip

    def _input_gradient(self, call: Call) -> None:
        delta = self._read(call.delta)
        inputs, outputs = (int(extent) for extent in call.weight.shape)
        words = self._word(self._pointer(call.weight))
        self._stage("input_gradient", delta, self._write(call.out), -1, inputs, outputs, self._read_weight(call), 0,
                    words, 0)  # fmt: skip

    def _read_weight(self, call: Call) -> int:
        """The stride of a weight, which is read four columns at a time: its rows must be padded with zeros."""
        inputs, outputs = call.weight.shape
        length = stride(call.weight) if inputs > 1 else -(-int(outputs) // 4) * 4
        if length % 4 or address(call.weight) % 16:
            raise UnsupportedStepError("rows of a weight do not begin at multiples of 16 bytes")
        self._read_weights += int(inputs) * length
        return length

    def _weight_gradient(self, call: Call) -> None:
        if not self._is_trained(call.out):
            return
        words = self._stored_pair(call.x, call.delta)
        if address(call.delta) in self._layers:
            raise UnsupportedStepError("a gradient belongs to two layers")
        self._layers[address(call.delta)] = _Trained(words, call.x, call.delta, call.out)

    def _scale_gradient(self, call: Call) -> None:
        if self._is_trained(call.scale_gradient):
            words = self._stored_pair(call.x, call.upstream)
            self._scaled.append(_Scaled(words, call.x, call.upstream, call.scale_gradient))

    def _stored_pair(self, x: Array, delta: Array) -> int:
        """Store what the second kernel needs for a gradient; returns the word of both addresses."""
        words = self._word(self._pointer(x), self._pointer(delta))
        for word, array in enumerate((x, delta), words):
            if address(array) not in self._stored:
                self._stage("store", self._read(array), 0, 0, 0, int(array.shape[1]), stride(array), 0, word, 0)
                self._stored.add(address(array))
        return words

    def _bias_gradient(self, call: Call) -> None:
        if not self._is_trained(call.out):
            return
        layer = self._layers.get(address(call.delta))
        if layer is None or layer.bias is not None:
            raise UnsupportedStepError("a bias is trained without the weight of its layer")
        layer.bias = call.out

    def _penalty(self, call: Call) -> None:
        layer = next((each for each in self._layers.values() if address(each.weight) == address(call.gradient)), None)
        if layer is None or layer.number >= 0 or call.penalties is not self._record.penalties:
            raise UnsupportedStepError("a penalty is not that of a layer's weight")
        layer.number = self._number(call.l1, call.l2)

    def _recorded(self, call: Call) -> None:
        given = 0 if call.penalties is None else int(call.penalties.shape[0])
        if given != sum(layer.number >= 0 for layer in self._layers.values()):
            raise UnsupportedStepError("a penalty is not that of a layer's weight")

    # ---- tables --------------------------------------------------------------------------------------------

    def _stage(self, kind: str, *values: int) -> None:
        self._stages.append((KINDS.index(kind), *values))
        assert len(self._stages[-1]) == STAGE_INTS

    def _word(self, *values: int) -> int:
        self._words += values
        return len(self._words) - len(values)

    def _number(self, *values: float) -> int:
        self._numbers += map(float, values)
        return len(self._numbers) - len(values)

    def _pointer(self, array: Array | None) -> int:
        if array is None:
            return 0
        self._arrays.append(array)
        return address(array)

    def _read(self, array: Array) -> int:
        """The place of a slot that has been written."""
        key = address(array)
        if array.ndim != 2 or key not in self._slots or self._slots[key][1] != array.shape[1]:
            raise UnsupportedStepError("a layer reads something that no other one has computed for these rows")
        return self._slots[key][0]

    def _write(self, array: Array) -> int:
        """The place of the slot that replaces a buffer."""
        key, columns = address(array), int(array.shape[-1])
        if key not in self._slots:
            self._slots[key] = self._columns, columns
            self._columns += -(-columns // 4) * 4
        if array.ndim != 2 or key in self._stored or self._slots[key][1] != columns:
            raise UnsupportedStepError("a buffer is used for several matrices")
        return self._slots[key][0]

    def _is_trained(self, gradient: Array) -> bool:
        """Whether a gradient is part of the flat buffer; those of frozen layers are not."""
        return 0 <= self._update.offset(gradient) < self._update.size

    def _only(self, *operations: str) -> Call:
        found = [call for call in self._calls if call.operation in operations]
        if len(found) != 1:
            raise UnsupportedStepError(f"they compute exactly one {' or '.join(operations)}")
        return found[0]

    def _fixed(self, gather: Call) -> None:
        """The words and numbers that every network has."""
        update, record = self._update, self._record
        first, second = update.slots()
        # The first kernel tells the second something in the memory of the first two.
        self._words[: _WORDS + len(update.tables)] = [
            0, 0, self._pointer(record.counter), self._pointer(gather.order), self._pointer(gather.source),
            self._pointer(update.call.arguments.get("momenta")), self._pointer(update.call.parameters),
            self._pointer(first), self._pointer(second), self._pointer(record.row_losses), stride(record.row_losses),
            self._pointer(record.trace), stride(record.trace), self._pointer(update.corrections),
            self._pointer(update.average), self._pointer(update.shares), *map(self._pointer, update.tables),
        ]  # fmt: skip
        given = update.call.arguments
        self._numbers[:_NUMBERS] = [
            float(gather.scale),
            float(given.get("momentum", given.get("beta1", 0.0))),
            float(given.get("beta2", given.get("decay", 0.0))),
            float(given.get("epsilon", 0.0)),
            float(given["weight_decay"]),
            update.largest,
        ]

    def _tiles(self) -> npt.NDArray[np.int32]:
        """The tiles of all weight gradients; checks that the update changes nothing else."""
        update, tiles, covered = self._update, [], []
        corrected = dict(update.corrected)
        for layer in self._layers.values():
            inputs, outputs = (int(extent) for extent in layer.weight.shape)
            size = inputs * stride(layer.weight)
            weight, bias, rates = update.offset(layer.weight), -1, [0, 0]
            covered.append((weight, weight + size))
            if layer.bias is not None:
                bias = update.offset(layer.bias)
                covered.append((bias, bias + outputs))
                rates[1] = update.table(*covered[-1])
            rates[0] = update.table(weight, weight + size)
            if corrected.get(weight, size) != size:
                raise UnsupportedStepError("they change gradients of whole weights")
            rest = *rates, int(corrected.pop(weight, 0) > 0)
            for first_input in range(0, inputs + (bias >= 0), TILE):
                for first_output in range(0, outputs, TILE):
                    place = first_input, first_output, weight, stride(layer.weight), bias, layer.number
                    extents = inputs, outputs, stride(layer.x), stride(layer.delta)
                    tiles.append((layer.word, *extents, *place, *rest))
        for each in self._scaled:
            columns, factors = int(each.x.shape[1]), update.offset(each.gradient)
            covered.append((factors, factors + columns))
            rates = [0, update.table(*covered[-1])]
            for first in range(0, columns, TILE):
                strides = stride(each.x), stride(each.delta)
                tiles.append((each.word, 0, columns, *strides, 0, first, 0, 0, factors, -1, *rates, 0))
        self._check_covered(covered)
        if corrected:
            raise UnsupportedStepError("they change no other gradients than those of weights")
        return np.array(tiles, np.int32).reshape(-1, _TILE_INTS)

    def _check_covered(self, covered: list[tuple[int, int]]) -> None:
        """Check that the update changes nothing else."""
        end = 0
        for begin, until in [*sorted(covered), (self._update.size, 0)]:
            if begin - end >= _ALIGNMENT:
                raise UnsupportedStepError("not all trained parameters are weights and biases of dense layers")
            end = max(end, until)

    def _parts(self) -> list[tuple[int, ...]]:
        """Rows of weights with penalties."""
        parts: list[tuple[int, ...]] = []
        for layer in self._layers.values():
            inputs, outputs = (int(extent) for extent in layer.weight.shape)
            rows = max(1, _PART // outputs) if layer.number >= 0 else inputs
            for first in range(0, inputs if layer.number >= 0 else 0, rows):
                place = self._update.offset(layer.weight), stride(layer.weight), outputs
                parts.append((*place, first, min(first + rows, inputs), layer.number))
        return parts


_WITH_LABELS = ("softmax_cross_entropy",)

_TRANSLATIONS = {
    "gather": _Translation._nothing,
    "dense_forward": _Translation._dense,
    "activation_forward": _Translation._activation,
    "dropout": _Translation._dropout,
    **dict.fromkeys(LOSS_OPERATIONS, _Translation._row_losses),
    "scale_columns": _Translation._scale,
    "scale_columns_gradient": _Translation._scale_gradient,
    "normalize": _Translation._normalization,
    "activation_gradient": _Translation._activation_gradient,
    "dense_input_gradient": _Translation._input_gradient,
    "dense_weight_gradient": _Translation._weight_gradient,
    "bias_gradient": _Translation._bias_gradient,
    "weight_penalty": _Translation._penalty,
    "record_loss": _Translation._recorded,
    "advance": _Translation._nothing,
}
