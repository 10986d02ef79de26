"""The lines of a program: records, memory, splits and order.

The order is compared with a simple definition that compares all pairs of lines.
"""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.backends.contract import OPERATIONS, Call
from nnbackend.backends.numba import NumbaBackend, compiled, program
from nnbackend.backends.numba import schedule as scheduling
from nnbackend.backends.numba.activations import ACTIVATION_CODES, ELEMENTWISE
from nnbackend.backends.numba.lines import Addresses, Split, UpdateLine, is_cut, uses_of
from nnbackend.backends.numba.records import INTEGER, REAL, Record, at
from nnbackend.testing import check_backend
from tests.helpers import images

# ---- records ---------------------------------------------------------------------------------------------------------


def test_every_operation_has_a_compiled_function():
    """The epoch function advances the counter."""
    missing = set(OPERATIONS) - {"advance"} - {name for kind in compiled.KINDS.values() for name in kind.operations}
    assert not missing, f"write compiled functions for these, see compiled.py: {missing}"


def test_every_activation_has_its_formulas():
    assert set(ACTIVATION_CODES) == set(ACTIVATIONS), "declare the missing ones in activations.py"
    assert set(ACTIVATIONS) - set(ELEMENTWISE) == {"softmax"}


@pytest.mark.parametrize("kind", compiled.KINDS.values(), ids=compiled.KINDS)
def test_a_record_has_what_the_declaration_has(kind):
    fields = dict(kind.record.fields)
    assert len(fields) == len(kind.record.fields)
    if kind.name == "update_parameters":
        return
    (operation,) = kind.operations
    assert set(OPERATIONS[operation].arguments) - {"counter"} <= set(fields)
    assert set(kind.values) <= set(fields)


def test_python_and_jitted_code_read_the_same_fields():
    from nnbackend.backends.numba.jit import jit

    record = Record.of("two", number=INTEGER, factor=REAL, other=INTEGER)

    @jit
    def product(address):
        r = at(record, address)
        return r.number * r.factor, r.other

    memory = np.zeros(record.size, np.uint8)
    record.pack(memory, 0, {"other": 2**60 + 1, "number": -3, "factor": 0.5, "more": None})
    assert product(memory.ctypes.data) == (-1.5, 2**60 + 1)
    values = memory.view(record.dtype)[0]
    assert (values["number"], values["factor"], values["other"]) == (-3, 0.5, 2**60 + 1)


def test_an_unknown_field_does_not_compile():
    from numba.core.errors import TypingError

    from nnbackend.backends.numba.jit import jit

    record = Record.of("one", number=INTEGER)
    with pytest.raises(TypingError, match="nmuber"):
        jit(lambda address: at(record, address).nmuber)(0)


# ---- splits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [False, True])
def test_lines_are_split_as_their_declarations_allow(columns, monkeypatch):
    """Calls of all operations, from the conformance suite and from networks."""
    if columns:
        monkeypatch.setattr(program, "_WORTH_COLUMNS", [(10**9, 0)])
        monkeypatch.setattr(program, "_MANY_COLUMNS", 1)
    seen = set()
    original = program.schedule

    def noted(lines, needed):
        for line in lines:
            declared = OPERATIONS[line.call.operation].splits
            assert line.split.unit in (declared or ("none",)), line.call
            seen.add((line.call.operation, line.split.unit))
        return original(lines, needed)

    monkeypatch.setattr(program, "schedule", noted)
    from tests.backends.steps import ThroughTheTable

    # The dtype has no influence.
    check_backend(ThroughTheTable(threads=2), dtypes=["float32"])
    for activation in ("relu", "softmax"):
        recorded([nn.Dense(8, activation=activation), nn.Dense(4)], nn.SGD())
    assert {operation for operation, _ in seen} == set(OPERATIONS) - {"advance"}
    by_columns = {operation for operation, unit in seen if unit == "columns"}
    assert by_columns == ({name for name in OPERATIONS if "columns" in OPERATIONS[name].splits} if columns else set())


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "advance"])
def test_outputs_of_operations_are_split(operation):
    """Threads that continue with their own share rely on this."""
    declared = OPERATIONS[operation]
    for unit in set(declared.splits) - {"parts"}:
        for name in uses_of(operation).written:
            assert is_cut(operation, declared.arguments[name], unit), (name, unit)


def test_weights_are_cut_by_columns_only_along_their_columns():
    """The columns of a layer's input gradient are the rows of its weights."""
    assert "weight" not in uses_of("dense_forward").elsewhere["columns"]
    assert "weight" in uses_of("dense_input_gradient").elsewhere["columns"]
    assert "delta" in uses_of("dense_input_gradient").elsewhere["columns"]


