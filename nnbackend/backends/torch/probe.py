"""Checks whether PyTorch can run here, and on which devices; if not, finds the reason and the remedy."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import Any

from nnbackend.support.extras import install_command

__all__ = ["DEVICES", "best_device", "installed", "probe"]

#: The kinds of devices, with what each of them is for. PyTorch calls AMD's GPUs "cuda", too.
DEVICES = {
    "cpu": "the CPU",
    "cuda": "NVIDIA GPUs, and AMD GPUs with a PyTorch for ROCm",
    "xpu": "Intel GPUs",
    "mps": "Apple GPUs",
}

_INSTALL = f"Run: {install_command('torch')}"
_OTHER_BUILD = "Install the PyTorch for it, as https://pytorch.org/get-started/locally says"


def installed() -> tuple[str, str | None, str]:
    """PyTorch's version, and why it cannot run here and the remedy, without importing it; None if it probably can."""
    for module, package in (("torch", "PyTorch"), ("array_api_compat", "array-api-compat")):
        try:
            missing = importlib.util.find_spec(module) is None
        except ValueError:
            missing = True  # a program has blocked it
        if missing:
            return "", f"{package} is not installed", _INSTALL
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        version = "of an unknown version"
    return version, None, ""


def probe(device: str = "") -> tuple[str | None, str]:
    """Whether PyTorch can run here, on a device such as "cuda" or "cuda:1"; imports PyTorch.

    Returns
    -------
    reason : str or None
        Why it cannot run; None if it can.
    remedy : str
    """
    _, reason, remedy = installed()
    if reason is not None:
        return reason, remedy
    try:
        import torch
    except Exception as error:
        # A PyTorch for another system or with missing libraries fails in many ways.
        return f"PyTorch cannot be imported ({type(error).__name__}: {error})", f"Install it again. {_INSTALL}"
    kind, _, index = device.partition(":")
    if not kind:
        return None, ""
    if kind == "cpu":
        return (None, "") if index in ("", "0") else ("there is only one CPU", "Use 'torch:cpu'")
    reason, remedy = _missing(torch, kind)
    if reason is None and index:
        count = getattr(torch, kind).device_count()
        if not index.isdecimal() or int(index) >= count:
            return f"there is no device {index!r}: PyTorch finds {count}, counted from 0", "Choose another number"
    return reason, remedy


def best_device(torch: Any) -> str:
    """The GPU that PyTorch finds, or "cpu"."""
    return next((kind for kind in ("cuda", "xpu", "mps") if _missing(torch, kind)[0] is None), "cpu")


def _missing(torch: Any, kind: str) -> tuple[str | None, str]:
    """Why PyTorch does not find a GPU of this kind, and the remedy."""
    version = f"PyTorch {torch.__version__}"
    if kind == "mps":
        if not torch.backends.mps.is_built():
            return f"{version} was built without Metal, which only Macs have", "Use 'torch:cpu' or another device"
        if not torch.backends.mps.is_available():
            return "there is no GPU that Metal can use", "It needs a Mac with a GPU, and a recent macOS"
        return None, ""
    module = getattr(torch, kind, None)
    if module is None or not _is_built(torch, kind):
        name = "CUDA and without ROCm" if kind == "cuda" else "support for Intel GPUs"
        return f"{version} was built without {name}", _OTHER_BUILD
    if not module.is_available():
        return f"{version} finds no {'GPU' if kind == 'cuda' else 'Intel GPU'}", "Check that the GPU's driver works"
    return None, ""


def _is_built(torch: Any, kind: str) -> bool:
    if kind == "cuda":
        return torch.version.cuda is not None or torch.version.hip is not None
    return bool(torch.xpu._is_compiled()) if hasattr(torch.xpu, "_is_compiled") else True
