"""The backend on PyTorch's tensors: on CPUs, and on the GPUs of NVIDIA, AMD, Intel and Apple.

Importing this package does not import PyTorch; making a :class:`TorchBackend` and asking for one of its devices do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nnbackend.backends.torch.probe import DEVICES, installed, probe

if TYPE_CHECKING:
    from nnbackend.backends.torch.backend import TorchBackend

__all__ = ["DEVICES", "TorchBackend", "installed", "probe"]


def __getattr__(name: str) -> Any:
    if name != "TorchBackend":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nnbackend.backends.torch.backend import TorchBackend

    return TorchBackend
