"""The lines of the table: what one call of a recorded step becomes.

One function for each operation, with the arguments of :mod:`nnbackend.backends.operations`, writes the numbers that
the function of the same name in `operations.py` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.declaration import Call
from nnbackend.backends.numba.activations import ACTIVATION_CODES
from nnbackend.backends.numba.updates import ADAM, MOMENTUM, NESTEROV, RMSPROP, SGD
from nnbackend.backends.philox import keep_threshold

__all__ = ["GRADIENTS", "ONE", "PARTS", "ROWS", "Array", "Line", "UnsupportedStepError", "Update", "lines_of"]

Array = npt.NDArray[Any]

#: How a line's work is shared: by rows of the batch, by parts of its result, or not at all; or by "columns of 300".
ROWS, PARTS, ONE = "rows", "parts", "one"

#: Lines that can end with an update.
GRADIENTS = ("weight_gradient", "bias_gradient")


class UnsupportedStepError(Exception):
    """A step that the table cannot hold; says why."""


@dataclass(eq=False)
class Line:
    """One call, with what it reads and writes.

    Attributes
    ----------
    operation : str
        A function of `operations.py`, which says what the numbers are for.
    share : str
        How the threads share it.
    integers, settings : sequences
        Its numbers.
    reads, writes : sequences of arrays
        Each thread those parts that belong to its share.
    rows : sequence of arrays
        Of these it reads rows: those of its share, if that is of rows, else all.
    whole : sequence of arrays
        Of these it may read anything.
    work : int
        Multiply-adds, or what takes about as long.
    wait : bool
        Whether the threads meet first.
    update : Update, optional
        If it is one.
    rule : int, optional
        That of the update it ends with.
    product : (rows, columns) array, optional
        Its result, if it is a product that can be shared by rows or by columns.
    follows : bool
        Whether it is shared by columns if the first array that it reads was written so.
    """

    operation: str
    share: str
    integers: Sequence[int]
    settings: Sequence[float] = ()
    reads: Sequence[Array | None] = ()
    writes: Sequence[Array | None] = ()
    rows: Sequence[Array | None] = ()
    whole: Sequence[Array | None] = ()
    work: int = 0
    wait: bool = False
    update: Update | None = None
    rule: int | None = None
    product: Array | None = None
    follows: bool = False

    def arrays(self) -> list[Array]:
        """What it reads and writes, but for learning rates and the trace of losses, which are float64 everywhere."""
        return [array for array in (*self.reads, *self.writes, *self.rows, *self.whole) if array is not None]

    def elsewhere(self) -> Sequence[Array | None]:
        """What it reads beyond its share."""
        return self.whole if self.share == ROWS else (*self.rows, *self.whole)

    def add_update(self, update: Update) -> None:
        """Apply the gradient that it computes to the parameters."""
        (out,) = self.writes
        assert out is not None
        self.integers = (*self.integers, *update.numbers(out))
        self.settings, self.rule = update.settings, update.rule
        self.writes = (out, *update.parts(out))


#: Parameters begin at multiples of this many elements at least, so less is never a parameter.
_PADDING = 16


@dataclass(eq=False)
class Update:
    """An optimiser's step.

    Attributes
    ----------
    rule : int
        Of `updates.py`.
    settings : sequence of float
        As :func:`nnbackend.backends.numba.kernels.prepare_update` reads them.
    parameters, gradients : (size,) array
        The flat buffers.
    slots : list of (size,) arrays
    rates : (steps,) float64 array
    """

    rule: int
    settings: Sequence[float]
    parameters: Array
    gradients: Array
    slots: Sequence[Array]
    rates: Array

    def parts_of(self, out: Array | None) -> list[Array]:
        """The same, or nothing if the array is no part of the gradients."""
        if out is None:
            return []
        begin = address(out) - address(self.gradients)
        inside = 0 <= begin and begin + out.nbytes <= self.gradients.nbytes
        return self.parts(out) if inside else []

    def parts(self, gradient: Array) -> list[Array]:
        """Of the parameters and the slots what belongs to a part of the gradients."""
        begin = (address(gradient) - address(self.gradients)) // gradient.itemsize
        return [buffer[begin : begin + gradient.size] for buffer in (self.parameters, *self.slots)]

    def without(self, done: Sequence[Array]) -> list[Array]:
        """What is left of the gradients, but for the padding between parameters, where all is 0."""
        base, size = address(self.gradients), self.gradients.itemsize
        spans = sorted(((address(part) - base) // size, part.size) for part in done)
        begin, left = 0, []
        for end, length in [*spans, (self.gradients.size, 0)]:
            if end - begin >= _PADDING or not done:
                left.append(self.gradients[begin:end])
            begin = end + length
        return left

    def numbers(self, gradient: Array) -> Sequence[int]:
        """The end of a line that updates a part: rule, rates, and how many elements the parameters and the slots lie
        after the gradient."""
        distances = [(address(part) - address(gradient)) // gradient.itemsize for part in self.parts(gradient)]
        return (self.rule, address(self.rates), len(self.rates), *distances)

    def lines(self) -> list[Line]:
        return [self.line(self.gradients)]

    def line(self, gradient: Array) -> Line:
        """A line that does nothing else."""
        integers = (address(gradient), gradient.size, 0, 0, 0, 0, *self.numbers(gradient))
        writes, work = self.parts(gradient), 8 * gradient.size
        return Line(
            "update_parameters",
            PARTS,
            integers,
            self.settings,
            reads=(gradient,),
            writes=writes,
            work=work,
            update=self,
            rule=self.rule,
        )


def lines_of(call: Call, counters: list[Array]) -> list[Line]:
    """What a call becomes; the counter that it looks at is added to the list.

    Raises
    ------
    UnsupportedStepError
    """
    if call.operation not in _WRITERS:
        what = "a function from outside" if call.function is not None else call.operation
        raise UnsupportedStepError(f"the step holds {what}")
    return _WRITERS[call.operation](counters, *call.arguments.values())


def address(array: Array | None) -> int:
    """The address, or 0 for an array that there is not."""
    return 0 if array is None else array.ctypes.data


# ---- one function an operation: its arguments as in nnbackend.backends.contract ------------------------------------


def _gather(
    counters: list[Array], source: Array, order: Array, counter: Array, batch_size: int, scale: float, out: Array
) -> list[Line]:
    counters.append(counter)
    if source.ndim == 2:
        operation = "gather_bytes" if source.dtype == np.uint8 else "gather_rows"
        if source.dtype != np.uint8 and source.dtype != out.dtype:
            raise UnsupportedStepError(f"the data are {source.dtype}")
        columns = source.shape[1]
    else:
        operation = "gather_labels" if out.dtype == np.int32 else "gather_values"
        if source.dtype != out.dtype:
            raise UnsupportedStepError(f"the targets are {source.dtype}")
        columns = 1
    integers = (address(source), len(source), columns, address(order), len(order), batch_size, address(out), len(out))
    work = len(out) * columns
    return [Line(operation, ROWS, integers, (scale,), whole=(source, order), writes=(out,), work=work)]


def _dense(
    counters: list[Array],
    x: Array,
    weight: Array,
    bias: Array | None,
    activation: str,
    alpha: float,
    preactivation: Array | None,
    out: Array,
) -> list[Line]:
    rows, inner = x.shape
    columns = weight.shape[1]
    z = out if preactivation is None else preactivation
    integers = (address(x), address(weight), address(bias), address(z), rows, inner, columns)
    work = rows * inner * columns
    product = Line("dense", ROWS, integers, rows=(x,), whole=(weight, bias), writes=(z,), work=work, product=out)
    if activation == "identity" and z is out:
        return [product]
    return [product, *_activation(counters, z, activation, alpha, out)]


def _activation(counters: list[Array], z: Array, activation: str, alpha: float, out: Array) -> list[Line]:
    integers = (address(z), address(out), *z.shape, ACTIVATION_CODES[activation])
    return [
        Line(
            "activation",
            ROWS,
            integers,
            (alpha,),
            reads=(z,),
            writes=(out,),
            work=8 * z.size,
            follows=activation != "softmax",
        )
    ]


def _dropout(
    counters: list[Array],
    x: Array,
    rate: float,
    seed: int,
    stream: int,
    counter: Array,
    out: Array,
    first_row: int = 0,
) -> list[Line]:
    counters.append(counter)
    keys = (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)
    integers = (address(x), address(out), *x.shape, keep_threshold(rate), *keys, stream, first_row)
    return [Line("dropout", ROWS, integers, (1 / (1 - rate),), reads=(x,), writes=(out,), work=16 * x.size)]


def _max_abs_norm(counters: list[Array], x: Array, out: Array) -> list[Line]:
    integers = (address(x), address(out), *x.shape)
    return [Line("max_abs_norm", ROWS, integers, reads=(x,), writes=(out,), work=4 * x.size)]


def _loss(operation: str) -> Callable[..., list[Line]]:
    def lines(
        counters: list[Array], outputs: Array, targets: Array, weights: Array | None, gradient: Array, rows: Array
    ) -> list[Line]:
        integers = (
            address(outputs),
            address(targets),
            address(weights),
            address(gradient),
            address(rows),
            *outputs.shape,
        )
        reads = (outputs, targets, weights)
        return [Line(operation, ROWS, integers, reads=reads, writes=(gradient, rows), work=16 * outputs.size)]

    return lines


def _cross_entropy(counters: list[Array], outputs: Array, targets: Array, *rest: Any) -> list[Line]:
    kind = "labels" if targets.ndim == 1 else "probabilities"
    return _loss(f"softmax_cross_entropy_{kind}")(counters, outputs, targets, *rest)


def _activation_gradient(
    counters: list[Array], saved: Array, activation: str, alpha: float, upstream: Array, out: Array
) -> list[Line]:
    integers = (address(saved), address(upstream), address(out), *saved.shape, ACTIVATION_CODES[activation])
    reads, work = (upstream, saved), 4 * saved.size
    return [
        Line(
            "activation_gradient",
            ROWS,
            integers,
            (alpha,),
            reads=reads,
            writes=(out,),
            work=work,
            follows=activation != "softmax",
        )
    ]


def _max_abs_norm_gradient(counters: list[Array], x: Array, upstream: Array, out: Array) -> list[Line]:
    integers = (address(x), address(upstream), address(out), *x.shape)
    return [Line("max_abs_norm_gradient", ROWS, integers, reads=(x, upstream), writes=(out,), work=8 * x.size)]


def _input_gradient(counters: list[Array], delta: Array, weight: Array, out: Array) -> list[Line]:
    integers = (address(delta), address(weight), address(out), *out.shape, delta.shape[1])
    work = delta.size * out.shape[1]
    return [
        Line("input_gradient", ROWS, integers, rows=(delta,), whole=(weight,), writes=(out,), work=work, product=out)
    ]


def _weight_gradient(counters: list[Array], x: Array, delta: Array, out: Array) -> list[Line]:
    integers = (address(x), address(delta), address(out), *out.shape, len(x))
    work = x.size * out.shape[1]
    return [
        Line("weight_gradient", PARTS, integers, reads=(delta,), whole=(x,), writes=(out,), work=work, follows=True)
    ]


def _bias_gradient(counters: list[Array], delta: Array, out: Array) -> list[Line]:
    integers = (address(delta), address(out), *delta.shape, 0, 0)
    return [Line("bias_gradient", PARTS, integers, reads=(delta,), writes=(out,), work=delta.size, follows=True)]


def _weight_penalty(
    counters: list[Array], weight: Array, l1: float, l2: float, gradient: Array, penalties: Array, slot: int
) -> list[Line]:
    # A vector counts as one row.
    rows, columns = np.atleast_2d(weight).shape
    integers = (address(weight), address(gradient), rows, columns, address(penalties), len(penalties), slot)
    here = penalties[slot : slot + 1]
    writes, work = (gradient, here), 4 * weight.size
    return [Line("weight_penalty", ONE, integers, (l1, l2), reads=(weight,), writes=writes, work=work)]


def _record_loss(
    counters: list[Array], rows: Array, penalties: Array | None, counter: Array, trace: Array
) -> list[Line]:
    counters.append(counter)
    count = 0 if penalties is None else len(penalties)
    integers = (address(rows), rows.shape[1], address(penalties), count, address(trace), len(trace))
    return [Line("record_loss", ONE, integers, reads=(rows, penalties), work=2 * rows.size)]


def _sgd(
    counters: list[Array],
    parameters: Array,
    gradients: Array,
    velocity: Array | None,
    counter: Array,
    rates: Array,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> list[Line]:
    rule = SGD if velocity is None else NESTEROV if nesterov else MOMENTUM
    counters.append(counter)
    slots = [] if velocity is None else [velocity]
    return Update(rule, (weight_decay, momentum), parameters, gradients, slots, rates).lines()


def _adam(
    counters: list[Array],
    parameters: Array,
    gradients: Array,
    first: Array,
    second: Array,
    counter: Array,
    rates: Array,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
    decoupled: bool,
) -> list[Line]:
    settings = (weight_decay, beta1, beta2, epsilon, decoupled)
    counters.append(counter)
    return Update(ADAM, settings, parameters, gradients, [first, second], rates).lines()


def _rmsprop(
    counters: list[Array],
    parameters: Array,
    gradients: Array,
    square: Array,
    counter: Array,
    rates: Array,
    decay: float,
    epsilon: float,
    weight_decay: float,
) -> list[Line]:
    counters.append(counter)
    return Update(RMSPROP, (weight_decay, decay, epsilon), parameters, gradients, [square], rates).lines()


_WRITERS: dict[str, Callable[..., list[Line]]] = {
    "gather": _gather,
    "dense_forward": _dense,
    "activation_forward": _activation,
    "dropout": _dropout,
    "max_abs_norm": _max_abs_norm,
    "softmax_cross_entropy": _cross_entropy,
    "sigmoid_cross_entropy": _loss("sigmoid_cross_entropy"),
    "mean_squared_error": _loss("mean_squared_error"),
    "activation_gradient": _activation_gradient,
    "max_abs_norm_gradient": _max_abs_norm_gradient,
    "dense_input_gradient": _input_gradient,
    "dense_weight_gradient": _weight_gradient,
    "bias_gradient": _bias_gradient,
    "weight_penalty": _weight_penalty,
    "record_loss": _record_loss,
    "sgd_update": _sgd,
    "adam_update": _adam,
    "rmsprop_update": _rmsprop,
}
