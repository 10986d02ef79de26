"""The operations of the contract for more losses and optimisers, for metrics and for clipping of gradients.

They are declared as in :mod:`nnbackend.backends.operations`.

A backend may lack these operations; a training that needs one is then refused when its step is recorded.
"""

from __future__ import annotations

from typing import Final

from nnbackend.backends.declaration import COUNTER, Array, constant, operation, reads, updates, writes
from nnbackend.errors import MissingOperationError

__all__ = ["ELEMENTWISE_LOSSES", "TrainingOperations", "lacking"]

#: The losses of `elementwise_loss`.
ELEMENTWISE_LOSSES: Final = ("absolute_error", "huber", "quantile", "log_cosh", "poisson", "sigmoid_focal")

RATES = reads("steps", dtype="float64", about="``learning_rates[s]`` is the rate of step s of the epoch.")
MOMENTA = reads(
    "steps",
    dtype="float64",
    optional=True,
    about="``momenta[s]`` replaces the constant in step s of the epoch; without it, all steps have the constant.",
)
DECAY = constant("Factor of the parameters.")


class TrainingOperations:
    """Losses beyond cross-entropy and squared error, predictions for metrics, clipping of gradients, and Lion."""

    @operation(
        "loss",
        splits=("rows",),
        outputs=reads("n", "columns"),
        targets=reads("n", "columns"),
        weights=reads("n", optional=True),
        loss=constant("One of the names above.", names=ELEMENTWISE_LOSSES),
        parameters=reads("columns", about="The parameter p of each output; 0 where the formula has none."),
        gradient=writes("n", "columns", alias="outputs"),
        row_losses=writes(2, "n"),
    )
    def elementwise_loss(
        self,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        loss: str,
        parameters: Array,
        gradient: Array,
        row_losses: Array,
    ) -> None:
        """A loss of single outputs, the mean over the outputs of a row.

        With ``d = a - t``, the parameter p of the output and the probability ``q = sigmoid(a)``:

        * "absolute_error": ``|d|``;
        * "huber": ``d^2 / 2`` if ``|d| <= p``, else ``p (|d| - p / 2)``;
        * "quantile": ``(1 - p) d`` if ``d > 0``, else ``-p d``;
        * "log_cosh": ``log(cosh(d))``;
        * "poisson": ``exp(a) - t a``;
        * "sigmoid_focal": ``-t (1 - q)^p log(q) - (1 - t) q^p log(1 - q)``.

        ``row_losses[0, i] = w_i * mean_k loss(a_ik, t_ik)``. ``row_losses[1, i] = 1`` if the largest output is at the
        largest target (the first of equals), else 0; for "sigmoid_focal" it is the share of outputs with ``(a > 0) ==
        (t > 0.5)``. ``gradient = w_i d loss / da / (n columns)``, where the derivative of ``|d|`` at 0 is 0. All are
        finite for finite outputs, except for "poisson", whose exponential may overflow.

        Sources: Huber 1964 (huber), Koenker and Bassett 1978 (quantile), Lin et al. 2017 (sigmoid_focal).
        """
        raise lacking(self, "elementwise_loss")

    @operation(
        "loss",
        splits=("rows",),
        weights=reads("n", optional=True),
        gamma=constant("Exponent, at least 0."),
        gradient=updates("n", "classes"),
        row_losses=updates(2, "n"),
    )
    def focal_rows(self, weights: Array | None, gamma: float, gradient: Array, row_losses: Array) -> None:
        """Turn a cross-entropy without weights into the focal loss of Lin et al. (2017): easy rows count less.

        With the cross-entropy ``c = row_losses[0, i]`` of a row and the probability ``exp(-c)`` of its class, the loss
        is ``w_i f(c)`` with ``f(c) = (1 - exp(-c))^gamma c``, and the gradient is multiplied by ``w_i f'(c)``, ``f'(c)
        = (1 - exp(-c))^gamma (1 + gamma c / (exp(c) - 1))``, where the fraction is 1 at 0.
        """
        raise lacking(self, "focal_rows")

    @operation(
        "bookkeeping",
        splits=("rows",),
        targets=reads("rows", dtype="int32", about="Labels in [0, columns), or probabilities.")
        | reads("rows", "columns"),
        smoothing=constant("Fraction of the targets that is spread, 0 <= smoothing < 1."),
        uniform=constant("What the fraction becomes in every column."),
        out=writes("rows", "columns"),
    )
    def smooth_labels(self, targets: Array, smoothing: float, uniform: float, out: Array) -> None:
        """Soften targets (Szegedy et al. 2016): ``out = (1 - smoothing) t + smoothing uniform``, where t are the
        targets, or one-hot rows for labels."""
        raise lacking(self, "smooth_labels")

    @operation(
        "bookkeeping",
        source=reads("rows", "columns"),
        counter=COUNTER,
        batch_size=constant("Rows of a full batch. `source` has fewer rows in the last batch of an epoch."),
        out=updates("N", "columns"),
    )
    def store_rows(self, source: Array, counter: Array, batch_size: int, out: Array) -> None:
        """Keep the rows of one minibatch: ``out[counter[0] * batch_size + i] = source[i]``."""
        raise lacking(self, "store_rows")

    # ---- clipping of gradients: flat buffers -----------------------------------------------------------------

    @operation(
        "bookkeeping",
        gradients=reads("size"),
        squares=writes(1, dtype="float64"),
    )
    def square_sum(self, gradients: Array, squares: Array) -> None:
        """``squares[0] = sum of gradients^2``, in float64."""
        raise lacking(self, "square_sum")

    @operation(
        "backward",
        splits=("parts",),
        squares=reads(1, dtype="float64", about="The result of `square_sum`."),
        norm=constant("The largest norm, above 0."),
        gradients=updates("size"),
    )
    def clip_norm(self, squares: Array, norm: float, gradients: Array) -> None:
        """Scale gradients to at most this Euclidean norm (Pascanu et al. 2013): multiply them by ``norm /
        sqrt(squares[0])`` if that is below 1. If the sum of squares is infinite, they become NaN."""
        raise lacking(self, "clip_norm")

    @operation(
        "backward",
        splits=("parts",),
        value=constant("The largest magnitude, above 0."),
        gradients=updates("size"),
    )
    def clip_value(self, value: float, gradients: Array) -> None:
        """Limit each element: ``gradients = min(max(gradients, -value), value)``. NaN remains NaN."""
        raise lacking(self, "clip_value")

    @operation(
        "backward",
        splits=("parts",),
        source=reads("size"),
        share=constant("Share of `source`, 0 <= share <= 1."),
        counter=COUNTER,
        shares=reads(
            "steps", dtype="float64", optional=True, about="``shares[s]`` replaces the constant in step s of the epoch."
        ),
        out=updates("size"),
    )
    def blend(self, source: Array, share: float, counter: Array, shares: Array | None, out: Array) -> None:
        """``out = (1 - share) out + share source``: a mean of gradients, or a moving average of weights."""
        raise lacking(self, "blend")

    @operation(
        "update",
        splits=("parts",),
        parameters=updates("size"),
        gradients=reads("size"),
        moment=updates("size"),
        counter=COUNTER,
        learning_rates=RATES,
        beta1=constant("Share of the moment in the direction."),
        beta2=constant("Decay of the moment."),
        weight_decay=DECAY,
        momenta=MOMENTA,
    )
    def lion_update(
        self,
        parameters: Array,
        gradients: Array,
        moment: Array,
        counter: Array,
        learning_rates: Array,
        beta1: float,
        beta2: float,
        weight_decay: float,
        momenta: Array | None = None,
    ) -> None:
        """Lion (Chen et al. 2023, algorithm 2).

        ``parameters = (1 - learning_rate * weight_decay) parameters - learning_rate * sign(beta1 moment + (1 - beta1)
        g)``, then ``moment = beta2 moment + (1 - beta2) g``. The sign of 0 is 0, and that of NaN is NaN. `momenta`
        gives each step its own beta1.
        """
        raise lacking(self, "lion_update")


def lacking(backend: object, name: str) -> MissingOperationError:
    """The error for an operation that a backend does not have."""
    return MissingOperationError(getattr(backend, "name", type(backend).__name__), name)
