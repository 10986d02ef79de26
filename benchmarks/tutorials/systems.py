"""The rows of the table for each system: its results, and the work that is timed on both sides."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import nnbackend as nn
from benchmarks.tutorials import (
    circle,
    deep_net,
    network3,
    neural_net,
    numpy_layers,
    one_net,
    pure_python,
    svm_regression,
    three_net,
    two_net,
    two_two_one,
)
from nnbackend.cli.examples import folder

__all__ = ["SYSTEMS", "Figure", "System", "Work", "example", "options_for"]

#: Seconds of one run.
Timer = Callable[[], float]


def percent(share: float) -> str:
    """98.5 % of 0.985, with two decimals."""
    return f"{100 * share:.2f} %"


@dataclass(frozen=True)
class Figure:
    """One row of the table.

    Attributes
    ----------
    what : str
    tutorial : str
        The tutorial's result.
    value : callable
        Extracts the number from the results of the example.
    form : callable
        Formats the number.
    """

    what: str
    tutorial: str
    value: Callable[[Mapping[str, Any]], float]
    form: Callable[[float], str] = percent

    def value_of(self, figures: Mapping[str, Any]) -> float | None:
        """The number, or None if a run of an earlier version of the example lacks it."""
        try:
            return self.value(figures)
        except KeyError:
            return None


@dataclass(frozen=True)
class Work:
    """The same work on both sides.

    Attributes
    ----------
    what : str
    tutorial : callable
        Seconds of the tutorial's own algorithm.
    ours : callable
        Seconds of our example with its options.
    """

    what: str
    tutorial: Timer
    ours: Callable[[Any], float]


@dataclass(frozen=True)
class System:
    """A system of the tutorials; `seeds` says whether it is run with several."""

    number: str
    name: str
    figures: tuple[Figure, ...]
    work: Work | None = None
    seeds: bool = True


def example(name: str) -> Any:
    """The module of an example."""
    path = str(folder())
    if path not in sys.path:
        sys.path.insert(0, path)
    return importlib.import_module(name)


def options_for(backend: str, seed: int) -> Any:
    """The options of the example, without pictures."""
    return example("tools").Options(backend=backend, seed=seed)


def _seconds(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _circle_steps() -> float:
    """The tutorial's rounds end at the first good batch, so a session has between five and two hundred steps."""
    results = [circle.train(seed) for seed in range(8)]
    return 100 * sum(result.seconds for result in results) / sum(result.figures["steps"] for result in results)


def _our_circle_steps(options: Any) -> float:
    session = example("circle").Session(options)
    return _seconds(lambda: session.train(100 * example("circle").BATCH))


def _gate(options: Any) -> float:
    # A tenth of the steps; the time does not depend on the learning rate.
    data = nn.datasets.load("and")
    return _seconds(lambda: example("logic_gates").train(nn.Dense(1, l2=1e-3), data, options, 10))


def _of_run(name: str) -> Callable[[Any], float]:
    """The training time that an example reports."""
    return lambda options: float(example(name).run(options)["seconds"])


def _mnist(name: str, *arguments: Any) -> Callable[[Any], float]:
    """One epoch including the evaluation on the test set, which is not included for the tutorials."""

    def seconds(options: Any) -> float:
        data = nn.datasets.load("mnist")
        return _seconds(lambda: example(name).train(*arguments, data, options, epochs=1))

    return seconds


def _on_few_images(options: Any) -> float:
    data = nn.datasets.load("mnist")
    few = replace(data, x_train=data.x_train[:5_000], y_train=data.y_train[:5_000])
    return _seconds(example("mnist_classical").networks(few, options)["784-200-80-10"])


def _our_network3(options: Any) -> float:
    """One epoch including the costs and accuracies after it."""
    data = nn.datasets.load("mnist-5k")
    return _seconds(lambda: example("network3").train(data, options, epochs=1))


