"""The target of a process: the CPU for which it compiles.

By default, that is exactly this CPU. ``nnbackend warmup --target`` compiles for a generic one, so that the code can be
shipped to other machines. A process without code for exactly this CPU takes the nearest target for which there is code
on disk, and compiles everything for that target: code of two targets would round differently.
"""

from __future__ import annotations

import functools
import logging
import os
import platform
import zlib
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
import numba
from numba.core import codegen
from numba.core.registry import cpu_target

from nnbackend.backends.numba.cache_folders import cache_folders
from nnbackend.errors import BackendUnavailableError

__all__ = ["NATIVE", "TARGETS", "TARGET_VARIABLE", "Target", "magic", "problem", "selected"]

_config: Any = numba.config
_codegen: Any = codegen

_log = logging.getLogger("nnbackend")

#: The environment variable that names the target.
TARGET_VARIABLE = "NNBACKEND_TARGET"
#: What it says for exactly this CPU.
NATIVE = "native"


@dataclass(frozen=True)
class Target:
    """A generic CPU.

    Attributes
    ----------
    name : str
        LLVM's name.
    features : str
        What it has, for LLVM; a CPU that has all of it can run the code.
    """

    name: str
    features: str

    @property
    def is_here(self) -> bool:
        """Whether this CPU can run code for it."""
        return not self.missing()

    def missing(self) -> set[str]:
        """What this CPU lacks."""
        lacking = set(self.features.split(",")) - set(_codegen.get_host_cpu_features().split(","))
        return {feature.removeprefix("+") for feature in lacking}


_V2 = "+cx16,+popcnt,+sahf,+sse3,+sse4.1,+sse4.2,+ssse3"
_V3 = f"{_V2},+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+xsave"
_V4 = f"{_V3},+avx512bw,+avx512cd,+avx512dq,+avx512f,+avx512vl"

#: The generic targets, for each architecture those with more features first. The features of x86-64 are those of its
#: psABI; those of Neoverse N1 are what server CPUs with an Arm architecture of 2019 or later have.
TARGETS = {
    name: Target(name, features)
    for name, features in (
        ("x86-64-v4", _V4),
        ("x86-64-v3", _V3),
        ("x86-64-v2", _V2),
        ("neoverse-n1", "+crc,+dotprod,+fp-armv8,+fullfp16,+lse,+neon,+rcpc,+rdm"),
    )
}


def unusable_target(wanted: str) -> tuple[str, str] | None:
    """Why this machine cannot run code for a target, and the remedy; None if it can."""
    choices = ", ".join((NATIVE, *TARGETS))
    if wanted != NATIVE and wanted not in TARGETS:
        return "is no target", f"Choose one of {choices}"
    if wanted != NATIVE and not TARGETS[wanted].is_here:
        return (
            f"asks for code that this CPU ({llvm.get_host_cpu_name()}, {platform.machine()}) cannot run: it lacks "
            f"{', '.join(sorted(TARGETS[wanted].missing()))}",
            f"Choose another of {choices}",
        )
    return None


def problem() -> tuple[str | None, str]:
    """Why this process has no target (None if it has one), and the remedy."""
    wanted = os.environ.get(TARGET_VARIABLE, "")
    if not wanted or _is_selected():
        return None, ""
    unusable = unusable_target(wanted)
    if unusable:
        reason, remedy = unusable
        return f"{TARGET_VARIABLE}={wanted} {reason}", f"{remedy}, or unset it"
    if _is_chosen_by_numba() and wanted not in (NATIVE, _name(*magic())):
        return (
            f"{TARGET_VARIABLE} and Numba's NUMBA_CPU_NAME or NUMBA_CPU_FEATURES name two targets",
            "Unset one of them",
        )
    if _is_compiling() and wanted not in (NATIVE, _name(*magic())):
        return (
            f"{TARGET_VARIABLE}={wanted}, but Numba was given functions before, which it compiles for exactly this CPU",
            "Call nnbackend.get_backend('numba') before other modules that use Numba are imported",
        )
    return None, ""


@functools.cache
def selected() -> str:
    """The name of this process's target, which is chosen at the first call, before anything is compiled.

    A name of :data:`TARGETS`, or ``native-`` with LLVM's name of the CPU and a checksum of its features.

    Raises
    ------
    BackendUnavailableError
        The environment variable asks for a target that this process cannot have.
    """
    reason, remedy = problem()
    if reason is not None:
        raise BackendUnavailableError("numba", reason, remedy)
    name = _choose()
    if name in TARGETS and not _is_chosen_by_numba():
        # For all functions of Numba: it compiles for one target in a process.
        target = TARGETS[name]
        _config.CPU_NAME, _config.CPU_FEATURES = target.name, target.features
    return name


def _choose() -> str:
    wanted, native = os.environ.get(TARGET_VARIABLE, ""), _name(*magic())
    if wanted in TARGETS:
        return wanted
    if wanted == NATIVE or _is_chosen_by_numba():
        return native
    found = cache_folders().targets()
    shipped = [target.name for target in TARGETS.values() if target.name in found and target.is_here]
    if native in found or not shipped:
        return native
    if _is_compiling():
        _log.warning(
            "kernels for %s are on disk, but are not used, because Numba was given functions before, which it compiles "
            "for exactly this CPU; call nnbackend.get_backend('numba') before importing other modules that use Numba",
            shipped[0],
        )
        return native
    _log.info("kernels for %s are loaded from disk: there are none for exactly this CPU", shipped[0])
    return shipped[0]


def magic() -> tuple[str, str]:
    """LLVM's name and features of the CPU that Numba compiles for now."""
    name, features = _config.CPU_NAME, _config.CPU_FEATURES
    return (
        llvm.get_host_cpu_name() if name is None else name,
        _codegen.get_host_cpu_features() if features is None else features,
    )


def _name(name: str, features: str) -> str:
    if TARGETS.get(name) == Target(name, features):
        return name
    return f"{NATIVE}-{name}-{zlib.crc32(features.encode()):08x}"


def _is_selected() -> bool:
    return bool(selected.cache_info().currsize)


def _is_chosen_by_numba() -> bool:
    """Whether the user has chosen a CPU by the settings of Numba."""
    return (_config.CPU_NAME, _config.CPU_FEATURES) != (None, None)


def _is_compiling() -> bool:
    """Whether Numba was given a function, so that its target can no longer change."""
    return "_toplevel_target_context" in vars(cpu_target)