@pytest.mark.parametrize(
    ("one", "other", "waits"),
    [
        (Split("rows", 5), Split("rows", 5), False),
        # Two threads cut 45 positions of five rows inside of row 2.
        (Split("positions", 45), Split("rows", 5), True),
        (Split("positions", 45), Split("rows", 45), True),
        (Split("positions", 45), Split("positions", 45), False),
        (Split("positions", 45), Split("positions", 5), True),
        (Split("rows", 5), Split("rows", 4), True),
        (Split("columns", 5), Split("rows", 5), True),
        (Split("parts", 5), Split("parts", 5), True),
        (Split("none"), Split("none"), False),
        (Split("none"), Split("rows", 1), True),
    ],
)
def test_threads_continue_with_their_own_share_only_if_unit_and_count_are_the_same(one, other, waits):
    a, b, c = (np.zeros((5, 3)) for _ in range(3))
    calls = [Call.of("activation_forward", a, "relu", 0.0, b), Call.of("activation_forward", b, "relu", 0.0, c)]
    addresses = Addresses()
    lines = [line for call in calls for line in program.lines_of(call, program.parts_of(call), addresses)]
    lines[0].split, lines[1].split = one, other
    assert [line.wait for line in scheduling.schedule(lines)] == [True, waits]


# ---- the order, by comparing all pairs -------------------------------------------------------------------------------


def overlap(some, others):
    return any(a < d and c < b for a, b in some for c, d in others)


def depends(line, other):
    return overlap(line.written(), other.touched()) or overlap(line.touched(), other.written())


def must_wait(line, other):
    if line.split != other.split or line.split.unit == "parts":
        return depends(line, other)
    return overlap(line.elsewhere(), other.written()) or overlap(line.written(), other.elsewhere())


def fused(lines):
    """The lines that update, and the remaining gradients."""
    updates = [line for line in lines if isinstance(line, UpdateLine)]
    if len(updates) != 1:
        return [], None
    (last,) = updates
    update, chosen, done = last.update, [], []
    first = first_after(lines, last)
    for place, line in enumerate(lines[:first]):
        if not line.kind.updates or line is last or not update.covers(line.result):
            continue
        others = [other for other in lines if other is not line and other is not last]
        later = [other for other in lines[place + 1 : first] if other is not last]
        if any(overlap([line.result], other.touched()) for other in others):
            continue
        if any(overlap(update.parts(line.result), other.touched()) for other in later):
            continue
        chosen.append(place)
        done.append(line.result)
    return chosen, update.without(done)


def first_after(lines, last):
    """The place of the first line that depends on the update before it."""
    after = range(lines.index(last) + 1, len(lines))
    return next((place for place in after if depends(lines[place], last)), len(lines))


def by_pairs(lines):
    """Names, splits and waits in order."""
    chosen, rest = fused(lines)
    lines = list(lines)
    if rest is not None:
        (last,) = (line for line in lines if isinstance(line, UpdateLine))
        for place in chosen:
            lines[place].update = last.update
        first = first_after(lines, last)
        lines[first:first] = [scheduling.replace(last, gradients=part) for part in rest]
        lines.remove(last)
    ordered = []
    for line in lines:
        place = len(ordered)
        if not line.late:
            while place and ordered[place - 1].late and not depends(line, ordered[place - 1]):
                place -= 1
        ordered.insert(place, line)
    since = []
    for number, line in enumerate(ordered):
        line.wait = number == 0 or any(must_wait(line, other) for other in since)
        since = [line] if line.wait else [*since, line]
    return [described(line) for line in ordered]


def described(line):
    return line.kind.name, line.result, line.split, line.wait, line.update is not None, tuple(line.written())


def assert_same_order(calls, threads=2):
    def lines():
        addresses = Addresses()
        made = [
            line
            for call in calls
            if call.operation != "advance"
            for line in program.lines_of(call, program.parts_of(call), addresses)
        ]
        program._split_columns(made, threads)
        return made

    assert [described(line) for line in scheduling.schedule(lines())] == by_pairs(lines())


def recorded(layers, optimizer=None, **options):
    """The calls of a training step."""
    steps = []
    with pytest.MonkeyPatch.context() as patch:
        original = NumbaBackend.executor
        patch.setattr(NumbaBackend, "executor", lambda self, calls: steps.append(list(calls)) or original(self, calls))
        x, y = images(rows=32)
        net = nn.Network(layers, 12, backend=NumbaBackend(threads=2), **options)
        net.train_on_batch(x, y, loss="softmax_cross_entropy", optimizer=optimizer)
    return max(steps, key=len)


