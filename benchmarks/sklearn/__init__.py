"""MLPClassifier and MLPRegressor beside scikit-learn's own, on ten data sets that scikit-learn ships or makes.

    python -m pip install -e ".[sklearn]" && python -m benchmarks.sklearn
    python -m benchmarks.sklearn --contenders numba --dtype float32
    python -m benchmarks.sklearn table                  # what was measured before, printed again
    python -m benchmarks.sklearn --quick                # see that it runs; the figures mean nothing

Both get the same parameters and the same `random_state`, and so take the same steps: in float64 none is timed before
its losses have been found to agree with scikit-learn's. Every contender has a process of its own with the same cores,
and the rounds go from one to the next, so that none has the quieter machine.
"""
