"""Compare MLPClassifier and MLPRegressor with scikit-learn's, on ten data sets that scikit-learn includes or generates.

    python -m pip install -e ".[sklearn]" && python -m benchmarks.sklearn
    python -m benchmarks.sklearn --contenders numba --dtype float32
    python -m benchmarks.sklearn table                  # print the stored results
    python -m benchmarks.sklearn --quick                # test that it runs; the results are meaningless

Both have the same parameters and the same `random_state`, and therefore take the same steps: in float64, a contender is
timed only if its losses agree with scikit-learn's. Each contender runs in its own process on the same cores, in
alternating rounds, so that disturbances affect all alike.
"""
