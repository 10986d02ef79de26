"""Dense and convolutional neural networks, written once and trained on NumPy, Numba, PyTorch or a CUDA GPU.

The backend is a flag: ``Network(layers, input_shape, backend="numpy" | "numba" | "cupy" | "torch" | "auto")``.
Importing this package imports NumPy and nothing heavier; a backend's library is imported when the backend is requested.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nnbackend import errors, initializers
from nnbackend.backends.contract import Backend
from nnbackend.backends.registry import BackendInfo, available_backends, get_backend
from nnbackend.data.batch_stream import BatchStream
from nnbackend.initializers import (
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    Initializer,
    LeCunNormal,
    LeCunUniform,
    Normal,
    Ones,
    Uniform,
    Zeros,
)
from nnbackend.layers import (
    Activation,
    AveragePool2D,
    BatchNormalization,
    Conv1D,
    Conv2D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GlobalAveragePool2D,
    GlobalMaxPool2D,
    L2Pool2D,
    Layer,
    LayerNormalization,
    LayerStep,
    MaxAbsNorm,
    MaxPool2D,
    Normalization,
    Parameter,
    ParametricActivation,
    PeriodicEmbedding,
    Reshape,
    Residual,
    Scale,
    ZeroPadding2D,
)
from nnbackend.network import Network
from nnbackend.optimizers import SGD, Adam, AdamW, Lion, Optimizer, RMSprop
from nnbackend.schedules import (
    CosineDecay,
    CosineRestarts,
    ExponentialDecay,
    LogCosine,
    OneCycle,
    Polynomial,
    ReduceOnPlateau,
    Schedule,
    StepDecay,
    Warmup,
)
from nnbackend.support import VERSION, moved

if TYPE_CHECKING:
    from nnbackend import (
        augment,
        datasets,
        distributed,
        ensembles,
        interop,
        layers,
        losses,
        metrics,
        optimizers,
        plotting,
        presets,
        schedules,
        testing,
        training,
    )
    from nnbackend.backends.array_api import ArrayApiBackend
    from nnbackend.backends.cupy import CupyBackend
    from nnbackend.backends.numba import NumbaBackend
    from nnbackend.backends.numpy import NumpyBackend
    from nnbackend.ensembles import Ensemble, PerNetwork, fit_many
    from nnbackend.interop.notebook import LiveCurves
    from nnbackend.interop.sklearn import MLPClassifier, MLPRegressor, MLPSearchCV
    from nnbackend.interop.tabular import TabularClassifier, TabularRegressor
    from nnbackend.interop.tensorboard import TensorBoard
    from nnbackend.training import (
        Callback,
        Checkpoint,
        CSVLogger,
        EarlyStopping,
        History,
        KeepBest,
        ModelCheckpoint,
        find_learning_rate,
    )

__version__ = VERSION

__all__ = [
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "ArrayApiBackend",
    "AveragePool2D",
    "Backend",
    "BackendInfo",
    "BatchNormalization",
    "BatchStream",
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "Conv1D",
    "Conv2D",
    "CosineDecay",
    "CosineRestarts",
    "CupyBackend",
    "Dense",
    "Dropout",
    "EarlyStopping",
    "Embedding",
    "Ensemble",
    "ExponentialDecay",
    "Flatten",
    "GlobalAveragePool2D",
    "GlobalMaxPool2D",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "History",
    "Initializer",
    "KeepBest",
    "L2Pool2D",
    "Layer",
    "LayerNormalization",
    "LayerStep",
    "LeCunNormal",
    "LeCunUniform",
    "Lion",
    "LiveCurves",
    "LogCosine",
    "MLPClassifier",
    "MLPRegressor",
    "MLPSearchCV",
    "MaxAbsNorm",
    "MaxPool2D",
    "ModelCheckpoint",
    "Network",
    "Normal",
    "Normalization",
    "NumbaBackend",
    "NumpyBackend",
    "OneCycle",
    "Ones",
    "Optimizer",
    "Parameter",
    "ParametricActivation",
    "PerNetwork",
    "PeriodicEmbedding",
    "Polynomial",
    "RMSprop",
    "ReduceOnPlateau",
    "Reshape",
    "Residual",
    "Scale",
    "Schedule",
    "StepDecay",
    "TabularClassifier",
    "TabularRegressor",
    "TensorBoard",
    "Uniform",
    "Warmup",
    "ZeroPadding2D",
    "Zeros",
    "augment",
    "available_backends",
    "datasets",
    "distributed",
    "ensembles",
    "errors",
    "find_learning_rate",
    "fit_many",
    "get_backend",
    "initializers",
    "interop",
    "layers",
    "losses",
    "metrics",
    "optimizers",
    "plotting",
    "presets",
    "schedules",
    "testing",
    "training",
]


#: Modules that are imported on first access.
_MODULES = (
    "augment",
    "datasets",
    "distributed",
    "ensembles",
    "interop",
    "metrics",
    "plotting",
    "presets",
    "testing",
    "training",
)

#: Names that are imported on first access: backends import their libraries, and training and reading files import
#: standard modules that prediction does not need.
_LAZY = {
    "ArrayApiBackend": "nnbackend.backends.array_api",
    "CupyBackend": "nnbackend.backends.cupy",
    "NumbaBackend": "nnbackend.backends.numba",
    "NumpyBackend": "nnbackend.backends.numpy",
    "CSVLogger": "nnbackend.training",
    "Callback": "nnbackend.training",
    "Checkpoint": "nnbackend.training",
    "EarlyStopping": "nnbackend.training",
    "Ensemble": "nnbackend.ensembles",
    "History": "nnbackend.training",
    "KeepBest": "nnbackend.training",
    "LiveCurves": "nnbackend.interop.notebook",
    "MLPClassifier": "nnbackend.interop.sklearn",
    "MLPRegressor": "nnbackend.interop.sklearn",
    "MLPSearchCV": "nnbackend.interop.sklearn",
    "ModelCheckpoint": "nnbackend.training",
    "PerNetwork": "nnbackend.ensembles",
    "TabularClassifier": "nnbackend.interop.tabular",
    "TabularRegressor": "nnbackend.interop.tabular",
    "TensorBoard": "nnbackend.interop.tensorboard",
    "find_learning_rate": "nnbackend.training",
    "fit_many": "nnbackend.ensembles",
}

#: Names that need scikit-learn, without which they raise an ImportError that says how to install it.
_ESTIMATORS = {"MLPClassifier", "MLPRegressor", "MLPSearchCV", "TabularClassifier", "TabularRegressor"}

moved.install()


def __getattr__(name: str) -> Any:
    import importlib

    if name in _MODULES:
        return importlib.import_module(f"nnbackend.{name}")
    if name not in _LAZY:
        from nnbackend.support.other_names import missing_attribute

        raise missing_attribute("nnbackend", name, __all__)
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    """The public names, and no others; without the estimators if scikit-learn is not installed, because `help` and
    programs that read every name would fail."""
    from importlib.util import find_spec

    try:
        left_out = set() if find_spec("sklearn") else _ESTIMATORS
    except ValueError:
        left_out = _ESTIMATORS  # a program has blocked it
    return sorted({*__all__, "__version__"} - left_out)
