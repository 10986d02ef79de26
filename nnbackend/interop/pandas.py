"""The former home of :meth:`nnbackend.History.to_pandas`; kept for one release."""

from __future__ import annotations

import warnings
from typing import Any

__all__ = ["history_frame"]


def history_frame(history: Any) -> Any:
    """Deprecated: use :meth:`nnbackend.History.to_pandas`."""
    warnings.warn("history_frame(history) is now history.to_pandas()", DeprecationWarning, stacklevel=2)
    return history.to_pandas()
