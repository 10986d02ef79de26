"""Convert histories to pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnbackend.support.extras import install_command

if TYPE_CHECKING:
    from pandas import DataFrame

    from nnbackend.training.history import History

__all__ = ["history_frame"]


def history_frame(history: History) -> DataFrame:
    """A DataFrame with a row per epoch and a column per metric; see :meth:`nnbackend.History.to_pandas`."""
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise ImportError(f"to_pandas needs the package pandas: {install_command('pandas')}") from error
    names = history.names() or ["epoch"]
    return DataFrame(history.epochs, columns=names).set_index("epoch")
