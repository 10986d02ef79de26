"""How training on several ranks scales: measured on this machine's cores, and predicted for more.

``python -m benchmarks.scaling`` measures one rank and as many as there are cores, each on a core of its own, prints a
table, and keeps the result in ``benchmarks/results/scaling``. ``python -m benchmarks.scaling model`` prints what a
model makes of it for 8 to 4,096 ranks, and how well it says again what was measured; ``python -m benchmarks.scaling
page`` puts both into docs/scaling.md, with pictures. ``--quick`` only shows that it runs; its figures are not kept.
"""
