"""What the estimators keep and copy: rows are read where they are, sparse ones batch by batch."""

from __future__ import annotations

import gc
import pickle
import tracemalloc

import numpy as np
import pytest
import scipy.sparse

import nnbackend as nn
from nnbackend.interop.sklearn.run import BatchSteps
from tests.interop.estimators import LENGTHS, X, Y, both, make, same_weights

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ROWS = np.random.default_rng(0).normal(size=(10_000, 60))
CLASSES = (ROWS[:, 0] > 0).astype(int)
SPARSE = scipy.sparse.csr_matrix(np.where(np.abs(X) > 0.5, X, 0))


def memory(function):
    """The bytes that a call keeps, and the most that it needed."""
    gc.collect()
    tracemalloc.start()
    try:
        result = function()
        gc.collect()
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del result
    return kept, peak


@both
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_fit_does_not_copy_its_rows(estimator, backend):
    options = {"max_iter": 1, "backend": backend}
    make(estimator, **options).fit(ROWS[:500], CLASSES[:500])
    before = ROWS.copy()
    kept, peak = memory(lambda: make(estimator, **options).fit(ROWS, CLASSES))
    assert kept < ROWS.nbytes / 10
    assert peak < ROWS.nbytes / 2
    assert np.array_equal(ROWS, before)


@pytest.mark.parametrize("rows", [ROWS, ROWS.astype(np.float32)], ids=["float64", "float32"])
def test_a_network_does_not_copy_its_rows(rows):
    def train():
        net = nn.Network([nn.Dense(2)], 60, backend="numpy", dtype=rows.dtype)
        net.fit(rows, CLASSES, epochs=1, loss="softmax_cross_entropy", verbose=False)
        return net

    kept, peak = memory(train)
    assert kept < rows.nbytes / 10
    assert peak < rows.nbytes / 2


@both
def test_partial_fit_keeps_none_of_its_rows(estimator):
    model = make(estimator)
    options = {"classes": [0, 1]} if estimator is nn.MLPClassifier else {}
    model.partial_fit(ROWS[:500], CLASSES[:500], **options)
    kept, peak = memory(lambda: model.partial_fit(ROWS, CLASSES))
    assert kept < ROWS.nbytes / 50
    assert peak < ROWS.nbytes / 4


def test_chunks_of_changing_sizes_are_recorded_once(monkeypatch):
    sizes, record = [], BatchSteps._record

    def recorded(self, piece, *arguments):
        sizes.append(piece.rows)
        return record(self, piece, *arguments)

    monkeypatch.setattr(BatchSteps, "_record", recorded)
    chunks = (900, 250, 431, 250, 900, 30, 650, 230, 431)
    model = make()
    for chunk in chunks:
        model.partial_fit(ROWS[:chunk], CLASSES[:chunk], classes=[0, 1])
    # Full batches of 200, and what is left of each chunk.
    assert sorted(sizes) == [30, 31, 50, 100, 200]
    for chunk in chunks:
        model.partial_fit(ROWS[:chunk], CLASSES[:chunk])
    assert len(sizes) == 5
    # Weighted rows need a step of their own, and so do other penalties.
    model.partial_fit(ROWS[:200], CLASSES[:200], np.ones(200))
    model.set_params(alpha=1.0).partial_fit(ROWS[:200], CLASSES[:200])
    assert len(sizes) == 7


@pytest.mark.filterwarnings("ignore:batch_size=1000 is more than")
def test_growing_chunks_are_rarely_recorded_again():
    model, seen = make(batch_size=1000), set()
    for chunk in range(100, 1000, 10):
        model.partial_fit(ROWS[:chunk], CLASSES[:chunk], classes=[0, 1])
        seen.add(model._engine._run.capacity)
    assert len(seen) <= 5


