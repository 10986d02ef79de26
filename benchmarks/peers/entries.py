"""The contenders by name. Each is imported only in its own process.

Their folder has no ``__init__.py``, because asv imports every module of a package and would need all libraries.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from benchmarks.peers.contenders.base import Contender

__all__ = [
    "CONTENDERS",
    "LIMITS",
    "ON_GPU",
    "OURS",
    "REFERENCES",
    "Entry",
    "find",
    "for_kind",
]


@dataclass(frozen=True)
class Entry:
    """The name and location of a contender.

    Attributes
    ----------
    name : str
    label : str
        Name in tables.
    place : str
        Module in the folder `contenders` and class in it.
    module : str
        The module that must be importable.
    distribution : str
        Name of the distribution, for its version and size.
    importing : str
        Code that imports what a user of the library needs.
    reference : str
        The entry of `REFERENCES` with which its losses must agree.
    """

    name: str
    label: str
    place: str
    module: str
    distribution: str
    importing: str
    reference: str = "reference"

    @property
    def on_gpu(self) -> bool:
        """Whether it uses a GPU."""
        return self in ON_GPU

    @property
    def installed(self) -> bool:
        """Whether it can be imported."""
        return importlib.util.find_spec(self.module) is not None

    def version(self) -> str:
        """The installed version."""
        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return "unknown"

    def make(self, threads: int) -> Contender:
        """Make the contender; imports its library."""
        module, _, kind = self.place.partition(":")
        made: Contender = getattr(importlib.import_module(f"benchmarks.peers.contenders.{module}"), kind)(threads)
        return made


_OUR_IMPORT = "import nnbackend; nnbackend.get_backend({!r})"

#: All contenders, in the order of the tables.
CONTENDERS = (
    Entry("numpy", "nnbackend numpy", "ours:Numpy", "numpy", "nnbackend", _OUR_IMPORT.format("numpy")),
    Entry("numba", "nnbackend numba", "ours:Numba", "numba", "nnbackend", _OUR_IMPORT.format("numba")),
    Entry("torch", "PyTorch eager", "pytorch:Eager", "torch", "torch", "import torch"),
    Entry("torch-channels-last", "PyTorch channels last", "pytorch:ChannelsLast", "torch", "torch", "import torch"),
    Entry("torch-compile", "PyTorch compile", "pytorch:Compiled", "torch", "torch", "import torch"),
    Entry("onnxruntime", "onnxruntime", "onnx_session:Session", "onnxruntime", "onnxruntime", "import onnxruntime"),
    Entry("jax", "JAX jit + scan", "jax_scan:Scan", "jax", "jax", "import jax, jax.numpy"),
    Entry(
        "sklearn",
        "scikit-learn",
        "sklearn_mlp:MLP",
        "sklearn",
        "scikit-learn",
        "from sklearn.neural_network import MLPClassifier",
        "reference-uncorrected",
    ),
    Entry("thinc", "thinc", "thinc_chain:Chain", "thinc", "thinc", "import thinc.api", "reference-uncorrected"),
    Entry("keras", "Keras", "keras_fit:Fit", "keras", "keras", "import keras", "reference-uncorrected"),
)

#: The contenders of `benchmarks/gpu.py`, in the order of its tables.
ON_GPU = (
    Entry("cupy", "nnbackend cupy", "ours:Cupy", "cupy", "nnbackend", ""),
    Entry("cupy-tf32", "nnbackend cupy, TF32", "ours:CupyTF32", "cupy", "nnbackend", ""),
    Entry("cupy-products", "nnbackend cupy, cuBLAS", "ours:CupyProducts", "cupy", "nnbackend", ""),
    Entry("cupy-apart", "nnbackend cupy, cuBLAS without epilogues", "ours:CupyApart", "cupy", "nnbackend", ""),
    Entry("cupy-plain", "plain CuPy", "cupy_plain:Plain", "cupy", "cupy", ""),
    Entry("torch-gpu", "PyTorch eager", "pytorch_gpu:Eager", "torch", "torch", ""),
    Entry("torch-gpu-overhead", "PyTorch reduce-overhead", "pytorch_gpu:ReduceOverhead", "torch", "torch", ""),
    Entry("torch-gpu-graph", "PyTorch, captured by hand", "pytorch_gpu:ByHand", "torch", "torch", ""),
    Entry("jax-gpu", "JAX jit + scan", "jax_scan:OnGpu", "jax", "jax", ""),
)

OURS = ("numpy", "numba")

#: Contenders of kinds of measurements in which not all take part, and those that take part in no other.
_ONLY = {
    "images": ("numpy", "numba", "torch", "torch-channels-last", "torch-compile", "jax"),
    "predictions": ("numpy", "numba", "torch", "onnxruntime"),
}
_SPECIAL = ("torch-channels-last", "onnxruntime")


def for_kind(kind: str, entries: Iterable[Entry]) -> list[Entry]:
    """The entries that take part in a kind of measurement."""
    if kind in _ONLY:
        return [entry for entry in entries if entry.name in _ONLY[kind]]
    return [entry for entry in entries if entry.name not in _SPECIAL]


#: References for the losses: Adam in its usual form, and in the form at the end of section 2 of Kingma and Ba (2015),
#: where epsilon is added to the root of the uncorrected second moment.
REFERENCES = (
    Entry("reference", "nnbackend numpy, float64", "ours:Reference", "numpy", "nnbackend", ""),
    Entry("reference-uncorrected", "the same, other epsilon", "ours:UncorrectedReference", "numpy", "nnbackend", ""),
)

#: Limits of the machine: arithmetic of the cores and bandwidth of the memory.
LIMITS = (
    Entry("peak", "multiply-adds in registers", "peak:Peak", "numba", "numba", ""),
    Entry("bandwidth", "memory read and written", "bandwidth:Bandwidth", "numba", "numba", ""),
)


def find(name: str) -> Entry:
    """The contender of that name."""
    return {entry.name: entry for entry in (*CONTENDERS, *ON_GPU, *REFERENCES, *LIMITS)}[name]
