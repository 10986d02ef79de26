"""The operations of the contract, each declared once: its arguments, what it reads and writes, how work is split.

Conventions that hold for every operation
-----------------------------------------
* ``real`` is float32 or float64; all real arrays of one call share it. Labels are int32, orders and counters int64,
  learning rates and the trace float64.
* 2-D arrays are row-major. The last axis is contiguous; the distance between rows may be larger than the number of
  columns (padding, see :attr:`Backend.row_multiple`). 1-D arrays are contiguous.
* Operations treat images and other samples with several axes as matrices: all axes but the last are rows.
* Outputs are allocated beforehand. Operations allocate nothing in the loop, and write neither other arrays nor padding.
* Arguments may share memory only where the declaration says so, and then only as the identical array.
* NaN propagates, so that divergence is visible in the loss.
* The order of sums depends only on shapes, so a run is reproducible bit for bit.
* Calls are checked when they are recorded. Operations check nothing.
* An operation may return before its work is done; :meth:`Backend.to_host` and :meth:`Backend.synchronize` wait.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.backends.declaration import COUNTER, OPERATIONS, Array, constant, operation, reads, updates, writes
from nnbackend.backends.image_operations import ImageOperations
from nnbackend.backends.training_operations import DECAY, MOMENTA, RATES

__all__ = ["OPERATIONS", "Operations"]

ACTIVATION = constant("A key of :data:`~nnbackend.backends.activations.ACTIVATIONS`.", names=ACTIVATIONS)
ALPHA = constant("The activation's parameter.")


class Operations(ImageOperations, ABC):
    """The operations that every backend implements, and those on images."""

    # ---- batch -----------------------------------------------------------------------------------------------

    @abstractmethod
    @operation(
        "bookkeeping",
        splits=("rows",),
        source=reads("N", "features", dtype="uint8|real") | reads("N", dtype="int32|real"),
        order=reads("M", dtype="int64", about="The order of the rows in the epoch."),
        counter=COUNTER,
        batch_size=constant("Rows of a full batch. `out` has fewer rows in the last batch of an epoch."),
        scale=constant("Factor on the values, applied in the type of `out`; 1 where `out` is int32."),
        out=writes("rows", "features") | writes("rows", dtype="int32|real"),
    )
    def gather(self, source: Array, order: Array, counter: Array, batch_size: int, scale: float, out: Array) -> None:
        """Fetch one minibatch: ``out[i] = source[order[counter[0] * batch_size + i]] * scale``."""

    @abstractmethod
    @operation(
        "bookkeeping",
        counter=updates(3, dtype="int64"),
    )
    def advance(self, counter: Array) -> None:
        """End a step: add 1 to the three elements of `counter`."""

    # ---- forward ---------------------------------------------------------------------------------------------

    @abstractmethod
    @operation(
        "forward",
        splits=("rows", "columns"),
        x=reads("rows", "inputs"),
        weight=reads("inputs", "outputs"),
        bias=reads("outputs", optional=True),
        activation=ACTIVATION,
        alpha=ALPHA,
        preactivation=writes(
            "rows", "outputs", optional=True, about="Receives z; given exactly if the activation saves it."
        ),
        out=writes("rows", "outputs"),
    )
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
        """``z = x @ weight + bias``, ``out = activation(z)``."""

    @abstractmethod
    @operation(
        "forward",
        splits=("rows", "columns"),
        z=reads("rows", "features"),
        activation=ACTIVATION,
        alpha=ALPHA,
        out=writes("rows", "features", alias="z"),
    )
    def activation_forward(self, z: Array, activation: str, alpha: float, out: Array) -> None:
        """``out = activation(z)``."""

    @abstractmethod
    @operation(
        "forward",
        splits=("rows",),
        x=reads("rows", "features"),
        rate=constant("Fraction of zeros, 0 <= rate < 1."),
        seed=constant("0 <= seed < 2**63."),
        stream=constant("Identifies the dropout layer in the network, 0 <= stream < 2**32."),
        counter=COUNTER,
        out=writes("rows", "features", alias="x"),
        first_row=constant("Number of rows of the batch that lower ranks have; below 2**32 / features."),
    )
    def dropout(
        self, x: Array, rate: float, seed: int, stream: int, counter: Array, out: Array, first_row: int = 0
    ) -> None:
        """Set a random fraction of the elements to zero and scale the rest: ``out = x * mask / (1 - rate)``.

        The mask is a pure function of (seed, stream, ``counter[1]``, element), so the backward pass calls the same
        operation on the gradient and every backend draws the same mask: element ``e = (first_row + row) * features
        + column`` takes word ``e % 4`` of Philox4x32-10 (Salmon et al. 2011) with key ``(seed, seed >> 32)`` and
        counter ``(e // 4, stream, step, step >> 32)``, each modulo 2**32, ``step = counter[1]``. The element is kept if
        the word is at least ``round(rate * 2**32)``.
        """

    @abstractmethod
    @operation(
        "forward",
        splits=("rows",),
        x=reads("rows", "features"),
        out=writes("rows", "features", alias="x"),
    )
    def max_abs_norm(self, x: Array, out: Array) -> None:
        """Divide each row by its largest magnitude: ``out = x / m``, ``m = max_j |x_j|``, or 1 in a row of zeros.

        A NaN makes its whole row NaN. Infinity makes NaN of itself (it is divided by itself) and 0 of finite elements.
        The reciprocal of a subnormal m overflows, so a row is divided by m, not multiplied by ``1 / m``. Devices that
        flush subnormal float32 numbers to zero, as CUDA does with CuPy's compiler options, may do so here.
        """

    # ---- loss: value, gradient and correct predictions in one pass -------------------------------------------

    @abstractmethod
    @operation(
        "loss",
        splits=("rows",),
        logits=reads("n", "classes"),
        targets=reads("n", dtype="int32", about="Labels in [0, classes), or probabilities.") | reads("n", "classes"),
        weights=reads("n", optional=True),
        gradient=writes("n", "classes", alias="logits"),
        row_losses=writes(2, "n"),
    )
    def softmax_cross_entropy(
        self, logits: Array, targets: Array, weights: Array | None, gradient: Array, row_losses: Array
    ) -> None:
        """Cross-entropy of ``softmax(logits)``, finite for any finite logits.

        ``row_losses[0, i] = w_i * -sum_k t_ik log softmax(logits_i)_k``; ``row_losses[1, i] = 1`` if the largest logit
        is at the largest target (the first of equals), else 0; ``gradient = w_i (softmax(logits_i) sum_k t_ik -
        t_i) / n``.
        """

    @abstractmethod
    @operation(
        "loss",
        splits=("rows",),
        logits=reads("n", "outputs"),
        targets=reads("n", "outputs"),
        weights=reads("n", optional=True),
        gradient=writes("n", "outputs", alias="logits"),
        row_losses=writes(2, "n"),
    )
    def sigmoid_cross_entropy(
        self, logits: Array, targets: Array, weights: Array | None, gradient: Array, row_losses: Array
    ) -> None:
        """Binary cross-entropy of ``sigmoid(logits)``, the mean over outputs, finite for any finite logits.

        ``row_losses[0, i] = w_i * mean_k (max(z, 0) - z t + log(1 + exp(-|z|)))``, ``row_losses[1, i]`` is the share of
        outputs with ``(z > 0) == (t > 0.5)``, ``gradient = w_i (sigmoid(z) - t) / (n outputs)``.
        """

    @abstractmethod
    @operation(
        "loss",
        splits=("rows",),
        outputs=reads("n", "outputs"),
        targets=reads("n", "outputs"),
        weights=reads("n", optional=True),
        gradient=writes("n", "outputs", alias="outputs"),
        row_losses=writes(2, "n"),
    )
    def mean_squared_error(
        self, outputs: Array, targets: Array, weights: Array | None, gradient: Array, row_losses: Array
    ) -> None:
        """Squared error, the mean over outputs.

        ``row_losses[0, i] = w_i * mean_k (a - t)^2``; ``row_losses[1, i] = 1`` if the largest output is at the largest
        target (the first of equals), else 0; ``gradient = 2 w_i (a - t) / (n outputs)``.
        """

    @abstractmethod
    @operation(
        "bookkeeping",
        row_losses=reads(2, "n"),
        penalties=reads("penalties", optional=True, about="One value for each regularised parameter."),
        counter=COUNTER,
        trace=updates("steps", 3, dtype="float64"),
    )
    def record_loss(self, row_losses: Array, penalties: Array | None, counter: Array, trace: Array) -> None:
        """Write a step's sums to its row of the epoch's trace, which the host reads once per epoch.

        With ``s = counter[0]``: ``trace[s, 0] = sum row_losses[0]``, ``trace[s, 1] = sum row_losses[1]``,
        ``trace[s, 2] = n * sum penalties`` (0 if None). All sums in float64.
        """

    # ---- backward --------------------------------------------------------------------------------------------

    @abstractmethod
    @operation(
        "backward",
        splits=("rows", "columns"),
        saved=reads("rows", "features", about="The activation's output or its pre-activation, as ACTIVATIONS says."),
        activation=ACTIVATION,
        alpha=ALPHA,
        upstream=reads("rows", "features"),
        out=writes("rows", "features", alias="upstream"),
    )
    def activation_gradient(self, saved: Array, activation: str, alpha: float, upstream: Array, out: Array) -> None:
        """``out = upstream * d activation / dz`` (for softmax, the row's Jacobian times `upstream`)."""

    @abstractmethod
    @operation(
        "backward",
        splits=("rows",),
        x=reads("rows", "features", about="The input of `max_abs_norm`."),
        upstream=reads("rows", "features"),
        out=writes("rows", "features", alias="upstream"),
    )
    def max_abs_norm_gradient(self, x: Array, upstream: Array, out: Array) -> None:
        """The row's Jacobian of :meth:`max_abs_norm` times `upstream`.

        ``out_j = (g_j - [j == k] y_k sum_i g_i y_i) / m``, with ``g = upstream``, ``y = x / m`` and k the first column
        where ``|x_k| = m``, so that ``y_k`` is the sign of ``x_k``. It follows from ``dy_i / dx_j = ([i == j] - y_i
        dm / dx_j) / m`` and ``dm / dx_j = [j == k] y_k``, where the first of equal magnitudes counts as the largest.
        In a row of zeros m is 1 and y is 0, so the result is `upstream`.

        The sum is over ``g_i y_i``, with ``|y_i| <= 1``, because ``g_i x_i`` could overflow. NaN, infinity and
        subnormal numbers in `x` are treated as in :meth:`max_abs_norm`.
        """

    @abstractmethod
    @operation(
        "backward",
        splits=("rows", "columns"),
        delta=reads("rows", "outputs"),
        weight=reads("inputs", "outputs"),
        out=writes("rows", "inputs"),
    )
    def dense_input_gradient(self, delta: Array, weight: Array, out: Array) -> None:
        """``out = delta @ weight.T``."""

    @abstractmethod
    @operation(
        "backward",
        splits=("parts", "columns"),
        x=reads("rows", "inputs"),
        delta=reads("rows", "outputs"),
        out=writes("inputs", "outputs"),
    )
    def dense_weight_gradient(self, x: Array, delta: Array, out: Array) -> None:
        """``out = x.T @ delta``."""

    @abstractmethod
    @operation(
        "backward",
        splits=("parts", "columns"),
        delta=reads("rows", "outputs"),
        out=writes("outputs"),
    )
    def bias_gradient(self, delta: Array, out: Array) -> None:
        """``out = sum of delta over rows``."""

    @abstractmethod
    @operation(
        "backward",
        weight=reads("*shape"),
        l1=constant("Factor of the absolute values."),
        l2=constant("Factor of the squares."),
        gradient=updates("*shape"),
        penalties=updates("penalties"),
        slot=constant("Index of the value in `penalties`.", place_in="penalties"),
    )
    def weight_penalty(self, weight: Array, l1: float, l2: float, gradient: Array, penalties: Array, slot: int) -> None:
        """Add a weight penalty's gradient and store its value.

        ``gradient += l1 sign(weight) + l2 weight``, ``penalties[slot] = l1 sum |weight| + l2 / 2 sum weight^2``.
        """

    # ---- update: flat buffers, elementwise, in place ---------------------------------------------------------

    @abstractmethod
    @operation(
        "update",
        splits=("parts",),
        parameters=updates("size"),
        gradients=reads("size"),
        velocity=updates("size", optional=True, about="None if and only if momentum is 0."),
        counter=COUNTER,
        learning_rates=RATES,
        momentum=constant("0 <= momentum < 1."),
        nesterov=constant("Whether to use Nesterov momentum."),
        weight_decay=DECAY,
        momenta=MOMENTA,
    )
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
        momenta: Array | None = None,
    ) -> None:
        """Stochastic gradient descent (momentum and Nesterov as in Sutskever et al. 2013, PyTorch's form).

        ``g = gradients + weight_decay * parameters``; with momentum ``v = momentum * v + g`` and the direction is
        ``v``, or ``g + momentum * v`` for Nesterov; ``parameters -= learning_rate * direction``. `momenta` gives each
        step its own momentum.
        """

    @abstractmethod
    @operation(
        "update",
        splits=("parts",),
        parameters=updates("size"),
        gradients=reads("size"),
        first=updates("size"),
        second=updates("size"),
        counter=COUNTER,
        learning_rates=RATES,
        beta1=constant("Decay of the first moment."),
        beta2=constant("Decay of the second moment."),
        epsilon=constant("Added to the denominator."),
        weight_decay=DECAY,
        decoupled=constant("Whether weight decay is decoupled from the gradient."),
        momenta=MOMENTA,
    )
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
        momenta: Array | None = None,
    ) -> None:
        """Adam (Kingma and Ba 2015, algorithm 1), or AdamW (Loshchilov and Hutter 2019) if `decoupled`.

        With ``t = counter[2] + 1``: ``m = beta1 m + (1 - beta1) g``, ``v = beta2 v + (1 - beta2) g^2``,
        ``parameters -= learning_rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)``. Weight decay adds
        ``weight_decay * parameters`` to g; decoupled, it scales the parameters by ``1 - learning_rate *
        weight_decay`` first. `momenta` gives each step its own beta1, also in ``beta1^t``: the correction of the first
        moment is that of a run with this step's beta1 from the start, as in PyTorch.
        """

    @abstractmethod
    @operation(
        "update",
        splits=("parts",),
        parameters=updates("size"),
        gradients=reads("size"),
        square=updates("size"),
        counter=COUNTER,
        learning_rates=RATES,
        decay=constant("Decay of the mean square."),
        epsilon=constant("Added to the denominator."),
        weight_decay=DECAY,
    )
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
        """