NETWORKS = {
    "plain": lambda: [nn.Dense(9, activation="relu"), nn.Dense(7, activation="gelu"), nn.Dense(4)],
    "penalties": lambda: [nn.Dense(9, activation="relu", l2=0.1), nn.Dense(9, l1=0.1), nn.Dense(4)],
    "square": lambda: [*(nn.Dense(12, activation="tanh") for _ in range(4)), nn.Dense(4)],
    "all": lambda: [
        nn.Dense(9, use_bias=False),
        nn.Dropout(0.2),
        nn.MaxAbsNorm(),
        nn.Activation("softmax"),
        nn.Dense(4),
    ],
}  # fmt: skip


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("optimizer", [nn.SGD, nn.Adam])
@pytest.mark.parametrize("layers", NETWORKS.values(), ids=NETWORKS)
def test_the_order_of_networks_is_that_of_the_pairs(layers, optimizer, columns, monkeypatch):
    if columns:
        monkeypatch.setattr(program, "_WORTH_COLUMNS", [(10**9, 0)])
        monkeypatch.setattr(program, "_MANY_COLUMNS", 1)
    assert_same_order(recorded(layers(), optimizer()))


@pytest.mark.parametrize("seed", range(40))
def test_the_order_of_any_program_is_that_of_the_pairs(seed):
    """Calls on views of a few buffers that overlap in all possible ways."""
    rng = np.random.default_rng(seed)
    buffers = rng.standard_normal((3, 64))
    parameters, gradients, velocity = np.zeros((3, 64))
    counter, rates = np.zeros(3, np.int64), np.ones(1)

    def window(rows, columns, buffer=None):
        begin = int(rng.integers(0, 64 - rows * columns + 1))
        chosen = buffers[rng.integers(3)] if buffer is None else buffer
        return chosen[begin : begin + rows * columns].reshape(rows, columns)

    def call():
        rows, columns, inner = (int(number) for number in rng.integers(1, 4, 3))
        kind = rng.integers(6)
        where = [None, None, gradients, parameters][rng.integers(4)]
        if kind == 0:
            return Call.of("activation_forward", window(rows, columns), "relu", 0.0, window(rows, columns))
        if kind == 1:
            return Call.of("dense_input_gradient", window(rows, inner), window(columns, inner), window(rows, columns))
        if kind == 2:
            return Call.of("bias_gradient", window(rows, columns), window(1, columns, where)[0])
        if kind == 3:
            weight, gradient = window(rows, columns, parameters), window(rows, columns, gradients)
            return Call.of("weight_penalty", weight, 0.1, 0.1, gradient, buffers[0], int(rng.integers(60)))
        if kind == 4:
            source = window(rows, inner), window(inner, columns, parameters), None, "identity", 0.0, None
            return Call.of("dense_forward", *source, window(rows, columns))
        return Call.of(
            "dense_weight_gradient", window(inner, rows), window(inner, columns), window(rows, columns, where)
        )

    calls = [call() for _ in range(int(rng.integers(3, 25)))]
    update = Call.of("sgd_update", parameters, gradients, velocity, counter, rates, 0.9, False, 0.0)
    calls.insert(int(rng.integers(len(calls))) if seed % 3 == 0 else len(calls), update)
    assert_same_order(calls)


def test_the_time_to_compile_a_step_is_in_proportion_to_its_length(monkeypatch):
    """Measured in uses of sets of memory pieces, because seconds would depend on the machine."""
    read = []

    class Counted(scheduling._Use):
        def __getattribute__(self, name):
            read.append(name)
            return super().__getattribute__(name)

    monkeypatch.setattr(scheduling, "_Use", Counted)
    counted = []
    for depth in (20, 40):
        layers = [*(nn.Dense(8, activation="relu") for _ in range(depth)), nn.Dense(4)]
        calls = recorded(layers, nn.SGD(0.1, momentum=0.9))
        read.clear()
        program.compile_step(calls, 2)
        counted.append(len(read))
    assert counted[1] < 2.2 * counted[0]


def test_copies_of_images_with_padding_take_little_memory(monkeypatch):
    """Of few positions in large images, too: as many images as fill a panel with positions would take 69 MB."""
    sizes, original = [], program.compile_step

    def noted(*arguments, **options):
        compiled_step = original(*arguments, **options)
        sizes.append(compiled_step.scratch)
        return compiled_step

    monkeypatch.setattr("nnbackend.backends.numba.backend.compile_step", noted)
    x, y = np.random.default_rng(0).normal(size=(9, 32, 32, 64)).astype(np.float32), np.arange(9) % 2
    outputs = []
    for backend in ("numba", "numpy"):
        layers = [nn.Conv2D(8, 3, strides=32, padding=1), nn.Flatten(), nn.Dense(2)]
        network = nn.Network(layers, x.shape[1:], backend=backend, seed=0)
        network.fit(x, y, epochs=2, batch_size=5, loss="softmax_cross_entropy", optimizer=nn.SGD(0.01), verbose=False)
        outputs.append(network.predict(x))
    assert 0 < max(sizes) < 2 << 20
    np.testing.assert_allclose(*outputs, atol=1e-5)
