"""`fast99`: the training time to an accuracy of 99 % on MNIST's test images with a convolutional network.

    python -m benchmarks.peers.fast99 NAME THREADS SEED RECIPE

is a new process that trains once and prints JSON: "training", the seconds of the training without any test;
"processor", the processor time of all its threads; "warm_up", the seconds to compile; and the test "accuracy" at the
end.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import nnbackend as nn
from benchmarks.fast99 import PUBLISHED
from benchmarks.peers import results
from benchmarks.peers.cores import bind, environment
from benchmarks.peers.entries import Entry
from benchmarks.peers.markdown import NOTHING, markdown, ratio
from benchmarks.peers.rounds import say
from nnbackend.presets import PRESETS, Recipe

__all__ = ["RECIPES", "TARGET", "body", "main", "run"]

TARGET = 0.99
SEEDS = 5

#: Every library trains with both; its best one counts.
RECIPES = {"fast99": PRESETS["fast99"], "published": PUBLISHED}

#: Contenders that this measures.
_NAMES = ("numba", "torch")


def run(
    entries: Sequence[Entry],
    threads: int,
    keep: Callable[[dict[str, Any]], None],
    *,
    seeds: int | None = None,
    quick: bool = False,
) -> dict[str, Any]:
    """Train with several seeds in alternating rounds, each time in a new process.

    Parameters
    ----------
    entries : sequence of Entry
        Other entries than nnbackend's Numba backend and PyTorch are skipped.
    threads : int
    keep : callable
        Called with the results so far after every seed.
    seeds : int, optional
    quick : bool
        Only one seed, as a test.

    Returns
    -------
    dict
        The final results.

    Raises
    ------
    DataError
        MNIST is not on this machine; synthetic images cannot be learned.
    """
    nn.datasets.load("mnist", download=False)
    count = seeds or (1 if quick else SEEDS)
    chosen = [entry for entry in entries if entry.name in _NAMES]
    jobs = [(entry, recipe) for entry in chosen for recipe in RECIPES]
    recipes = {name: recipe.to_dict() for name, recipe in RECIPES.items()}
    result = results.header("fast99", threads, chosen) | {"quick": quick, "target": TARGET, "recipes": recipes}
    result["contenders"] = {_label(entry.label, recipe): [] for entry, recipe in jobs}
    # A warm-up run of each, which compiles kernels to the disk cache and loads files into memory.
    for seed in (*([] if quick else [None]), *range(count)):
        for entry, recipe in jobs:
            label = _label(entry.label, recipe)
            say(f"  {label}: {'warm-up run' if seed is None else f'seed {seed} of {count}'}")
            figures = _in_a_process(entry, threads, seed or 0, recipe)
            if seed is not None:
                result["contenders"][label].append({"seed": seed, **figures})
        if seed is not None:
            keep(result)
    return result


def _label(contender: str, recipe: str) -> str:
    return f"{contender}, {recipe}"


def _in_a_process(entry: Entry, threads: int, seed: int, recipe: str) -> dict[str, float]:
    arguments = [sys.executable, "-m", "benchmarks.peers.fast99", entry.name, str(threads), str(seed), recipe]
    done = subprocess.run(arguments, env=environment(threads), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


# ---- in the process of a contender ---------------------------------------------------------------------------------


def main() -> None:
    """Train once."""
    name, threads, seed, recipe = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    bind(threads)
    with contextlib.redirect_stdout(sys.stderr):
        data = nn.datasets.load("mnist", download=False)
        figures = {"numba": _train_ours, "torch": _train_pytorch}[name](RECIPES[recipe], data, threads, seed)
    print(json.dumps(figures))


def _figures(warm_up: Callable[[], None], train: Callable[[], None], test: Callable[[], float]) -> dict[str, float]:
    begin = time.perf_counter()
    warm_up()
    warm, processor = time.perf_counter(), time.process_time()
    train()
    seconds, processor = time.perf_counter() - warm, time.process_time() - processor
    return {"training": seconds, "processor": processor, "warm_up": warm - begin, "accuracy": test()}


def _network(recipe: Recipe, data: nn.datasets.Dataset, backend: str | nn.Backend, seed: int) -> nn.Network:
    return nn.Network(recipe.layers(len(data.classes), data.input_shape), data.input_shape, backend, seed=seed)


def _train_ours(recipe: Recipe, data: nn.datasets.Dataset, threads: int, seed: int) -> dict[str, float]:
    """Train with `Network.fit`, as in ordinary use."""
    backend = nn.NumbaBackend(threads)
    network = _network(recipe, data, backend, seed)

    def fit(trained: nn.Network, rows: int) -> None:
        trained.fit(
            data.x_train[:rows],
            data.y_train[:rows],
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            loss=recipe.loss,
            optimizer=recipe.make_optimizer(),
            verbose=False,
        )

    return _figures(
        lambda: fit(_network(recipe, data, backend, seed), 2 * recipe.batch_size),
        lambda: fit(network, len(data.x_train)),
        lambda: network.evaluate(data.x_test, data.y_test)["accuracy"],
    )


def _train_pytorch(recipe: Recipe, data: nn.datasets.Dataset, threads: int, seed: int) -> dict[str, float]:
    """Train in eager mode, with the fused optimiser, batches by `index_select` and images with the channels last, from
    the same initial weights."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    initial = _network(recipe, data, "numpy", seed)
    network = _pytorch_network(initial).to(memory_format=torch.channels_last)

    def there(x: Any) -> Any:
        images = torch.from_numpy(np.multiply(x, np.float32(1 / 255), dtype=np.float32).reshape(-1, 1, 28, 28))
        return images.contiguous(memory_format=torch.channels_last)

    x, y = there(data.x_train), torch.from_numpy(data.y_train.astype(np.int64))
    x_test, y_test = there(data.x_test), torch.from_numpy(data.y_test.astype(np.int64))

    def fit(trained: Any, rows: int) -> None:
        steps = -(-rows // recipe.batch_size)
        optimizer = torch.optim.Adam(
            trained.parameters(), lr=recipe.first_rate, betas=(recipe.beta1, recipe.beta2), fused=True
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.first_rate, total_steps=steps * recipe.epochs, cycle_momentum=recipe.cycle_momentum
        )
        left = steps * recipe.epochs
        for _ in range(recipe.epochs):
            for batch in torch.randperm(rows).split(recipe.batch_size):
                outputs = trained(x.index_select(0, batch))
                loss = torch.nn.functional.cross_entropy(outputs, y.index_select(0, batch))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                left -= 1
                if left:
                    schedule.step()

    def test() -> float:
        with torch.no_grad():
            correct = [(network(some).argmax(1) == theirs).sum().item() for some, theirs in zip(
                x_test.split(1000), y_test.split(1000), strict=True
            )]  # fmt: skip
        return float(sum(correct)) / len(y_test)

    warmed = _pytorch_network(initial).to(memory_format=torch.channels_last)
    return _figures(lambda: fit(warmed, 2 * recipe.batch_size), lambda: fit(network, len(y)), test)


def _pytorch_network(network: nn.Network) -> Any:
    """The same network for PyTorch, with the same weights, on images with their channels first."""
    import torch

    layers: list[Any] = []
    inputs: Any = network.input_shape
    for layer in network.layers:
        outputs = layer.output_shape(inputs)
        if isinstance(layer, nn.Conv2D):
            layers.append(torch.nn.Conv2d(inputs[2], layer.filters, layer.kernel_size, layer.window.strides))
        elif isinstance(layer, nn.MaxPool2D):
            layers.append(torch.nn.MaxPool2d(2))
        elif isinstance(layer, nn.Dense):
            layers.append(torch.nn.Linear(inputs[0], layer.units))
        elif isinstance(layer, nn.Flatten):
            layers.append(torch.nn.Flatten())
        elif not isinstance(layer, nn.Reshape):
            raise TypeError(f"a recipe with {layer!r} is not known here")
        if getattr(layer, "activation", "identity") == "relu":
            layers.append(torch.nn.ReLU())
        inputs = outputs
    module = torch.nn.Sequential(*layers)
    named = [str(place) for place, layer in enumerate(layers) if hasattr(layer, "weight")]
    module.load_state_dict(nn.interop.torch.state_dict(network, named))
    return module


# ---- the table -----------------------------------------------------------------------------------------------------


def body(result: Mapping[str, Any]) -> list[str]:
    """The table and an explanation of its columns."""
    rows: list[Sequence[str]] = [
        (
            "contender and recipe",
            "99 % reached by",
            "accuracy",
            "training",
            "processor",
            "warm-up",
            "training, relative",
        )
    ]
    measured = {label: runs for label, runs in result["contenders"].items() if runs}
    reaching = {label: _median(runs, "training") for label, runs in measured.items() if _reaches(runs, result)}
    fastest = min(reaching.values(), default=None)
    for label, runs in measured.items():
        reached = sum(run["accuracy"] >= result["target"] for run in runs)
        training = _median(runs, "training")
        relative = ratio(training / fastest) if fastest and label in reaching else NOTHING
        rows.append(
            (
                label,
                f"{reached} of {len(runs)}",
                f"{100 * _median(runs, 'accuracy'):.2f} %",
                f"{training:.2f} s",
                f"{_median(runs, 'processor'):.2f} s",
                f"{_median(runs, 'warm_up'):.2f} s",
                relative,
            )
        )
    note = (
        "Medians of the seeds. Relative to the fastest whose median accuracy is at least "
        f"{100 * result['target']:g} %. Training: all steps, with drawing the orders, without tests. Recipes: "
        + "; ".join(f"{name}: {_described(recipe)}" for name, recipe in result["recipes"].items())
        + "."
    )
    return [markdown(rows, right=range(1, 7)), note]


def _median(runs: Sequence[Mapping[str, float]], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def _reaches(runs: Sequence[Mapping[str, float]], result: Mapping[str, Any]) -> bool:
    return bool(_median(runs, "accuracy") >= result["target"])


def _described(recipe: Mapping[str, Any]) -> str:
    kernels = recipe["kernels"]
    strides = recipe["strides"] or [1] * len(kernels)
    windows = [
        f"{filters} kernels of {kernel} x {kernel}"
        + (f" with stride {stride}" if stride > 1 else " and a 2 x 2 max pool")
        for filters, kernel, stride in zip(recipe["filters"], kernels, strides, strict=True)
    ]
    units = ", ".join(f"{units} units" for units in recipe["hidden"])
    epochs = f"{recipe['epochs']} epoch{'s' if recipe['epochs'] > 1 else ''}"
    return (
        f"{', '.join(windows)}, {units}; Adam, betas {recipe['beta1']:g} and {recipe['beta2']:g}, one cycle up to "
        f"{recipe['learning_rate']:g}, {epochs} in batches of {recipe['batch_size']}"
    )


if __name__ == "__main__":
    main()
