"""The contract between the network and the place where its arithmetic runs.

A backend owns arrays and the kernels that work on them. It implements the operations below and nothing else;
it knows no layers, no losses as objects, no training loop. A training step is a list of :class:`Call`, each
naming one of these operations and the buffers it works on, so the same step runs on any backend.

Conventions that hold for every operation
-----------------------------------------
* ``real`` is float32 or float64; all real arrays of one call share it. Labels are int32, orders and counters int64,
  learning rates and the trace float64.
* 2-D arrays are row-major. The last axis is contiguous; the distance between rows may be larger than the
  number of columns (padding, see :attr:`Backend.row_multiple`). 1-D arrays are contiguous.
* What is written goes to the argument named ``out`` (or as the operation says), which exists already. Nothing
  is allocated in the loop and nothing else is written. Padding is never written.
* Arguments may share memory only where "may alias" says so, and then only as the identical array.
* Not-a-number goes in, not-a-number comes out: a diverging run must show itself in the loss.
* Sums are taken in an order that depends on shapes alone, so a run is repeatable bit for bit.
* Shapes were checked before the step was recorded. Operations check nothing.
* An operation may return before its work is done; :meth:`Backend.to_host` and :meth:`Backend.synchronize` wait.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy.typing as npt

from nnbackend.backends.arrays import Array, HostArray
from nnbackend.backends.executor import Call, Executor, PlainExecutor
from nnbackend.backends.staging import Staging, WrittenStaging

__all__ = [
    "ACTIVATIONS",
    "OPERATIONS",
    "Array",
    "Backend",
    "Call",
    "Executor",
    "HostArray",
    "PlainExecutor",
    "Staging",
]


@dataclass(eq=False, repr=False)
class ActivationKind:
    """What the contract says of one activation function.

    Attributes
    ----------
    formula : str
        The function of the pre-activation z; `a` is the parameter called ``alpha``.
    saves : {"output", "preactivation"}
        What its gradient is computed from, and so what the forward pass must keep.
    alpha : float
        Default of the parameter; 0 where there is none.
    """

    formula: str
    saves: Literal["output", "preactivation"]
    alpha: float = 0.0


#: Every activation function, by name. GELU is the tanh form of Hendrycks and Gimpel (2016, section 2), which
#: needs no error function and is what GPT-2 used; SiLU is from the same paper, ELU from Clevert et al. (2016).
ACTIVATIONS: dict[str, ActivationKind] = {
    "identity": ActivationKind("z", "output"),
    "relu": ActivationKind("max(z, 0)", "output"),
    "leaky_relu": ActivationKind("z if z > 0 else a z", "output", alpha=0.01),
    "elu": ActivationKind("z if z > 0 else a (exp(z) - 1)", "output", alpha=1.0),
    "sigmoid": ActivationKind("1 / (1 + exp(-z))", "output"),
    "tanh": ActivationKind("tanh(z)", "output"),
    "gelu": ActivationKind("z/2 (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3)))", "preactivation"),
    "silu": ActivationKind("z / (1 + exp(-z))", "preactivation"),
    "softplus": ActivationKind("log(1 + exp(z))", "output"),
    "softmax": ActivationKind("exp(z) / sum of exp(z) over the row", "output"),
}


class Backend(ABC):
    """Where arrays live and the kernels that run there.

    Attributes
    ----------
    name : str
        The name used in ``backend="..."``.
    device : str
        What it runs on, for people to read.
    row_multiple : int
        Rows of 2-D buffers are padded to a multiple of this many elements. Padding holds zeros and stays zero.
        Views, files and ``get_weights()`` hide it.
    works_apart : bool
        Whether its executors may return before the work is done, so that the host can use the time.
    """

    name: ClassVar[str]
    device: str = "cpu"
    row_multiple: int = 1
    works_apart: bool = False

    # ---- memory --------------------------------------------------------------------------------------------

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """A new contiguous device array **filled with zeros** (so that padding starts as zero)."""

    @abstractmethod
    def from_host(self, array: HostArray) -> Array:
        """A new device array with the shape, dtype and values of `array`; never shares memory with it."""

    @abstractmethod
    def write(self, array: HostArray, out: Array) -> None:
        """Copy a host array into the device array `out` of the same shape and dtype."""

    @abstractmethod
    def to_host(self, array: Array) -> HostArray:
        """A new contiguous NumPy array with the values of a device array. Waits for pending work."""

    @abstractmethod
    def copy(self, source: Array, out: Array) -> None:
        """Copy `source` to `out`, device to device; same shape and dtype."""

    @abstractmethod
    def synchronize(self) -> None:
        """Return when all work handed to the device is done."""

    def free_bytes(self) -> int | None:
        """Memory that is left on the device; None if it is the host's, which can swap and share."""
        return None

    def staging(self, halves: tuple[Array, Array], shape: tuple[int, ...], dtype: npt.DTypeLike) -> Staging:
        """The fastest way for rows from the host into two device arrays of this shape and dtype, in turn."""
        return WrittenStaging(self, halves, shape, dtype)

    def view(self, buffer: Array, offset: int, shape: tuple[int, ...], row_stride: int | None = None) -> Array:
        """A window of a flat buffer, sharing its memory.

        Written for arrays that slice and reshape as NumPy's do; other arrays need a method of their own.

        Parameters
        ----------
        buffer : 1-D array
        offset : int
            First element of the window.
        shape : tuple of 1 or 2 ints
        row_stride : int, optional
            Elements from one row to the next; the number of columns if not given.
        """
        if len(shape) == 1:
            return buffer[offset : offset + shape[0]]
        rows, columns = shape
        stride = columns if row_stride is None else row_stride
        return buffer[offset : offset + rows * stride].reshape(rows, stride)[:, :columns]

    # ---- batch ---------------------------------------------------------------------------------------------

    @abstractmethod
    def gather(self, source: Array, order: Array, counter: Array, batch_size: int, scale: float, out: Array) -> None:
        """Fetch one minibatch: ``out[i] = source[order[counter[0] * batch_size + i]] * scale``.

        Parameters
        ----------
        source : (N, features) uint8, int32 or real; or (N,) int32 or real
        order : (N,) int64
            The epoch's order of the rows.
        counter : (3,) int64
            All from 0: ``counter[0]`` is the step's place in the epoch, ``counter[1]`` the steps done since the
            network was made, ``counter[2]`` those done with this optimiser.
        batch_size : int
            Rows of a full batch. `out` has fewer rows in the last batch of an epoch.
        scale : float
            Factor on the values, applied in the type of `out`; 1 where `out` is int32.
        out : (rows, features) real, or (rows,) int32 or real
            Real if the source is uint8 or real, int32 if it is int32.
        """

    @abstractmethod
    def advance(self, counter: Array) -> None:
        """End of a step: add 1 to the three elements of `counter`."""

    # ---- forward -------------------------------------------------------------------------------------------

    @abstractmethod
    def dense_forward(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        activation: str,
        alpha: float,
        preactivation: Array | None,
        out: Array,
    ) -> None:
        """``z = x @ weight + bias``, ``out = activation(z)``.

        Parameters
        ----------
        x : (rows, inputs) real
        weight : (inputs, outputs) real
        bias : (outputs,) real or None
        activation : str
            A key of :data:`~nnbackend.backends.base.ACTIVATIONS`.
        alpha : float
            Its parameter.
        preactivation : (rows, outputs) real or None
            Where z is kept; given exactly if the activation saves its pre-activation.
        out : (rows, outputs) real
        """

    @abstractmethod
    def activation_forward(self, z: Array, activation: str, alpha: float, out: Array) -> None:
        """``out = activation(z)``; both (rows, features) real. `out` may alias `z`."""

    @abstractmethod
    def dropout(
        self, x: Array, rate: float, seed: int, stream: int, counter: Array, out: Array, first_row: int = 0
    ) -> None:
        """Zero a random share of the elements and scale the rest: ``out = x * mask / (1 - rate)``.

        The mask is a pure function of (seed, stream, ``counter[1]``, element), so the backward pass calls the same
        operation on the gradient and every backend draws the same mask: element ``e = (first_row + row) * features
        + column`` takes word ``e % 4`` of Philox4x32-10 (Salmon et al. 2011) with key ``(seed, seed >> 32)`` and
        counter ``(e // 4, stream, step, step >> 32)``, each modulo 2**32, ``step = counter[1]``. The element is kept if
        the word is at least ``round(rate * 2**32)``.

        Parameters
        ----------
        x, out : (rows, features) real
            May alias.
        rate : float
            Share of zeros, 0 <= rate < 1.
        seed : int
            0 <= seed < 2**63.
        stream : int
            Tells the network's dropout layers apart, 0 <= stream < 2**32.
        counter : (3,) int64
        first_row : int
            How many rows of the batch lie elsewhere, before these; below 2**32 / features.
        """

    @abstractmethod
    def max_abs_norm(self, x: Array, out: Array) -> None:
        """Divide each row by its largest magnitude: ``out = x / m``, ``m = max_j |x_j|``, or 1 in a row of zeros.

        A NaN makes its whole row NaN. Infinity makes NaN of itself (it is divided by itself) and 0 of finite elements.
        The reciprocal of a subnormal m overflows, so a row is divided by m, not multiplied by ``1 / m``. A device that
        takes subnormal float32 numbers for zeros, as CUDA does the way CuPy compiles, may do so here.

        Parameters
        ----------
        x, out : (rows, features) real
            May alias.
        """

    # ---- loss: value, gradient and hits in one pass ----------------------------------------------------------

    @abstractmethod
    def softmax_cross_entropy(
        self, logits: Array, targets: Array, weights: Array | None, gradient: Array, rows: Array
    ) -> None:
        """Cross-entropy of ``softmax(logits)``, finite for any finite logits.

        ``rows[0, i] = w_i * -sum_k t_ik log softmax(logits_i)_k``, ``rows[1, i] = 1`` if the largest logit is at
        the largest target (the first of equals), else 0, and ``gradient = w_i (softmax(logits_i) sum_k t_ik -
        t_i) / n``.

        Parameters
        ----------
        logits : (n, classes) real
        targets : (n,) int32 labels in [0, classes), or (n, classes) real probabilities
        weights : (n,) real or None
        gradient : (n, classes) real
            May alias `logits`.
        rows : (2, n) real
        """

    @abstractmethod
    def sigmoid_cross_entropy(
        self, logits: Array, targets: Array, weights: Array | None, gradient: Array, rows: Array
    ) -> None:
        """Binary cross-entropy of ``sigmoid(logits)``, the mean over outputs, finite for any finite logits.

        ``rows[0, i] = w_i * mean_k (max(z, 0) - z t + log(1 + exp(-|z|)))``, ``rows[1, i]`` is the share of
        outputs with ``(z > 0) == (t > 0.5)``, ``gradient = w_i (sigmoid(z) - t) / (n outputs)``.

        Parameters
        ----------
        logits, targets, gradient : (n, outputs) real
            `gradient` may alias `logits`.
        weights : (n,) real or None
        rows : (2, n) real
        """

    @abstractmethod
    def mean_squared_error(
        self, outputs: Array, targets: Array, weights: Array | None, gradient: Array, rows: Array
    ) -> None:
        """Squared error, the mean over outputs.

        ``rows[0, i] = w_i * mean_k (a - t)^2``, ``rows[1, i] = 1`` if the largest output is at the largest target
        (the first of equals), else 0, ``gradient = 2 w_i (a - t) / (n outputs)``.

        Parameters
        ----------
        outputs, targets, gradient : (n, outputs) real
            `gradient` may alias `outputs`.
        weights : (n,) real or None
        rows : (2, n) real
        """

    @abstractmethod
    def record_loss(self, rows: Array, penalties: Array | None, counter: Array, trace: Array) -> None:
        """Sum a step's loss into its place in the epoch's trace, which the host reads once an epoch.

        With ``s = counter[0]``: ``trace[s, 0] = sum rows[0]``, ``trace[s, 1] = sum rows[1]``, ``trace[s, 2] = n *
        sum penalties`` (0 if None). All sums in float64.

        Parameters
        ----------
        rows : (2, n) real
        penalties : (regularised parameters,) real or None
        counter : (3,) int64
        trace : (steps of an epoch, 3) float64
        """

    # ---- backward ------------------------------------------------------------------------------------------

    @abstractmethod
    def activation_gradient(self, saved: Array, activation: str, alpha: float, upstream: Array, out: Array) -> None:
        """``out = upstream * d activation / dz`` (for softmax, the row's Jacobian times `upstream`).

        Parameters
        ----------
        saved : (rows, features) real
            The activation's output or its pre-activation, as :data:`~nnbackend.backends.base.ACTIVATIONS` says.
        upstream, out : (rows, features) real
            May alias.
        """

    @abstractmethod
    def max_abs_norm_gradient(self, x: Array, upstream: Array, out: Array) -> None:
        """The row's Jacobian of :meth:`max_abs_norm` times `upstream`.

        ``out_j = (g_j - [j == k] y_k sum_i g_i y_i) / m``, with ``g = upstream``, ``y = x / m`` and k the first column
        where ``|x_k| = m``, so that ``y_k`` is the sign of ``x_k``. It follows from ``dy_i / dx_j = ([i == j] - y_i
        dm / dx_j) / m`` and ``dm / dx_j = [j == k] y_k``, where of equal magnitudes the first is taken for the largest.
        In a row of zeros m is 1 and y is 0, so `upstream` stays as it is.

        What is summed is ``g_i y_i``, with ``|y_i| <= 1``: a product ``g_i x_i`` could overflow. NaN, infinity and
        subnormal numbers in `x` are as in :meth:`max_abs_norm`.

        Parameters
        ----------
        x : (rows, features) real
            The input of :meth:`max_abs_norm`.
        upstream, out : (rows, features) real
            May alias.
        """

    @abstractmethod
    def dense_input_gradient(self, delta: Array, weight: Array, out: Array) -> None:
        """``out = delta @ weight.T``; (rows, outputs), (inputs, outputs) -> (rows, inputs)."""

    @abstractmethod
    def dense_weight_gradient(self, x: Array, delta: Array, out: Array) -> None:
        """``out = x.T @ delta``; (rows, inputs), (rows, outputs) -> (inputs, outputs)."""

    @abstractmethod
    def bias_gradient(self, delta: Array, out: Array) -> None:
        """``out = sum of delta over rows``; (rows, outputs) -> (outputs,)."""

    @abstractmethod
    def weight_penalty(self, weight: Array, l1: float, l2: float, gradient: Array, penalties: Array, slot: int) -> None:
        """Add a weight penalty's gradient and note its value.

        ``gradient += l1 sign(weight) + l2 weight``, ``penalties[slot] = l1 sum |weight| + l2 / 2 sum weight^2``.

        Parameters
        ----------
        weight, gradient : (inputs, outputs) or (outputs,) real
        penalties : (regularised parameters,) real
        slot : int
        """

    # ---- update: flat buffers, elementwise, in place ---------------------------------------------------------

    @abstractmethod
    def sgd_update(
        self,
        parameters: Array,
        gradients: Array,
        velocity: Array | None,
        counter: Array,
        learning_rates: Array,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
    ) -> None:
        """Stochastic gradient descent (momentum and Nesterov as in Sutskever et al. 2013, PyTorch's form).

        ``g = gradients + weight_decay * parameters``; with momentum ``v = momentum * v + g`` and the direction is
        ``v``, or ``g + momentum * v`` for Nesterov; ``parameters -= learning_rate * direction``.

        Parameters
        ----------
        parameters, gradients : (size,) real
        velocity : (size,) real, or None exactly if momentum is 0
        counter : (3,) int64
        learning_rates : (steps of an epoch,) float64
            The rate of step s of the epoch is ``learning_rates[s]``, with ``s = counter[0]``.
        """

    @abstractmethod
    def adam_update(
        self,
        parameters: Array,
        gradients: Array,
        first: Array,
        second: Array,
        counter: Array,
        learning_rates: Array,
        beta1: float,
        beta2: float,
        epsilon: float,
        weight_decay: float,
        decoupled: bool,
    ) -> None:
        """Adam (Kingma and Ba 2015, algorithm 1), or AdamW (Loshchilov and Hutter 2019) if `decoupled`.

        With ``t = counter[2] + 1``: ``m = beta1 m + (1 - beta1) g``, ``v = beta2 v + (1 - beta2) g^2``,
        ``parameters -= learning_rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)``. Weight decay adds
        ``weight_decay * parameters`` to g; decoupled, it scales the parameters by ``1 - learning_rate *
        weight_decay`` first.

        Parameters
        ----------
        parameters, gradients, first, second : (size,) real
        counter : (3,) int64
        learning_rates : (steps of an epoch,) float64
            The rate of step s of the epoch is ``learning_rates[s]``, with ``s = counter[0]``.
        """

    @abstractmethod
    def rmsprop_update(
        self,
        parameters: Array,
        gradients: Array,
        square: Array,
        counter: Array,
        learning_rates: Array,
        decay: float,
        epsilon: float,
        weight_decay: float,
    ) -> None:
        """RMSprop (Tieleman and Hinton 2012, lecture 6.5).

        ``g = gradients + weight_decay * parameters``, ``square = decay * square + (1 - decay) g^2``,
        ``parameters -= learning_rate * g / (sqrt(square) + epsilon)``.

        Parameters
        ----------
        parameters, gradients, square : (size,) real
        counter : (3,) int64
        learning_rates : (steps of an epoch,) float64
            The rate of step s of the epoch is ``learning_rates[s]``, with ``s = counter[0]``.
        """

    # ---- running a recorded step -----------------------------------------------------------------------------

    def executor(self, calls: Sequence[Call]) -> Executor:
        """The fastest executor this backend has for a recorded step."""
        return PlainExecutor(self, calls)

    def __deepcopy__(self, memo: dict[int, Any]) -> Backend:
        """A copy of what stands on a backend stands on the same one; `sklearn.base.clone` copies all parameters."""
        return self

    def __repr__(self) -> str:
        return f"<nnbackend backend {self.name!r} on {self.device}>"


#: The names of the operations every backend implements, in the order of this file.
OPERATIONS: tuple[str, ...] = tuple(
    name for name, member in vars(Backend).items() if getattr(member, "__isabstractmethod__", False)
)
