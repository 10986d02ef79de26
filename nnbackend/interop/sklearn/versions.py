"""The version of this package in pickles of estimators."""

from __future__ import annotations

from typing import Any

from sklearn.exceptions import InconsistentVersionWarning

from nnbackend.data.scale import warn
from nnbackend.support import VERSION

__all__ = ["PickledVersionWarning", "take_version", "with_version"]

_KEY = "_nnbackend_version"


class PickledVersionWarning(InconsistentVersionWarning):  # type: ignore[misc]
    """An estimator was pickled with another version of this package.

    Also scikit-learn's warning, whose attributes `current_sklearn_version` and `original_sklearn_version` have the
    versions of this package.
    """

    def __str__(self) -> str:
        return (
            f"Trying to unpickle estimator {self.estimator_name} from version {self.original_sklearn_version} of "
            f"nnbackend when using version {self.current_sklearn_version}. Its predictions are kept where the version "
            "permits; compare some before you rely on them, or fit it again"
        )


def with_version(state: dict[str, Any]) -> dict[str, Any]:
    """The state for a pickle."""
    return {**state, _KEY: VERSION}


def take_version(estimator: Any, state: dict[str, Any]) -> dict[str, Any]:
    """The state without the version; warns if it is another one."""
    rest = {name: value for name, value in state.items() if name != _KEY}
    version = state.get(_KEY, "0.1.0 or older")
    if version != VERSION:
        warn_of = PickledVersionWarning(
            estimator_name=type(estimator).__name__, current_sklearn_version=VERSION, original_sklearn_version=version
        )
        warn(warn_of)
    return rest
