"""Many networks as one run, compared with one `fit` after another and with JAX and PyTorch.

    python -m benchmarks.many [--networks 32] [--rounds 3] [--quick]
    python -m benchmarks.many --simulate
    python -m benchmarks.many --large

JAX (`vmap` over the networks, `scan` over the steps) and PyTorch (`baddbmm`) are measured if they are installed. Their
networks must be equal, and have the same learning rate; ours may differ in everything. Each measurement runs in its own
process, in turn with the others, and the shortest time of all rounds counts. Ours includes the set-up of all networks,
JAX's and PyTorch's neither compilation nor the transfer of data.

`--simulate` says how many threads would be busy, from times that were measured on one. `--large` compares one thread
for each of several large networks with all threads for one after another.

    python -m benchmarks.many measure WHAT CASE NETWORKS STEPS

is one such process; it prints its results as JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

import nnbackend as nn
from benchmarks.many_threads import THREADS, Parts, most_threads, simulate

__all__ = ["CASES", "main", "measure", "report"]

#: Learning rate, and rows of the data in batches.
_RATE, _BATCHES = 0.1, 50

#: Networks whose set-up is measured, and whose memory is.
_SET_UPS, _MEMORY = 200, 1000


@dataclass(frozen=True)
class Case:
    """Equal networks, and the factor over the fastest other library that they shall reach."""

    sizes: tuple[int, ...]
    batch: int
    target: float

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and labels."""
        draw = np.random.default_rng(0)
        rows = self.batch * _BATCHES
        return draw.random((rows, self.sizes[0]), np.float32), draw.integers(0, self.sizes[-1], rows).astype(np.int32)

    def networks(self, count: int, threads: int) -> list[nn.Network]:
        """Networks with different seeds."""
        backend = nn.NumbaBackend(threads)
        return [
            nn.Network(
                [*(nn.Dense(size, activation="relu") for size in self.sizes[1:-1]), nn.Dense(self.sizes[-1])],
                self.sizes[0],
                backend=backend,
                seed=seed,
            )
            for seed in range(count)
        ]


CASES = {
    "784-40-10": Case((784, 40, 10), 100, 2.3),
    "20-64-64-2": Case((20, 64, 64, 2), 32, 3.3),
    "784-200-80-10": Case((784, 200, 80, 10), 256, 1.9),
}


#: Networks whose weights exceed a core's cache.
LARGE = {f"784-500-1000-300-10, batch {batch}": Case((784, 500, 1000, 300, 10), batch, 1.0) for batch in (100, 20)}
_LARGE_NETWORKS = 8


