"""The algorithms of the five tutorials, with which the results table compares ours. There are no asv benchmarks here.

Each module reimplements one of the systems S1..S13 in the form of its tutorial: Python loops where the tutorial loops,
NumPy where it uses NumPy, and its errors where they affect the results or the speed. `examples/` has correct versions.
"""
