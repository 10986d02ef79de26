"""A misspelt argument is an error that suggests the right name, of classes and of functions."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError, UnknownArgumentError


def network() -> nn.Network:
    return nn.Network([nn.Dense(2)], 2, backend="numpy")


X, Y = np.zeros((4, 2)), np.array([0, 1, 0, 1])

MISSPELT: dict[str, Callable[[], Any]] = {
    "unknown argument of Dense 'activaton': did you mean 'activation'": lambda: nn.Dense(3, activaton="relu"),
    "unknown argument of Adam 'learning_rat': did you mean 'learning_rate'": lambda: nn.Adam(learning_rat=0.1),
    # Other libraries' names, which are not alike.
    "unknown argument of SGD 'lr': did you mean 'learning_rate'?": lambda: nn.SGD(lr=0.1),
    "unknown argument of Dropout 'p': did you mean 'rate'?": lambda: nn.Dropout(p=0.1),
    "unknown argument of Dense 'kernel_regularizer': did you mean 'l1' or 'l2'?": lambda: nn.Dense(
        3, kernel_regularizer=1
    ),
    "unknown argument of EarlyStopping 'min_delta': did you mean 'minimum": lambda: nn.EarlyStopping(min_delta=1),
    "unknown argument of Network 'device': did you mean 'backend'": lambda: nn.Network([], 3, device="cpu"),
    "unknown argument of Huber 'dela': did you mean 'delta'": lambda: nn.losses.Huber(dela=2),
    "unknown argument of EarlyStopping 'patiance': did you mean 'patience'": lambda: nn.EarlyStopping(patiance=2),
    "unknown argument of CosineDecay 'epoch': did you mean 'epochs'": lambda: nn.CosineDecay(0.1, epoch=2),
    "unknown argument of Network 'backnd': did you mean 'backend'": lambda: nn.Network(
        [nn.Dense(2)], 2, backnd="numpy"
    ),
    "unknown argument of MLPClassifier 'max_iters': did you mean 'max_iter'": lambda: nn.MLPClassifier(max_iters=3),
    "unknown argument of TabularRegressor 'members': did": lambda: nn.TabularRegressor(members=3),
    "unknown argument of MLPSearchCV 'n_iters': did you mean 'n_iter'": lambda: nn.MLPSearchCV(None, n_iters=3),
    "unknown argument of fit 'epoch': did you mean 'epochs'": lambda: network().fit(X, Y, epoch=3),
    "unknown argument of evaluate 'metric': did you mean 'metrics'": lambda: network().evaluate(X, Y, metric=["f1"]),
    "unknown argument of fit_many 'epoch': did you mean 'epochs'": lambda: nn.fit_many([network()], X, Y, epoch=3),
    "unknown argument of train_on_batch 'los': did you mean 'loss'": lambda: network().train_on_batch(X, Y, los="mse"),
}


@pytest.mark.parametrize("message", MISSPELT)
def test_a_misspelt_argument_has_a_suggestion(message: str) -> None:
    with pytest.raises(TypeError) as caught:
        MISSPELT[message]()
    assert isinstance(caught.value, UnknownArgumentError | InvalidInputError)
    assert str(caught.value).startswith(message)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_signatures_stay() -> None:
    assert list(inspect.signature(nn.Dense).parameters)[:2] == ["units", "activation"]
    assert "epochs" in inspect.signature(nn.Network.fit).parameters
    assert "Train" in (nn.Network.fit.__doc__ or "")


def test_classes_that_take_any_argument_and_subclasses_get_theirs() -> None:
    class Open(nn.Callback):
        def __init__(self, **options: Any) -> None:
            self.options = options

    class Wide(nn.Dense):
        def __init__(self, factor: int, **options: Any) -> None:
            super().__init__(10 * factor, **options)

    assert Open(whatever=3).options == {"whatever": 3}
    assert Wide(factor=2, use_bias=False).units == 20
    with pytest.raises(UnknownArgumentError, match="argument of Wide 'use_bais': did you mean 'use_bias'"):
        Wide(2, use_bais=False)
