"""What Keras and PyTorch call the public names of this package, for messages about attributes that do not exist."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["missing_attribute", "missing_member"]

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

#: The same for the members of objects, by the name of their class.
_MEMBERS = {
    "Network": {
        "add": "Network([layer, layer, ...], input_shape): a network has all its layers from the beginning",
        "compile": "fit(x, y, loss=..., optimizer=...): there is no separate step before",
        "count_params": "parameter_count",
        "eval": "predict(x) or evaluate(x, y): there are no modes, and they never use dropout",
        "fit_generator": "fit(BatchStream(...))",
        "forward": "predict(x)",
        "load_state_dict": "set_weights(weights), or nnbackend.interop.torch for a dict of PyTorch",
        "load_weights": "Network.load(path)",
        "named_parameters": "get_weights()",
        "parameters": "get_weights()",
        "predict_proba": "predict(x), which returns probabilities of classes",
        "save_weights": "save(path)",
        "score": "evaluate(x, y)",
        "state_dict": "get_weights(), or nnbackend.interop.torch for a dict of PyTorch",
        "stop_training": "a callback whose on_epoch_end returns a string",
        "test_on_batch": "evaluate(x, y)",
        "train": "fit(x, y) or train_on_batch(x, y): there are no modes",
        "trainable_weights": "get_weights()",
        "weights": "get_weights()",
        "zero_grad": "train_on_batch(x, y), which takes the place of zero_grad, backward and step",
    },
    "History": {
        "epoch": "epochs, a list with a dict for each epoch",
        "history": "the object itself: history['loss'] has a value for each epoch",
    },
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
    return AttributeError(message + _hint(name, _HERE, valid))


def missing_member(owner: object, name: str) -> AttributeError:
    """The error for an attribute that an object does not have, with the name of ours if another library has it.

    Parameters
    ----------
    owner : object
    name : str
    """
    kind = type(owner)
    message = f"{kind.__name__!r} object has no attribute {name!r}"
    known = dir(kind)
    # A property that raises AttributeError ends here, too.
    if name.startswith("_") or name in known:
        return AttributeError(message, name=name, obj=owner)
    others = next((_MEMBERS[each.__name__] for each in kind.__mro__ if each.__name__ in _MEMBERS), {})
    return AttributeError(message + _hint(name, others, [each for each in known if not each.startswith("_")]))


def _hint(name: str, others: Mapping[str, str], valid: Iterable[str]) -> str:
    """The end of a message: what to use, or which name was meant."""
    if name in others:
        return f"; use {others[name]}"
    import difflib

    by_lower_case = {each.lower(): each for each in valid}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.75)
    return f"; did you mean {by_lower_case[near[0]]}?" if near else ""