def test_many_sizes_are_not_all_kept(monkeypatch):
    monkeypatch.setattr("nnbackend.interop.sklearn.run._KEPT", 3)
    model = make()
    for chunk in range(10, 30):
        model.partial_fit(ROWS[:chunk], CLASSES[:chunk], classes=[0, 1])
    assert len(model._engine._run._recorded) == 3


def test_chunks_of_changing_sizes_have_the_bits_of_single_calls():
    """Each call alone, with a new recording."""
    alone, together = make(dropout=0.3), make(dropout=0.3)
    for begin, end in ((0, 40), (40, 150), (0, 7), (10, 50), (0, 150)):
        for model in (alone, together):
            weights = np.linspace(1, 2, end - begin) if begin == 10 else None
            model.partial_fit(X[begin:end], Y[begin:end], weights, classes=[0, 1, 2])
        alone = pickle.loads(pickle.dumps(alone))
        assert same_weights(alone, together)


class TestSparseRows:
    @pytest.fixture(autouse=True, params=[0, 1 << 20], ids=["by batch", "small"])
    def small(self, request, monkeypatch):
        """The most bytes of a dense matrix that are small."""
        monkeypatch.setattr("nnbackend.interop.sklearn.data._SMALL", request.param)

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"early_stopping": True},
            {"dtype": "float32", "solver": "sgd", "batch_size": 64},
            {"dropout": 0.2, "warm_start": True},
            {"class_weight": {0: 3}, "learning_rate_init": 0.01},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.csc_matrix, scipy.sparse.csr_array])
    def test_they_train_as_dense_ones_do(self, options, kind):
        one, other = make(**options), make(**options)
        for _ in range(2):
            one.fit(kind(SPARSE), Y)
            other.fit(SPARSE.toarray(), Y)
            assert same_weights(one, other)
            assert one.loss_curve_ == other.loss_curve_
        np.testing.assert_array_equal(one.predict(kind(SPARSE)), other.predict(SPARSE.toarray()))

    def test_on_every_backend(self, backend):
        one, other = make(backend=backend, max_iter=2), make(backend=backend, max_iter=2)
        one.fit(SPARSE, Y).partial_fit(SPARSE[:40], Y[:40])
        other.fit(SPARSE.toarray(), Y).partial_fit(SPARSE[:40].toarray(), Y[:40])
        assert same_weights(one, other)

    @pytest.mark.slow
    @both
    def test_the_whole_is_never_dense(self, estimator, monkeypatch):
        monkeypatch.setattr("nnbackend.interop.sklearn.engine._SLICE", 200)
        rows = scipy.sparse.random(3000, 4000, density=0.001, format="csr", random_state=0)
        y = np.asarray(rows.sum(axis=1)).ravel()
        y = (y > np.median(y)).astype(int)
        dense = 3000 * 4000 * 8
        model = make(estimator, max_iter=1, early_stopping=True, hidden_layer_sizes=2)
        for call in (model.fit, model.score):
            _, peak = memory(lambda call=call: call(rows, y))
            assert peak < dense / 2.5
        model.set_params(early_stopping=False)
        kept, peak = memory(lambda: model.partial_fit(rows, y))
        assert peak < dense / 4
        assert kept < dense / 4

    def test_values_beyond_the_range_of_a_fitted_network(self):
        model = make(nn.MLPRegressor, dtype="float32").partial_fit(SPARSE, LENGTHS)
        model.set_params(dtype="float64")
        with pytest.raises(nn.errors.InvalidInputError, match="beyond the range of float32"):
            model.partial_fit(SPARSE * 1e300, LENGTHS)
        model.partial_fit(SPARSE * 0, LENGTHS)


def test_damaged_sparse_matrices_are_refused():
    damaged = SPARSE.copy()
    damaged.indices[0] = damaged.shape[1] + 3
    model = make()
    with pytest.raises(ValueError, match="damaged sparse matrix"):
        model.fit(damaged, Y)
    model.fit(SPARSE, Y)
    with pytest.raises(ValueError, match="damaged sparse matrix"):
        model.predict(damaged)
