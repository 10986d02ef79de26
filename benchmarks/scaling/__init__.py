"""Measure how training on several ranks scales on this machine's cores, and predict it for more ranks.

``python -m benchmarks.scaling`` measures one rank and one rank per core, prints a table, and stores the result in
``benchmarks/results/scaling``. ``python -m benchmarks.scaling model`` prints the predictions of a model for 8 to 4,096
ranks, and compares the model with the measurements. ``python -m benchmarks.scaling page`` updates docs/scaling.md and
its pictures. ``--quick`` only tests that it runs and stores nothing.
"""
