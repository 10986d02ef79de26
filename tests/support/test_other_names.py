"""Names of Keras and PyTorch, asked of this package's modules."""

from __future__ import annotations

import re

import pytest

import nnbackend as nn
from nnbackend.support.other_names import _HERE, _MEMBERS


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("MaxPooling2D", "use MaxPool2D$"),
        ("AveragePooling2D", "use AveragePool2D$"),
        ("GlobalAveragePooling2D", "use GlobalAveragePool2D$"),
        ("Linear", "use Dense$"),
        ("BatchNorm2d", "use BatchNormalization$"),
        ("ReLU", r"use Activation\('relu'\)$"),
        ("CrossEntropyLoss", "loss='softmax_cross_entropy'"),
        # Other cases and misspelt names are found without a list.
        ("Conv2d", r"did you mean Conv2D\?$"),
        ("Tensorboard", r"did you mean TensorBoard\?$"),
        ("Dens", r"did you mean Dense\?$"),
        ("GloroUniform", r"did you mean GlorotUniform\?$"),
        # Nothing is like these.
        ("Quaternion", "has no attribute 'Quaternion'$"),
        ("__path_hooks__", "has no attribute '__path_hooks__'$"),
    ],
)
def test_an_unknown_name_says_what_it_is_called_here(name, here):
    with pytest.raises(AttributeError, match=here) as raised:
        getattr(nn, name)
    assert str(raised.value).startswith(f"module 'nnbackend' has no attribute {name!r}")
    assert not hasattr(nn, name)


def test_layers_are_found_in_their_module_too():
    with pytest.raises(
        AttributeError, match=r"module 'nnbackend.layers' has no attribute 'MaxPooling2D'; use MaxPool2D"
    ):
        _ = nn.layers.MaxPooling2D


def test_members_of_networks_and_histories_say_what_they_are_called_here():
    net = nn.Network([nn.Dense(2)], 3, backend="numpy")
    cases = [
        (net, "compile", r"'Network' object has no attribute 'compile'; use fit\(x, y, loss=\.\.\., optimizer="),
        (net, "state_dict", r"use get_weights\(\), or nnbackend\.interop\.torch"),
        (net, "predict_class", r"did you mean predict_classes\?$"),
        (net, "quaternion", "has no attribute 'quaternion'$"),
        (net, "__array__", "has no attribute '__array__'$"),
        (
            nn.History(),
            "history",
            r"'History' object has no attribute 'history'; use the object itself: history\['loss'\]",
        ),
    ]
    for owner, name, message in cases:
        with pytest.raises(AttributeError, match=message):
            getattr(owner, name)
        assert not hasattr(owner, name)
    for kind, names in _MEMBERS.items():
        assert not set(names) & set(dir(getattr(nn, kind)))
        for each in re.findall(r"(?:^|or )(\w+)\(", " ".join(names.values())):
            assert hasattr(nn, each) or hasattr(nn.Network, each), each


def test_the_names_exist_here_and_are_not_ours():
    activations = nn.backends.activations.ACTIVATIONS
    for name, here in _HERE.items():
        assert name not in nn.__all__
        if (activation := re.match(r"Activation\('(\w+)'\)", here)) is not None:
            assert activation[1] in activations
        elif (loss := re.search(r"loss='(\w+)'", here)) is not None:
            assert nn.losses.get_loss(loss[1]).name == loss[1]
        else:
            for each in re.findall(r"\b[A-Z]\w+", here):
                assert hasattr(nn, each), here