def _share(name: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda figures: float(figures[name])


def _with_its_formula() -> list[Figure]:
    """The first weight and the bias of each gate, with the tutorial's penalty."""
    told = {"and": ("3.586", "-5.699"), "or": ("4.636", "-1.876"), "not": ("-6.790", "3.263")}
    figures = []
    for gate, (weight, bias) in told.items():
        name = f"{gate}, tutorial's formula"
        of_weight = lambda run, name=name: float(run[name][0][0])  # noqa: E731
        of_bias = lambda run, name=name: float(run[name][1])  # noqa: E731
        figures.append(Figure(f"{gate.upper()}: weight, its formula", weight, of_weight, "{:.3f}".format))
        figures.append(Figure(f"{gate.upper()}: bias, its formula", bias, of_bias, "{:.3f}".format))
    return figures


SYSTEMS = (
    System(
        "S1",
        "circle",
        (Figure("of 10,000 fresh points", "near 90 %", _share("accuracy")),),
        Work("100 steps, each tried out", _circle_steps, _our_circle_steps),
    ),
    System(
        "S2",
        "logic_gates",
        (Figure("rows right", "10 of 10", _share("right"), "{:.0f} of 10".format), *_with_its_formula()),
        Work("20,000 steps of AND", lambda: one_net.train(0, epochs=20_000).seconds, _gate),
    ),
    System(
        "S3",
        "xor",
        (Figure("training accuracy", "100 %", _share("accuracy")),),
        Work("10,000 steps", lambda: two_net.train(0).seconds, _of_run("xor")),
    ),
    System(
        "S4",
        "iris",
        (
            Figure("train", "98.33 %", _share("network train")),
            Figure("test", "100 %", _share("network test")),
            Figure("test, softmax regression", "96.67 %", _share("softmax regression test")),
        ),
        Work("10,000 steps", lambda: three_net.train(0).seconds, _of_run("iris")),
    ),
    System(
        "S5",
        "mnist_relu",
        (
            Figure("test", "97.92 %", _share("network test")),
            Figure("test, softmax regression", "92.15 %", _share("softmax regression test")),
        ),
        Work("an epoch", lambda: three_net.train_mnist(0, epochs=1).seconds, _mnist("mnist_relu", (200, 80), 1e-3)),
    ),
    System(
        "S6",
        "neurons",
        (Figure("points right", "10 of 10", _share("right"), "{:.0f} of 10".format),),
        Work("40 epochs", lambda: pure_python.train(0).seconds, _of_run("neurons")),
    ),
    System(
        "S7",
        "matrices",
        (
            Figure("points right", "10 of 10", _share("points right"), "{:.0f} of 10".format),
            Figure("XOR right, 100 epochs", "not said", _share("xor right after 100 epochs"), "{:.0f} of 4".format),
            Figure("XOR right, 5,000 epochs", "-", _share("xor right"), "{:.0f} of 4".format),
        ),
        Work("40 epochs", lambda: numpy_layers.train(0).seconds, _of_run("matrices")),
    ),
    System(
        "S8",
        "mnist_sigmoid",
        (
            Figure("test, batches of 100", "not said", _share("batch 100")),
            Figure("test, batches of 10", "-", _share("batch 10")),
        ),
        Work("an epoch, batches of 100", lambda: neural_net.train(0, epochs=1).seconds, _mnist("mnist_sigmoid", 100)),
    ),
    System(
        "S9",
        "mnist_adam",
        (
            Figure("test, weights from N(0, 1)", "not said", _share("N(0, 1)")),
            Figure("test, He's weights", "-", _share("He")),
        ),
        Work("an epoch", lambda: deep_net.train(0, epochs=1, held_out=0).seconds, _mnist("mnist_adam", None)),
    ),
    System(
        "S10",
        "mnist_classical",
        (
            Figure("SVM regression, rounded", "40.23 %", lambda table: _starting(table, "SVM regression")),
            Figure("RBF SVM", "-", lambda table: table["RBF SVM"]["accuracy"]),
            Figure("our 784-500-300-10", "-", lambda table: table["ours: 784-500-300-10"]["accuracy"]),
        ),
        # Training alone; the regression's predictions take several times as long again.
        Work(
            "5,000 images: its regression, our 784-200-80-10",
            lambda: svm_regression.train(0, test_images=1).seconds,
            _on_few_images,
        ),
        seeds=False,
    ),
    System(
        "S11",
        "first_neuron",
        (
            Figure("one neuron", "0.9990889488055994", _share("neuron"), repr),
            Figure("three neurons", "0.7216325609518421", _share("network"), repr),
            Figure("mean squared error", "0.5", _share("error"), repr),
        ),
        seeds=False,
    ),
    System(
        "S12",
        "people",
        (
            Figure("last loss", "0.002", _share("loss"), "{:.4f}".format),
            Figure("people right", "-", _share("right"), "{:.0f} of 4".format),
        ),
        Work("1,000 epochs", lambda: two_two_one.train(0).seconds, _of_run("people")),
    ),
    System(
        "S13",
        "network3",
        (
            Figure("4,000 images: test, max pooling", "not said", _share("max pooling")),
            Figure('L2 pooling, "same" padding', "not said", _share("L2 pooling, same padding")),
            Figure("L2 pooling, a fifth of the rate", "-", _share("L2 pooling, a fifth of the rate")),
            Figure("frozen kernels", "-", _share("frozen kernels")),
            Figure("at best: Adam, falling rate", "-", _share("at best")),
            Figure("at best, L2 pooling", "-", _share("at best, L2 pooling")),
        ),
        Work("an epoch of 4,000 images", lambda: network3.train(0, epochs=1).seconds, _our_network3),
    ),
)


def _starting(table: Mapping[str, Any], start: str) -> float:
    return float(next(row["accuracy"] for name, row in table.items() if name.startswith(start)))
