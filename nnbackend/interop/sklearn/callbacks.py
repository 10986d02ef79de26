"""scikit-learn's callbacks, which follow the epochs of a fit; scikit-learn has them since 1.9."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from nnbackend.support.surroundings import callers_error_state

try:
    from sklearn.callback import CallbackSupportMixin
    from sklearn.callback._callback_support import callback_management_context as torn_down
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """An older scikit-learn has no callbacks."""

    def torn_down(estimator: Any) -> Any:
        """A context at whose end the callbacks of a fit are torn down."""
        return nullcontext()


__all__ = ["CallbackSupportMixin", "FitTask", "Follower", "torn_down"]


class Follower:
    """Tells callbacks about the epochs of one network.

    Parameters
    ----------
    task : FitTask
    context : CallbackContext
        That of the network's training; epochs are its subtasks.
    estimator : BaseMLP
        The estimator that the caller fits, which may have several members.
    """

    def __init__(self, task: FitTask, context: Any, estimator: Any) -> None:
        self._task, self._context, self._estimator = task, context, estimator
        self._epoch: Any = None

    def begin(self) -> None:
        """An epoch begins."""
        self._epoch = self._context.subcontext(task_name="epoch")
        with callers_error_state():
            self._epoch.call_on_fit_task_begin(estimator=self._estimator, **self._task.data)

    def end(self, attributes: Callable[[], dict[str, Any]]) -> bool:
        """An epoch has ended; returns whether a callback stops the training.

        Parameters
        ----------
        attributes : callable
            Returns the fitted attributes as if training had ended now.
        """
        with callers_error_state():
            stops = self._epoch.call_on_fit_task_end(
                estimator=self._estimator, reconstruction_attributes=attributes, **self._task.data
            )
        return bool(stops)


class FitTask:
    """A call of `fit` as callbacks see it: its epochs are subtasks, or those of its members.

    Parameters
    ----------
    estimator : BaseMLP
    max_iter : int
    n_members : int
    data : dict
        `X`, `y` and `metadata` for the hooks.
    """

    def __init__(self, estimator: Any, max_iter: int, n_members: int, data: dict[str, Any]) -> None:
        self.data, self._estimator, self._max_iter, self._members = data, estimator, max_iter, n_members > 1
        self._context: Any = None
        self._member_contexts: list[Any] = []
        # Without callbacks, only the tree of tasks of a meta-estimator must have this one.
        self._calls = bool(getattr(estimator, "_skl_callbacks", None))
        if hasattr(estimator, "_init_callback_context"):
            self._context = estimator._init_callback_context(
                max_subtasks=(n_members if self._members else max_iter) if self._calls else 0,
                sequential_subtasks=not self._members,
            )
            self._context.call_on_fit_task_begin(estimator=estimator, **data)

    def follower(self, number: int) -> Follower | None:
        """Follows the network with this number; None if there are no callbacks."""
        if self._context is None or not self._calls:
            return None
        context = self._context
        if self._members:
            context = context.subcontext(task_name="member", task_id=number, max_subtasks=self._max_iter)
            context.call_on_fit_task_begin(estimator=self._estimator, **self.data)
            self._member_contexts.append(context)
        return Follower(self, context, self._estimator)

    def end(self) -> None:
        """The estimator has been fitted."""
        for context in self._member_contexts:
            context.call_on_fit_task_end(estimator=self._estimator, **self.data)
        if self._context is not None:
            self._context.call_on_fit_task_end(estimator=self._estimator, reconstruction_attributes={}, **self.data)
