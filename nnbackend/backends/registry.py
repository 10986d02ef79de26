"""Backends by name: which exist, which can run here, and why others cannot.

Backends are imported, and devices accessed, only on request. Other packages register backends in the entry-point group
``nnbackend.backends``. The value is a :class:`Backend` subclass that takes no constructor arguments. Its optional class
method ``probe() -> (reason, remedy)`` says why it cannot run here.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnbackend.backends.contract import Backend
from nnbackend.errors import BackendUnavailableError, InvalidInputError, UnknownNameError
from nnbackend.support.fork_lock import ForkLock

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint
    from logging import Logger

__all__ = ["AUTO_ORDER", "ENTRY_POINT_GROUP", "BackendInfo", "available_backends", "backend_names", "get_backend"]

ENTRY_POINT_GROUP = "nnbackend.backends"

#: Built-in backends: the module and the class in it.
_BUILT_IN = {
    "numpy": ("nnbackend.backends.numpy", "NumpyBackend"),
    "numba": ("nnbackend.backends.numba", "NumbaBackend"),
    "cupy": ("nnbackend.backends.cupy", "CupyBackend"),
    "torch": ("nnbackend.backends.torch", "TorchBackend"),
}

#: Backends that are named with a device, such as "torch:cuda" or "torch:cuda:1". Their modules list the `DEVICES`, and
#: `installed` says whether they can run without importing their library, which takes seconds.
_WITH_DEVICES = ("torch",)

#: The level logging.INFO, without importing logging.
_INFO = 20

#: The order in which "auto" tries backends.
AUTO_ORDER = ("cupy", "numba", "numpy")


@dataclass(frozen=True)
class BackendInfo:
    """One line of :func:`available_backends`.

    Attributes
    ----------
    name : str
    usable : bool
        Whether ``backend=name`` works here.
    device : str
        What it runs on; empty if it cannot run.
    reason, remedy : str
        Why it cannot run here and what to install or change; empty if it can.
    """

    name: str
    usable: bool
    device: str = ""
    reason: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        if self.usable:
            return f"{self.name}: usable on {self.device}"
        return f"{self.name}: not usable: {self.reason}. {self.remedy}"


def backend_names() -> tuple[str, ...]:
    """The names of all backends, built-in ones first."""
    return (*_BUILT_IN, *sorted(_plugins()))


def available_backends() -> list[BackendInfo]:
    """All backends, whether they can run here, and if not, why and what to install."""
    return [_info(name) for name in backend_names()]


def get_backend(backend: str | Backend) -> Backend:
    """The backend of that name, made once per process; a `Backend` is passed through.

    Parameters
    ----------
    backend : str or Backend
        A name that :func:`nnbackend.available_backends` lists, "torch" also with a device, such as "torch:cuda" or
        "torch:cuda:1". Or ``"auto"``: CuPy if a GPU is usable, else Numba, else NumPy. What was chosen and why is
        logged at level INFO under ``nnbackend``.

    Raises
    ------
    UnknownNameError
        No backend has that name.
    BackendUnavailableError
        It cannot run on this machine; there is no fallback.
    """
    if isinstance(backend, Backend):
        return backend
    if not isinstance(backend, str):
        raise InvalidInputError(
            f"backend must be a name or an nnbackend Backend, received {type(backend).__name__}; "
            f"names are {', '.join(('auto', *backend_names()))}"
        )
    if backend == "auto":
        return _auto()
    if backend not in _BUILT_IN and not _names_a_device(backend) and backend not in _plugins():
        raise UnknownNameError("backend", backend, ("auto", *backend_names(), *_names_with_devices()))
    return _make(backend)


def _names_with_devices() -> list[str]:
    return [f"{name}:{kind}" for name in _WITH_DEVICES for kind in importlib.import_module(_BUILT_IN[name][0]).DEVICES]


def _names_a_device(backend: str) -> bool:
    """Whether it is a name such as "torch:cuda" or "torch:cuda:1"."""
    parts = backend.split(":")
    return len(parts) in (2, 3) and parts[0] in _WITH_DEVICES and ":".join(parts[:2]) in _names_with_devices()


def _log() -> Logger:
    # logging takes a fifth of this package's import time, and few networks log.
    import logging

    return logging.getLogger("nnbackend")


def _auto() -> Backend:
    skipped: list[str] = []
    for name in AUTO_ORDER:
        try:
            backend = _make(name)
        except BackendUnavailableError as error:
            skipped.append(f"{name} cannot run here ({error.reason})")
            continue
        reason = "; ".join(skipped) or "it is the fastest backend and usable here"
        if _log().isEnabledFor(_INFO) and any(_unloaded(each).usable for each in _WITH_DEVICES):
            reason += "; PyTorch is installed, too, and used if backend='torch' asks for it"
        _log().info("backend 'auto' chose %r on %s: %s", name, backend.device, reason)
        return backend
    raise AssertionError("the NumPy backend always runs")


def _make(name: str) -> Backend:
    # One thread at a time: networks on a GPU must share its one backend.
    with _MAKING:
        return _made(name)


@functools.cache
def _made(name: str) -> Backend:
    # Check before loading the backend, which imports libraries that may be missing.
    reason, remedy = _probe(name)
    if reason is not None:
        raise BackendUnavailableError(name, reason, remedy)
    try:
        base, _, device = name.partition(":")
        backend = _load(name)() if name == base or base not in _WITH_DEVICES else _load(base)(device)
    except BackendUnavailableError:
        raise
    except Exception as error:
        # A device out of memory or a faulty plug-in must not affect the other backends and "auto".
        raise BackendUnavailableError(
            name, f"it could not be started ({type(error).__name__}: {error})", "See the error above for its cause."
        ) from error
    if not isinstance(backend, Backend):
        raise BackendUnavailableError(
            name,
            f"its entry point returned a {type(backend).__name__}, not an nnbackend Backend",
            "Report this to its authors.",
        )
    backend._requested = get_backend, (name,)
    return backend


def _info(name: str) -> BackendInfo:
    if name in _WITH_DEVICES:
        return _unloaded(name)
    try:
        backend = _make(name)
    except BackendUnavailableError as error:
        return BackendInfo(name, usable=False, reason=error.reason, remedy=error.remedy)
    return BackendInfo(name, usable=True, device=backend.device)


def _unloaded(name: str) -> BackendInfo:
    """What can be said without importing the library."""
    version, reason, remedy = importlib.import_module(_BUILT_IN[name][0]).installed()
    if reason is not None:
        return BackendInfo(name, usable=False, reason=reason, remedy=remedy)
    return BackendInfo(name, usable=True, device=f"the devices of PyTorch {version}, which is loaded when asked for")


#: Reentrant, because creating a backend may request another one.
_MAKING = ForkLock(reentrant=True)


@functools.cache
def _probe(name: str) -> tuple[str | None, str]:
    """Probe a backend, once: (why it cannot run, or None; the remedy)."""
    base, _, device = name.partition(":")
    if base not in _WITH_DEVICES:
        base, device = name, ""
    owner = importlib.import_module(_BUILT_IN[base][0]) if base in _BUILT_IN else _load(name)
    probe: Callable[..., tuple[str | None, str]] | None = getattr(owner, "probe", None)
    try:
        if probe is None:
            return None, ""
        return probe(device) if device else probe()
    except Exception as error:
        return f"its probe failed ({type(error).__name__}: {error})", "Report this to its authors."


def _load(name: str) -> Callable[..., Backend]:
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name]
        factory: Callable[..., Backend] = getattr(importlib.import_module(module), attribute)
        return factory
    entry = _plugins()[name]
    try:
        factory = entry.load()
    except Exception as error:
        # For any error while loading, the message names the plug-in and the cause.
        raise BackendUnavailableError(
            name, f"its plug-in {entry.value} failed to load ({type(error).__name__}: {error})", "Reinstall it."
        ) from error
    return factory


@functools.cache
def _plugins() -> dict[str, EntryPoint]:
    # Imported here because it takes longer to import than all of this package.
    from importlib.metadata import entry_points

    found = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    for name in found.keys() & _BUILT_IN.keys():
        _log().warning("ignoring plug-in %s: %r is a built-in backend", found[name].value, name)
        del found[name]
    return found
