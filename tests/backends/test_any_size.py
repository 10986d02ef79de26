"""Every operation of the contract on drawn shapes, on every backend, against float64 NumPy."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnbackend.testing import CASES, Lab
from nnbackend.testing.conformance import Shape
from tests.backends.test_conformance import DTYPES


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 40),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 40),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from(DTYPES),
    case=st.sampled_from(sorted(CASES)),
)
def test_operations_of_any_size(backend, rows, inputs, outputs, seed, dtype, case):
    CASES[case](Lab(backend, dtype, Shape(rows, inputs, outputs), seed))
