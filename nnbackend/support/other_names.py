"""What Keras and PyTorch call the public names of this package, for messages about attributes that do not exist."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["missing_attribute"]

#: What to use here, by the name in Keras or PyTorch. Names that differ only in upper and lower case are found without.
_HERE = {
    "Adadelta": "Adam, AdamW, Lion, RMSprop or SGD",
    "Adagrad": "Adam, AdamW, Lion, RMSprop or SGD",
    "AdaptiveAvgPool2d": "GlobalAveragePool2D",
    "AdaptiveMaxPool2d": "GlobalMaxPool2D",
    "Add": "Residual([layers]), which adds its input to the output of its layers",
    "AveragePooling2D": "AveragePool2D",
    "AvgPool2d": "AveragePool2D",
    "BCELoss": "fit(..., loss='sigmoid_cross_entropy')",
    "BCEWithLogitsLoss": "fit(..., loss='sigmoid_cross_entropy')",
    "BatchNorm": "BatchNormalization",
    "BatchNorm1d": "BatchNormalization",
    "BatchNorm2d": "BatchNormalization",
    "BinaryCrossentropy": "fit(..., loss='sigmoid_cross_entropy')",
    "CategoricalCrossentropy": "fit(..., loss='softmax_cross_entropy')",
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "CosineAnnealingLR": "CosineDecay",
    "CosineAnnealingWarmRestarts": "CosineRestarts",
    "CosineDecayRestarts": "CosineRestarts",
    "CrossEntropyLoss": "fit(..., loss='softmax_cross_entropy')",
    "DepthwiseConv2D": "Conv2D(..., groups=channels)",
    "Dropout1d": "Dropout",
    "Dropout2d": "Dropout",
    "ELU": "Activation('elu')",
    "ExponentialLR": "ExponentialDecay",
    "ExponentialMovingAverage": "fit(..., ema=0.999)",
    "LRFinder": "find_learning_rate(network, x, y)",
    "GELU": "Activation('gelu')",
    "GlobalAveragePooling2D": "GlobalAveragePool2D",
    "GlobalMaxPooling2D": "GlobalMaxPool2D",
    "Identity": "Activation('identity')",
    "Input": "Network(layers, input_shape=...)",
    "InputLayer": "Network(layers, input_shape=...)",
    "LayerNorm": "LayerNormalization",
    "LeakyReLU": "Activation('leaky_relu')",
    "Linear": "Dense",
    "MSELoss": "fit(..., loss='mean_squared_error')",
    "MaxPooling2D": "MaxPool2D",
    "MeanSquaredError": "fit(..., loss='mean_squared_error')",
    "Mish": "Activation('mish')",
    "Model": "Network(layers, input_shape)",
    "Module": "Network(layers, input_shape), or Layer as the base class of your own layers",
    "PolynomialDecay": "Polynomial",
    "PolynomialLR": "Polynomial",
    "RMSProp": "RMSprop",
    "ReLU": "Activation('relu')",
    "ReduceLROnPlateau": "ReduceOnPlateau, as an optimizer's learning_rate",
    "Rescaling": "Network(..., input_scale=1/255)",
    "Sequential": "Network(layers, input_shape)",
    "SELU": "Activation('selu')",
    "SiLU": "Activation('silu')",
    "Sigmoid": "Activation('sigmoid')",
    "Softmax": "Activation('softmax'); with loss='softmax_cross_entropy' none, because the loss applies it",
    "Softplus": "Activation('softplus')",
    "SparseCategoricalCrossentropy": "fit(..., loss='softmax_cross_entropy')",
    "StepLR": "StepDecay",
    "StandardScaler": "Normalization().adapt(x), as the first layer",
    "SwapEMAWeights": "fit(..., ema=0.999)",
    "Tanh": "Activation('tanh')",
    "ZeroPad2d": "ZeroPadding2D",
}


def missing_attribute(module: str, name: str, valid: Iterable[str]) -> AttributeError:
    """The error for an attribute that `module` does not have, with the name of ours if another library has it.

    Parameters
    ----------
    module : str
    name : str
    valid : iterable of str
        The module's public names.
    """
    message = f"module {module!r} has no attribute {name!r}"
    if name.startswith("_"):
        # Python and its tools ask for such names to find out what a module is.
        return AttributeError(message)
    if name in _HERE:
        return AttributeError(f"{message}; use {_HERE[name]}")
    import difflib

    by_lower_case = {each.lower(): each for each in valid}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.75)
    return AttributeError(f"{message}; did you mean {by_lower_case[near[0]]}?" if near else message)
