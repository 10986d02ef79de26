"""Many networks on one data set: trained as one run, with a picture of all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnbackend.backends.contract import Backend
from nnbackend.cli.train_setup import Split
from nnbackend.datasets import Dataset
from nnbackend.distributed import Communicator
from nnbackend.ensembles import PerNetwork, fit_many
from nnbackend.errors import InvalidInputError, NNBackendError, TrainingDivergedError
from nnbackend.network import Network
from nnbackend.presets import Recipe
from nnbackend.training import Callback, Checkpoint, EarlyStopping, History

__all__ = ["Trained", "check_alone", "check_some", "draw_all", "outcome", "train_all"]


@dataclass(frozen=True)
class Trained:
    """A network that was trained among others."""

    network: Network
    recipe: Recipe
    history: History

    @property
    def done(self) -> bool:
        """Whether it was trained to its end."""
        history = self.history
        return bool(history.epochs) and history.error is None and not history.interrupted


def check_alone(what: str, ranks: Communicator) -> None:
    """Check that there is one process.

    Raises
    ------
    InvalidInputError
        An MPI launcher has started several.
    """
    if ranks.size > 1:
        raise InvalidInputError(
            f"{what} trains all networks in one process, but mpiexec started {ranks.size}; start it without mpiexec, "
            "or share out the networks in Python, with nnbackend.fit_many(..., communicator=...)"
        )


def train_all(
    recipes: Sequence[Recipe],
    seeds: Sequence[int],
    data: Dataset,
    split: Split,
    backend: Backend,
    dtype: str,
    verbose: bool,
    checkpoint: Checkpoint | None = None,
    resume: bool = False,
) -> list[Trained]:
    """Train a network of each recipe from its seed, all at once. Nothing is trained if one of them cannot be.

    With `checkpoint`, they can be resumed.

    Raises
    ------
    InvalidInputError, UnknownNameError
    OutOfMemoryError
    """
    networks = [
        Network(recipe.layers(len(data.classes), data.input_shape), data.input_shape, backend, seed=seed, dtype=dtype)
        for recipe, seed in zip(recipes, seeds, strict=True)
    ]
    histories = fit_many(
        networks,
        split.x,
        split.y,
        epochs=[recipe.epochs for recipe in recipes],
        batch_size=[recipe.batch_size for recipe in recipes],
        loss=[recipe.loss for recipe in recipes],
        optimizer=[recipe.make_optimizer() for recipe in recipes],
        validation_data=split.validation,
        callbacks=PerNetwork([_callbacks(recipe) for recipe in recipes]),
        augment=PerNetwork([recipe.augmentations() for recipe in recipes]),
        checkpoint=checkpoint,
        resume=resume,
        verbose=verbose,
    )
    return [Trained(*each) for each in zip(networks, recipes, histories, strict=True)]


def _callbacks(recipe: Recipe) -> Iterable[Callback]:
    return [] if recipe.patience is None else [EarlyStopping(patience=recipe.patience, restore_best=True)]


def check_some(trained: Sequence[Trained], some: bool) -> None:
    """Raise what explains that there is no trained network, unless there are some."""
    if some:
        return
    errors = [each.history.error for each in trained]
    for error in errors:
        if isinstance(error, NNBackendError) and not isinstance(error, TrainingDivergedError):
            raise error
    if any(each.history.interrupted for each in trained):
        raise KeyboardInterrupt("before the first network was trained")
    raise InvalidInputError("the loss of every network became NaN or infinite; lower --learning-rate")


def outcome(trained: Trained) -> str:
    """Why there is no result, in a few words."""
    error = trained.history.error
    if isinstance(error, TrainingDivergedError):
        return f"diverged in epoch {error.epoch}, step {error.step}"
    if error is not None:
        return f"{error}".partition("\n")[0]
    return "interrupted"


def draw_all(trained: Sequence[Trained], labels: Sequence[str], path: Path) -> str:
    """Draw the curves of all networks. Return an empty string, or the reason why there is no picture."""
    from nnbackend.plotting import save_figure
    from nnbackend.plotting.many import plot_many

    try:
        save_figure(plot_many([each.history for each in trained], labels), path)
    except ImportError as error:
        return str(error)
    except OSError as error:
        # A full disk must not hide the results.
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return ""
