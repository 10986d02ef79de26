"""The members of an estimator with several networks: estimators with one network each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state

from nnbackend.errors import InvalidInputError
from nnbackend.interop.sklearn.settings import Settings

__all__ = ["combine", "members_of"]

#: A seed of a member is below this number.
_SEEDS = np.iinfo(np.int32).max


def members_of(estimator: Any, settings: Settings, goes_on: bool) -> list[Any]:
    """The estimators that are trained: the members, or the estimator itself if it has one network.

    Parameters
    ----------
    estimator : BaseMLP
    settings : Settings
    goes_on : bool
        Whether the members that were trained before continue.

    Raises
    ------
    InvalidInputError
        There were other members before.
    """
    count = settings.n_members
    before = getattr(estimator, "estimators_", None)
    if goes_on and count != (trained := 1 if before is None else len(before)):
        raise InvalidInputError(
            f"training cannot continue with n_members={count}, because n_members={trained} was fitted; restore it, or "
            "fit again with warm_start=False"
        )
    if count == 1:
        return [estimator]
    if goes_on and before is not None:
        own = estimator.get_params(deep=False)
        return [each.set_params(**{**own, **_of_member(each.random_state)}) for each in before]
    generator = check_random_state(estimator.random_state)
    return [clone(estimator).set_params(**_of_member(generator.randint(_SEEDS))) for _ in range(count)]


def _of_member(seed: Any) -> dict[str, Any]:
    """The parameters of a member that differ from the estimator's."""
    return {"n_members": 1, "random_state": seed}


def combine(estimator: Any, members: Sequence[Any]) -> None:
    """Set the attributes of an estimator from those of its members."""
    estimator.estimators_ = list(members)
    for name in ("_engine", "_progress"):
        estimator.__dict__.pop(name, None)
    first = members[0]
    for name in ("n_layers_", "n_outputs_", "out_activation_", "classes_", "_labels"):
        if hasattr(first, name):
            setattr(estimator, name, getattr(first, name))
    for name in ("coefs_", "intercepts_"):
        stacked = [np.stack(arrays) for arrays in zip(*(getattr(each, name) for each in members), strict=True)]
        for array in stacked:
            # A change would have no effect.
            array.setflags(write=False)
        setattr(estimator, name, stacked)
    for name in ("n_iter_", "t_"):
        setattr(estimator, name, max(getattr(each, name) for each in members))
    for name in ("loss_", "best_loss_", "best_validation_score_"):
        values = [getattr(each, name) for each in members]
        setattr(estimator, name, None if None in values else float(np.mean(values)))
    for name in ("loss_curve_", "validation_scores_", "validation_loss_curve_"):
        setattr(estimator, name, _mean_curve([getattr(each, name) for each in members]))


def _mean_curve(curves: Sequence[list[float] | None]) -> list[float] | None:
    """The mean of several curves in each epoch, over those that have not ended."""
    present = [curve for curve in curves if curve is not None]
    if not present:
        return None
    return [float(np.mean([value for value in epoch if value is not None])) for epoch in zip_longest(*present)]
