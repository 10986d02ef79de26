"""How the networks are built and trained: RealMLP-TD and TD-S (Holzmueller et al. 2024).

A learned scale of each feature, hidden layers in the neural tangent parametrisation, Adam with beta2 = 0.95, and a
learning rate of four cosine waves. Each network keeps its best epoch on rows that are held out. TD adds embeddings of
numbers and of columns with many categories, learned mixes of activations, initial weights scaled to the data, weight
decay, and dropout.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.data.held_out import drawn_rows
from nnbackend.data.weights import multiply_weights
from nnbackend.ensembles import PerNetwork, fit_many
from nnbackend.errors import InvalidInputError, UnknownNameError, shown
from nnbackend.interop.tabular.callbacks import DecayWeights, MeanOfEpochs
from nnbackend.interop.tabular.preparation import FeatureColumns
from nnbackend.interop.tabular.start import scale_to_data
from nnbackend.layers import Dense, Dropout, Embedding, Layer, ParametricActivation, PeriodicEmbedding, Scale
from nnbackend.metrics import Metric
from nnbackend.network import Network
from nnbackend.optimizers import Adam
from nnbackend.schedules import LogCosine
from nnbackend.support.checks import above_zero, number, positive_integer
from nnbackend.training import Callback, KeepBest

__all__ = ["MOST_ONE_HOT", "RECIPES", "Parts", "Recipe", "Rows", "held_out", "members_of", "train"]

#: Of the learning rate, for the factors of the features.
_SCALE_FACTOR = 6.0


#: Columns with more categories are embedded, as vectors of this length.
MOST_ONE_HOT, _VECTOR = 8, 8

#: The best epoch is the last one of this many whose mean was best: among the few rows that small tables hold out,
#: chance decides the best single epoch.
_EPOCHS_OF_MEAN = 7

#: Of the learning rate, for embeddings of numbers and for the shares of activations.
_EMBEDDING_FACTOR, _SHARE_FACTOR = 0.1, 0.1


@dataclass(frozen=True)
class Parts:
    """The parts of the recipe that can be left out.

    Attributes
    ----------
    scale : bool
        Whether features have learned factors.
    ntk : bool
        Whether layers have the neural tangent parametrisation.
    zero_output : bool
        Whether the weights of the last layer begin at 0; the kind of task says so.
    parametric : bool
        Whether activations have learned shares.
    waves : bool
        Whether numbers have periodic embeddings.
    vectors : bool
        Whether columns with many categories have embeddings.
    dropout : float
    beta2 : float
        The decay of Adam's second moment.
    waves_of_rate : bool
        Whether the learning rate has four waves; else it is constant.
    best_epoch : bool
        Whether each network keeps its best epoch, and not the last one.
    decay : float
        Of the weights, at first; see :class:`nnbackend.interop.tabular.callbacks.DecayWeights`.
    scaled_start : bool
        Whether the initial weights are scaled to the data.
    """

    scale: bool = True
    ntk: bool = True
    zero_output: bool = True
    parametric: bool = False
    waves: bool = False
    vectors: bool = False
    dropout: float = 0.0
    beta2: float = 0.95
    waves_of_rate: bool = True
    best_epoch: bool = True
    decay: float = 0.02
    scaled_start: bool = True


#: The recipes of the paper by name. Estimators have a choice of their own, "auto".
RECIPES = {
    "td-s": Parts(decay=0.0, scaled_start=False),
    "td": Parts(parametric=True, waves=True, vectors=True, dropout=0.15),
}


def _weighted_accuracy(y_true: HostArray, y_pred: HostArray, sample_weight: HostArray) -> float:
    """The share of the weight that correct rows have."""
    # The sum of weights as large as floats can be would be infinite.
    weights, _ = multiply_weights([sample_weight])
    return float(weights[y_true == y_pred].sum() / max(weights.sum(), np.finfo(np.float64).tiny))


_WEIGHTED = Metric(_weighted_accuracy, "weighted_accuracy", needs="classes")


@dataclass(frozen=True)
class Recipe:
    """The settings of networks and training; parameters of the estimators, and what a kind of task says.

    Attributes
    ----------
    parts : Parts
    hidden_layer_sizes : tuple of int
    activation : str
    learning_rate : float
        At the crests of the waves.
    epochs, batch_size : int
    label_smoothing : float
    loss : str
    counts_errors : bool
        Whether the best epoch is that with the smallest sum of the loss and the share of wrong classes, and not only
        that with the smallest loss.
    outputs : int
    """

    parts: Parts
    hidden_layer_sizes: tuple[int, ...]
    activation: str
    learning_rate: float
    epochs: int
    batch_size: int
    label_smoothing: float
    loss: str
    counts_errors: bool
    outputs: int

    @classmethod
    def of(cls, estimator: Any, **task: Any) -> Recipe:
        """From an estimator's parameters, where None stands for the value of the task.

        Raises
        ------
        InvalidInputError
            A parameter has the wrong type or is out of range.
        UnknownNameError
            There is no such recipe.
        """
        sizes = estimator.hidden_layer_sizes
        sizes = [sizes] if isinstance(sizes, int | np.integer) else sizes
        if isinstance(sizes, str) or not isinstance(sizes, Sequence | np.ndarray):
            raise InvalidInputError(f"hidden_layer_sizes must be a list of numbers of units, received {shown(sizes)}")
        for name in ("activation", "learning_rate"):
            own = getattr(estimator, name)
            task[name] = task[name] if own is None else own
        task["learning_rate"] = above_zero("learning_rate", task["learning_rate"])
        recipes = {"auto": task.pop("parts"), **RECIPES}
        name = estimator.recipe
        if not isinstance(name, str) or name not in recipes:
            raise UnknownNameError("recipe", name, recipes)
        parts = replace(recipes[name], zero_output=task.pop("zero_output"))
        largest = 1 / (_SCALE_FACTOR * parts.decay) if parts.decay else math.inf
        if task["learning_rate"] >= largest:
            # Training could not diverge, and would end without an error.
            raise InvalidInputError(
                f"learning_rate must be below {largest:.1f}, received {shown(task['learning_rate'])}: weights decay at "
                "this rate, and a single step would remove them; usual rates are below 0.1"
            )
        return cls(
            parts=parts,
            hidden_layer_sizes=tuple(positive_integer("hidden_layer_sizes", size) for size in sizes),
            epochs=positive_integer("epochs", estimator.epochs),
            batch_size=positive_integer("batch_size", estimator.batch_size),
            **task,
        )

    def layers(self, columns: FeatureColumns) -> list[Layer]:
        """The layers of one network."""
        parts = self.parts
        layers: list[Layer] = []
        if columns.codes:
            layers.append(Embedding(columns.categories, _VECTOR, columns=columns.codes))
        if parts.waves and columns.numbers:
            layers.append(PeriodicEmbedding(columns.numbers, learning_rate_factor=_EMBEDDING_FACTOR))
        if parts.scale:
            layers.append(Scale(learning_rate_factor=_SCALE_FACTOR))
        parametrization = "ntk" if parts.ntk else "standard"
        for units in self.hidden_layer_sizes:
            layers += self._hidden(units, parametrization)
        output = "zeros" if parts.zero_output else None
        return [*layers, Dense(self.outputs, weight_initializer=output, parametrization=parametrization)]

    def _hidden(self, units: int, parametrization: str) -> list[Layer]:
        """One hidden layer."""
        dropout: list[Layer] = [Dropout(self.parts.dropout)] if self.parts.dropout else []
        if not self.parts.parametric:
            return [Dense(units, self.activation, parametrization=parametrization), *dropout]
        share = ParametricActivation(self.activation, learning_rate_factor=_SHARE_FACTOR)
        initializer = "lecun_normal" if parametrization == "ntk" else "he_normal"
        dense = Dense(units, weight_initializer=initializer, parametrization=parametrization)
        return [dense, share, *dropout]

    def optimizer(self) -> Adam:
        """The optimiser with its schedule."""
        rate = LogCosine(self.learning_rate, self.epochs) if self.parts.waves_of_rate else self.learning_rate
        return Adam(rate, beta2=self.parts.beta2)


@dataclass(frozen=True, eq=False)
class Rows:
    """What the networks learn from.

    Attributes
    ----------
    x : (n, features) array
    targets : (n,) labels or (n, outputs) array
    weights : (n,) array or None
    classes : (n,) array
        A number for each row; of rows with the same number, the same share is held out.
    """

    x: HostArray
    targets: HostArray
    weights: HostArray | None
    classes: HostArray


def members_of(
    recipe: Recipe, columns: FeatureColumns, seeds: Sequence[int], dtype: Any, backend: Backend
) -> list[Network]:
    """Untrained networks, one for each seed."""
    return [
        Network(recipe.layers(columns), columns.count, backend=backend, seed=seed, dtype=dtype, input_scale=1.0)
        for seed in seeds
    ]


def held_out(rows: Rows, fraction: float, seeds: Sequence[int]) -> list[npt.NDArray[np.bool_]]:
    """Which rows each network keeps for validation; none if there are too few rows.

    Raises
    ------
    InvalidInputError
        The fraction is out of range, or all weights are 0 of the rows that a network holds out, or of the others.
    """
    fraction = number("validation_fraction", fraction, low=0, high=1, below=True)
    held = [drawn_rows(rows.classes, len(rows.x), fraction, seed) for seed in seeds]
    if rows.weights is not None:
        for own in held:
            if own.any() and not (rows.weights[own].any() and rows.weights[~own].any()):
                raise InvalidInputError(
                    f"sample_weight is zero for all but {np.count_nonzero(rows.weights)} of {len(own)} rows, which are "
                    "too few to hold some out and learn from others; give weights to more rows, or "
                    "validation_fraction=0"
                )
    return held


def train(
    networks: Sequence[Network],
    recipe: Recipe,
    rows: Rows,
    held: Sequence[npt.NDArray[np.bool_]],
    fraction: float,
    verbose: bool,
) -> list[int]:
    """Train networks at once, each on the rows that it does not hold out; returns the best epoch of each.

    Raises
    ------
    TrainingDivergedError, InvalidInputError
        The first error of a network.
    KeyboardInterrupt
        The user has interrupted the training.
    """
    if recipe.parts.scaled_start:
        for network in networks:
            scale_to_data(network, rows.x)
    validated = recipe.parts.best_epoch and all(own.any() for own in held)
    # `val_accuracy` counts rows, whatever their weights.
    weighted = validated and recipe.counts_errors and rows.weights is not None
    terms = {"val_loss": 1.0}
    if recipe.counts_errors:
        terms[f"val_{_WEIGHTED.name}" if weighted else "val_accuracy"] = -1.0
    keepers = [KeepBest(MeanOfEpochs.name, mode="min") for _ in held if validated]
    callbacks: list[Iterable[Callback]] = [_decay(recipe, int((~own).sum()) if validated else len(own)) for own in held]
    if validated:
        pairs = zip(callbacks, keepers, strict=True)
        callbacks = [[*decay, MeanOfEpochs(terms, _EPOCHS_OF_MEAN), keeper] for decay, keeper in pairs]
    histories = fit_many(
        networks,
        rows.x,
        rows.targets,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        loss=recipe.loss,
        optimizer=recipe.optimizer(),
        # Draws the rows in `held`, and weights them.
        validation_split=fraction if validated else 0.0,
        sample_weight=rows.weights,
        label_smoothing=recipe.label_smoothing,
        callbacks=PerNetwork(callbacks),
        metrics=[_WEIGHTED] if weighted else [],
        verbose=verbose,
    )
    for history in histories:
        if history.error is not None:
            raise history.error
    if any(history.interrupted for history in histories):
        # `fit_many` returns the histories so far, but scikit-learn expects a fitted estimator or an error.
        raise KeyboardInterrupt
    return [keeper.best_epoch for keeper in keepers] if validated else [recipe.epochs] * len(held)


def _decay(recipe: Recipe, rows: int) -> list[Callback]:
    """The weight decay of a network that trains on this number of rows."""
    if not recipe.parts.decay:
        return []
    schedule, steps = recipe.optimizer().schedule, -(-rows // recipe.batch_size)
    return [DecayWeights(recipe.parts.decay, schedule, recipe.epochs, steps)]
