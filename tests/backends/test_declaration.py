"""Operations are declared once, and every recorded call is checked against its declaration."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.contract import Backend
from nnbackend.backends.declaration import OPERATIONS, Call
from nnbackend.backends.image_operations import ImageOperations, check_implemented
from nnbackend.backends.numpy import NumpyBackend
from nnbackend.errors import InvalidInputError, UnknownNameError
from tests.helpers import images

X, Y, WEIGHT = np.zeros((5, 3), np.float32), np.zeros((5, 2), np.float32), np.zeros((3, 2), np.float32)
COUNTER, ROWS = np.zeros(3, np.int64), np.zeros((2, 5), np.float32)


def check(operation: str, *given, **named) -> None:
    declared = OPERATIONS[operation]
    declared.check(declared.bind(given, named))


def test_the_operations_are_the_abstract_methods_that_compute_and_those_on_images():
    memory = {"empty", "from_host", "write", "to_host", "copy", "synchronize"}
    abstract = Backend.__abstractmethods__ - memory
    may_be_missing = {name for name, _ in inspect.getmembers(ImageOperations, inspect.isfunction)}
    assert not abstract & may_be_missing
    assert set(OPERATIONS) == abstract | may_be_missing


@pytest.mark.parametrize("name", [name for name in dir(ImageOperations) if name in OPERATIONS])
def test_an_operation_that_a_backend_lacks_is_refused(name):
    class Lacking(NumpyBackend):
        name = "lacking"

    setattr(Lacking, name, getattr(ImageOperations, name))
    message = f"backend 'lacking' has no operation '{name}', .*use backend='numpy' or 'numba'"
    with pytest.raises(InvalidInputError, match=message):
        check_implemented(Lacking(), OPERATIONS[name])
    with pytest.raises(InvalidInputError, match=message):
        getattr(Lacking(), name)(*OPERATIONS[name].arguments)
    check_implemented(NumpyBackend(), OPERATIONS[name])


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_documented_from_its_declaration(name):
    text = inspect.getdoc(getattr(Backend, name))
    for argument, declared in OPERATIONS[name].arguments.items():
        (line,) = (line for line in text.splitlines() if line.startswith(f"{argument} : "))
        assert declared.access == "constant" or str(declared) in line


@pytest.mark.parametrize(
    ("operation", "given", "message"),
    [
        ("bias_gradient", (Y, X[0]), r"out must be \(outputs,\) real with outputs = 2.* received \(3,\)"),
        ("bias_gradient", (Y, WEIGHT.reshape(-1)[:4:2]), "contiguous in memory, received strides of"),
        ("bias_gradient", (Y[0], np.zeros(2, np.float32)), r"delta must be \(rows, outputs\) real, received \(2,\)"),
        ("bias_gradient", (Y, np.zeros(2)), "out must be .*received .*float64"),
        ("bias_gradient", (Y.astype(np.int32), np.zeros(2, np.int32)), "delta must be .*received .*int32"),
        ("bias_gradient", (Y, None), "out must be an array, received None"),
        ("dense_weight_gradient", (X, Y[:4], WEIGHT), "delta must be .* with rows = 5"),
        ("softmax_cross_entropy", (Y, np.zeros((5, 3), np.float32), None, Y.copy(), ROWS), "targets must be"),
        ("softmax_cross_entropy", (Y, np.zeros((5, 1), np.int32), None, Y.copy(), ROWS), "targets must be"),
        ("softmax_cross_entropy", (Y, np.zeros(5, np.int64), None, Y.copy(), ROWS), "targets must be"),
        ("softmax_cross_entropy", (Y, np.zeros(5, np.int32), None, Y.copy(), ROWS[:1]), "row_losses must be"),
        ("advance", (np.zeros(2, np.int64),), r"counter must be \(3,\) int64"),
        ("activation_forward", (X, "relu", 0.0, X[::-1]), "output out shares memory with z"),
        ("dense_input_gradient", (Y, WEIGHT, X.reshape(-1)[:15].reshape(5, 3)), None),
        ("dense_forward", (X, WEIGHT, None, "gelu", 0.0, Y, Y), "shares memory"),
        ("max_abs_norm", (ROWS[:1], ROWS[1:]), None),
        ("max_abs_norm", (3.0, X), r"x must be \(rows, features\) real, received 3\.0"),
        ("max_abs_norm", (X, [[1, 2]]), r"out must be \(rows, features\) real, received \[\[1, 2\]\]"),
        ("weight_penalty", (WEIGHT, 0.0, 1.0, WEIGHT.copy(), ROWS[0], 5), "slot must be a place in penalties, 0 to 4"),
        ("weight_penalty", (WEIGHT, 0.0, 1.0, WEIGHT.copy(), ROWS[0], -1), "received -1"),
        ("activation_forward", (X, "rellu", 0.0, X), "unknown activation of activation_forward 'rellu': did you mean"),
        ("activation_gradient", (X, None, 0.0, X, X), "unknown activation of activation_gradient None"),
    ],
)  # fmt: skip
def test_a_call_is_checked_against_the_declaration(operation, given, message):
    if message is None:
        check(operation, *given)
        return
    with pytest.raises(InvalidInputError, match=message):
        check(operation, *given)


def test_arguments_that_may_alias_may_only_be_the_identical_array():
    check("activation_forward", X, "relu", 0.0, X)
    both = np.zeros((6, 3), np.float32)
    with pytest.raises(InvalidInputError, match="shares memory"):
        check("activation_forward", both[:5], "relu", 0.0, both[1:])


def test_arguments_go_by_name_or_in_order():
    named = OPERATIONS["bias_gradient"].bind((Y,), {"out": WEIGHT[0]})
    assert list(named) == ["delta", "out"]
    for given, extra, message in (
        ((Y,), {}, "lacks out"),
        ((Y, WEIGHT[0], 3), {}, "takes 2 arguments, received 3"),
        ((Y,), {"delta": Y}, "'delta' twice"),
        ((Y,), {"result": Y}, "none of delta, out"),
    ):
        with pytest.raises(TypeError, match=message):
            OPERATIONS["bias_gradient"].bind(given, extra)


def test_a_call_shows_its_arguments_as_attributes():
    call = Call.of("dropout", X, 0.5, 1, 2, COUNTER, out=X)
    assert call.out is X
    assert call.first_row == 0
    assert "first_row" not in call.arguments
    with pytest.raises(AttributeError, match="no argument 'bias'"):
        call.bias  # noqa: B018


class Wrong(nn.Layer):
    """Returns a buffer of the wrong width."""

    def forward(self, step, x):
        out = step.buffer(x.shape[1] + 1)
        step.record("activation_forward", z=x, activation="relu", alpha=0.0, out=out)
        return out, None

    def backward(self, step, saved, upstream, need_input_gradient):
        return upstream


class Unknown(Wrong):
    def forward(self, step, x):
        step.record("from_host", x)


def test_a_layer_that_records_a_wrong_shape_is_refused_before_anything_runs(backend):
    x, y = images()
    for layer, error, message in (
        (Wrong(), InvalidInputError, "activation_forward: out must be"),
        (Unknown(), UnknownNameError, "from_host"),
    ):
        net = nn.Network([nn.Dense(6), layer, nn.Dense(4)], 12, backend=backend)
        before = net.get_weights()
        with pytest.raises(error, match=message):
            net.fit(x, y, loss="softmax_cross_entropy", epochs=1, verbose=False)
        assert all((before[name] == value).all() for name, value in net.get_weights().items())


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_complete(name):
    """What a new operation needs beside its declaration: the names of the missing parts are the message."""
    from nnbackend.backends.cupy.backend import CupyBackend
    from nnbackend.backends.numba.compiled import KINDS
    from nnbackend.testing import CASES
    from tests.backends.cupy import cases, table_cases

    compiled = {operation for kind in KINDS.values() for operation in kind.operations} | {"advance"}
    called = f'"{name}"'
    conformance = "".join(map(inspect.getsource, {inspect.getmodule(case) for case in CASES.values()}))

    def has(backend):
        default = getattr(ImageOperations, name, None)
        return name not in backend.__abstractmethods__ and getattr(backend, name) is not default

    parts = {
        "a method of NumpyBackend": has(NumpyBackend),
        "a method of CupyBackend": has(CupyBackend),
        "a compiled function for Numba": name in compiled,
        "a case in nnbackend/testing": called in conformance or name == "advance",
        "a case in tests/backends/cupy/cases.py": called in inspect.getsource(cases) + inspect.getsource(table_cases),
    }
    assert [part for part, present in parts.items() if not present] == []