def ours(threads: int, together: bool) -> Callable[[Case, int, int], dict[str, float]]:
    """A measurement of `fit_many`, or of `fit` on one network after the other."""

    def run(case: Case, count: int, steps: int) -> dict[str, float]:
        x, y = case.data()
        options: dict[str, Any] = {"batch_size": case.batch, "loss": "softmax_cross_entropy", "verbose": False}
        # Loads the kernels.
        (first,) = case.networks(1, threads)
        first.fit(x, y, epochs=1, optimizer=nn.SGD(_RATE), **options)
        options["epochs"] = max(1, steps // _BATCHES)
        networks = case.networks(count, threads)
        begin, used = time.perf_counter(), time.thread_time()
        if together:
            histories = nn.fit_many(networks, x, y, optimizer=nn.SGD(_RATE), **options)
        else:
            histories = [network.fit(x, y, optimizer=nn.SGD(_RATE), **options) for network in networks]
        seconds, used = time.perf_counter() - begin, time.thread_time() - used
        steps = count * options["epochs"] * _BATCHES
        inside = sum(sum(history["seconds"]) for history in histories)
        return {"step": seconds / steps, "inside": inside / steps, "calling": used / steps}

    return run


def set_up(case: Case, count: int, steps: int) -> dict[str, float]:
    """The processor time of `fit_many` for each network on one thread, without that of the steps, which each take."""
    x, y = (array[: case.batch] for array in case.data())
    options: dict[str, Any] = {"batch_size": case.batch, "loss": "softmax_cross_entropy"}
    networks = case.networks(count, 1)
    nn.fit_many(networks[:9], x, y, epochs=1, optimizer=nn.SGD(_RATE), **options)
    used = []
    for epochs in (1, 2):
        begin = time.process_time()
        nn.fit_many(networks, x, y, epochs=epochs, optimizer=nn.SGD(_RATE), **options)
        used.append(time.process_time() - begin)
    return {"network": (2 * used[0] - used[1]) / count}


def parts(case: Case, count: int, steps: int) -> dict[str, float]:
    """The parts of a network's training on one thread: see :class:`benchmarks.many_threads.Parts`."""
    from nnbackend.backends.numba import executor
    from nnbackend.training.run import TrainingRun

    x, y = case.data()
    options: dict[str, Any] = {"batch_size": case.batch, "loss": "softmax_cross_entropy", "optimizer": nn.SGD(_RATE)}
    epochs = max(1, steps // _BATCHES)
    case.networks(1, 1)[0].fit(x, y, epochs=1, **options)
    networks = case.networks(count, 1)
    with _timed(executor, "_run") as compiled, _timed(TrainingRun, "epoch") as epoch:
        begin = time.process_time()
        nn.fit_many(networks, x, y, epochs=epochs, **options)
        used = time.process_time() - begin
    prepare, calls = set_up(case, count, steps)["network"], count * epochs
    return {
        "compiled": sum(compiled) / calls,
        "between": (sum(epoch) - sum(compiled)) / calls,
        "calling": max(0.0, (used - sum(epoch) - prepare * count) / calls),
        "begin": prepare,
    }


@contextmanager
def _timed(owner: Any, name: str) -> Iterator[list[float]]:
    """A context in which the processor times of a function's calls are noted."""
    times: list[float] = []
    original = getattr(owner, name)

    def timed(*arguments: Any) -> Any:
        begin = time.thread_time()
        try:
            return original(*arguments)
        finally:
            times.append(time.thread_time() - begin)

    setattr(owner, name, timed)
    try:
        yield times
    finally:
        setattr(owner, name, original)


def memory(case: Case, count: int, steps: int) -> dict[str, float]:
    """Bytes that making and training many networks with Adam adds to a process that has trained one."""
    x, y = case.data()
    options: dict[str, Any] = {"batch_size": case.batch, "loss": "softmax_cross_entropy", "epochs": 1}
    case.networks(1, 2)[0].fit(x, y, **options)
    before = _peak()
    networks = case.networks(count, 2)
    nn.fit_many(networks, x, y, **options)
    return {"bytes": _peak() - before}


def _peak() -> float:
    size = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return size if sys.platform == "darwin" else size * 1024


def jax_vmap(case: Case, count: int, steps: int) -> dict[str, float]:
    """JAX: one program for all steps of all networks."""
    import jax
    import jax.numpy as jnp

    x, y = (jnp.asarray(array) for array in case.data())
    parameters = [tuple(jnp.asarray(array) for array in layer) for layer in _weights(case, count)]
    orders = jnp.asarray(_orders(case, count, steps))

    def loss(parameters: Any, rows: Any) -> Any:
        h = x[rows]
        for weight, bias in parameters[:-1]:
            h = jax.nn.relu(h @ weight + bias)
        weight, bias = parameters[-1]
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(h @ weight + bias), y[rows][:, None], axis=1))

    def train(parameters: Any, order: Any) -> Any:
        def step(parameters: Any, rows: Any) -> Any:
            value, gradients = jax.value_and_grad(loss)(parameters, rows)
            return jax.tree.map(lambda p, g: p - _RATE * g, parameters, gradients), value

        return jax.lax.scan(step, parameters, order)

    run = jax.jit(jax.vmap(train))
    jax.block_until_ready(run(parameters, orders))
    begin = time.perf_counter()
    jax.block_until_ready(run(parameters, orders))
    return {"step": (time.perf_counter() - begin) / (count * orders.shape[1])}


