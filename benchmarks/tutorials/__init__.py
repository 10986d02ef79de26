"""The five tutorials' own algorithms, for the results table to time ours against. asv finds no benchmark in here.

Each module is one of the systems S1..S12, written anew in the shape its tutorial gave it: a Python loop where the
tutorial loops, NumPy where it uses NumPy, and its mistakes where they change a figure or the speed. Do not learn from
the mistakes: `examples/` has every system done right.
"""