def torch_baddbmm(case: Case, count: int, steps: int) -> dict[str, float]:
    """PyTorch: the networks are a batch axis of every product."""
    import torch

    x, y = (torch.from_numpy(array) for array in case.data())
    y = y.long()
    layers = [(torch.from_numpy(w), torch.from_numpy(b)[:, None]) for w, b in _weights(case, count)]
    parameters = [part.requires_grad_() for layer in layers for part in layer]
    orders = torch.from_numpy(_orders(case, count, steps)).long()

    def epoch(some: Any) -> None:
        for rows in some.unbind(1):
            h = x[rows]
            for weight, bias in layers[:-1]:
                h = torch.relu(torch.baddbmm(bias, h, weight))
            weight, bias = layers[-1]
            z = torch.baddbmm(bias, h, weight)
            # The mean over the rows of each network, and the sum over the networks.
            loss = torch.nn.functional.cross_entropy(z.flatten(0, 1), y[rows].flatten(), reduction="sum") / case.batch
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.sub_(gradient, alpha=_RATE)

    epoch(orders[:, :5])
    begin = time.perf_counter()
    epoch(orders)
    return {"step": (time.perf_counter() - begin) / (count * orders.shape[1])}


def _weights(case: Case, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The initial weights of our networks, with an axis for the networks in front."""
    each = [network.get_weights() for network in case.networks(count, 1)]
    return [
        (
            np.stack([weights[f"layers.{place}.weight"] for weights in each]),
            np.stack([weights[f"layers.{place}.bias"] for weights in each]),
        )
        for place in range(len(case.sizes) - 1)
    ]


def _orders(case: Case, count: int, steps: int) -> np.ndarray:
    """The rows of every step: (networks, steps, batch)."""
    draw = np.random.default_rng(0)
    epochs = max(1, steps // _BATCHES)
    rows = case.batch * _BATCHES
    orders = np.stack([[draw.permutation(rows) for _ in range(epochs)] for _ in range(count)])
    return orders.reshape(count, epochs * _BATCHES, case.batch).astype(np.int32)


#: Measurements by name, and the module that each needs.
_WHAT: dict[str, tuple[Callable[[Case, int, int], dict[str, float]], str]] = {
    "fit": (ours(2, together=False), "numba"),
    "alone": (ours(1, together=False), "numba"),
    "one thread": (ours(1, together=True), "numba"),
    "fit_many": (ours(2, together=True), "numba"),
    "JAX": (jax_vmap, "jax"),
    "PyTorch": (torch_baddbmm, "torch"),
    "set-up": (set_up, "numba"),
    "memory": (memory, "numba"),
    "parts": (parts, "numba"),
}


def measure(what: str, case: str, networks: int, steps: int) -> dict[str, float]:
    """One measurement, in seconds or bytes, in its own process."""
    command = [sys.executable, "-m", "benchmarks.many", "measure", what, case, str(networks), str(steps)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_all(networks: int, rounds: int, quick: bool) -> dict[str, dict[str, dict[str, float]]]:
    """The results by case and measurement."""
    names = [name for name, (_, module) in _WHAT.items() if importlib.util.find_spec(module) and name != "parts"]
    found: dict[str, dict[str, dict[str, float]]] = {case: {} for case in CASES}
    for _ in range(1 if quick else rounds):
        for case in CASES:
            for name in names:
                count = {"set-up": _SET_UPS, "memory": _MEMORY}.get(name, networks)
                if name == "memory" and case != "784-40-10":
                    continue
                new = measure(name, case, 3 if quick else count, 50 if quick else 1000)
                old = found[case].get(name, new)
                found[case][name] = {key: min(value, old[key]) for key, value in new.items()}
                print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    return found


def report(found: dict[str, dict[str, dict[str, float]]], networks: int) -> str:
    """The results as tables."""
    lines = [
        f"microseconds per network and step, {networks} networks, two threads",
        f"{'net':<14} {'JAX':>6} {'PyTorch':>8} {'fit':>6} {'steps':>6} {'1 thread/2':>10} {'fit_many':>8} "
        f"{'x best peer':>11} {'target':>6} {'efficiency':>10} {'set-up':>8} {'scales to':>9}",
    ]
    for name, case in CASES.items():
        own = found[name]
        best = own["fit_many"]["step"]
        peers = [own[peer]["step"] for peer in ("JAX", "PyTorch") if peer in own]
        factor = f"{min(peers) / best:.2f}" if peers else "-"
        # The calling thread does the work between epochs for all threads.
        threads = own["one thread"]["step"] / max(own["fit_many"]["calling"], 1e-12)
        lines.append(
            f"{name:<14} {_micro(own, 'JAX'):>6} {_micro(own, 'PyTorch'):>8} {_micro(own, 'fit'):>6} "
            f"{_micro(own, 'fit', 'inside'):>6} {own['alone']['step'] * 5e5:>10.1f} {best * 1e6:>8.1f} {factor:>11} "
            f"{case.target:>6} {best / (own['alone']['step'] / 2):>10.2f} {own['set-up']['network'] * 1e3:>5.2f} ms "
            f"{threads:>9.0f}"
        )
    size = found["784-40-10"]["memory"]["bytes"]
    lines += [
        "efficiency: time on two threads over half the time of one network after another on one thread; target 1.08",
        "set-up: processor time per network, without its steps; target 0.5 ms",
        "scales to: the number of threads that the calling thread can supply with work",
        f"memory of {_MEMORY:,} networks 784-40-10 with Adam: {size / 1e6:,.0f} MB; target 1,000 MB",
    ]
    return "\n".join(lines)


def simulation(measured: dict[str, Parts], networks: int, epochs: int) -> str:
    """How much faster more threads would be, as a table."""
    lines = [
        f"a simulation, not a measurement: {networks} networks, {epochs} epochs of {_BATCHES} steps, times as measured "
        "on one thread",
        f"{'':<14} {'microseconds per epoch':^32} {'times as fast as one thread, on':^{7 * len(THREADS)}} "
        f"{'80 % busy':>10}",
        f"{'net':<14} {'compiled':>10} {'between':>10} {'calling':>10} "
        f"{''.join(f'{threads:>7}' for threads in THREADS)} {'up to':>10}",
    ]
    for name, each in measured.items():
        alone = each.alone(epochs) * networks
        gains = (alone / simulate(each, threads, networks, epochs) for threads in THREADS)
        lines.append(
            f"{name:<14} {each.compiled * 1e6:>10.0f} {each.between * 1e6:>10.0f} {each.calling * 1e6:>10.0f} "
            f"{''.join(f'{gain:>7.1f}' for gain in gains)} {most_threads(each, epochs):>10,}"
        )
    lines += [
        "compiled: steps, on as many threads as there are; between, calling: Python, on one thread at a time",
        "80 % busy up to: threads, with 16 networks for each",
        "an upper bound: caches, memory bandwidth and the clock rate, which threads share, are left out",
    ]
    return "\n".join(lines)


def compare_large(rounds: int, quick: bool) -> str:
    """One thread for each of several large networks, compared with all threads for one after another."""
    lines = [f"microseconds per network and step, {_LARGE_NETWORKS} networks, two threads"]
    for name in LARGE:
        times: dict[str, list[float]] = {"fit_many": [], "fit": []}
        for _ in range(1 if quick else rounds):
            for how, found in times.items():
                found.append(measure(how, name, 2 if quick else _LARGE_NETWORKS, 1 if quick else 100)["step"])
        each, turns = min(times["fit_many"]) * 1e6, min(times["fit"]) * 1e6
        lines.append(f"{name} one thread each {each:,.0f}, both in turn {turns:,.0f}: {turns / each:.2f} times as long")
    return "\n".join(lines)


def _micro(own: dict[str, dict[str, float]], name: str, key: str = "step") -> str:
    return f"{own[name][key] * 1e6:.1f}" if name in own else "-"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["measure"]:
        _, what, case, networks, steps = given
        print(json.dumps(_WHAT[what][0]({**CASES, **LARGE}[case], int(networks), int(steps))))
        return 0
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many", description=__doc__.split("\n")[0])
    parser.add_argument("--networks", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a test: few networks and steps, one round")
    parser.add_argument("--simulate", action="store_true", help="simulate more threads than this machine has")
    parser.add_argument("--large", action="store_true", help="compare one thread with all threads for large networks")
    options = parser.parse_args(given)
    if options.large:
        print(compare_large(options.rounds, options.quick))
        return 0
    if options.simulate:
        count, steps = (2, 50) if options.quick else (16, 1000)
        measured = {name: Parts(**measure("parts", name, count, steps)) for name in CASES}
        print(simulation(measured, options.networks, 20))
        return 0
    print(report(measure_all(options.networks, options.rounds, options.quick), options.networks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
