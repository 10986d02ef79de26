"""S1: a circle in the plane, learned from new points, keeping only steps that help.

Points are drawn from the square [-2, 2]^2 and classified as inside or outside the unit circle. A 2-100-200-100-2
network of ReLU layers learns this from batches of 30 points that it never sees again. After every hidden layer, each
row is divided by its largest magnitude, y = x / max|x|, so that activations cannot grow from layer to layer. A step is
undone if both the loss and the number of errors on its own batch increased. If hardly any step of a round helped, the
next round keeps all steps.

    loss      L = -mean log p(true class),  p = softmax(z)
    step      W <- W - rate * Adam's mean of dL/dW / root of its mean square
    rule      keep if L(new) <= L(old) or accuracy(new) >= accuracy(old)

Errors in the tutorial: it does not follow a gradient but "demands" (signs, passed back through the weights and divided
by their largest magnitude), divides the weights themselves by row, trains on every batch twice, ends a round at the
first batch with at most 3 of 30 wrong, and reads a global batch size. It ends near 90 %, while "always outside" would
reach 80 %. Here the network follows the gradient of the loss, and the learning rate falls from round to round.

With --interactive, you choose the initial network from pictures and enter the number of points to train on, as in the
tutorial; the answers may also be piped in.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np
import tools

import nnbackend as nn
from nnbackend import plotting

BATCH = 30
#: Points of each round; the first four are those of the tutorial's session.
ROUNDS = (2_500, 3_000, 3_000, 1_000, 30_000, 30_000, 30_000)
#: If a smaller share of a round's steps helped, the next round keeps all steps.
FORCE_BELOW = 0.05


class Session:
    """A network, its training points, and what is shown of it."""

    def __init__(self, options: tools.Options) -> None:
        self.options = options
        self.data = nn.datasets.load("circle", seed=options.seed)
        self.generator = np.random.default_rng([options.seed, 2])
        self.points_seen = 0
        self.keep_all = False
        self.pictures = 0
        self.network = self.start(options.seed)

    def start(self, seed: int) -> nn.Network:
        hidden: list[nn.Layer] = []
        for units in (100, 200, 100):
            hidden += [nn.Dense(units, activation="relu"), nn.MaxAbsNorm()]
        return nn.Network([*hidden, nn.Dense(2)], 2, backend=self.options.backend, seed=seed)

    def fresh_batch(self) -> tuple[np.ndarray, np.ndarray]:
        points = self.generator.uniform(-2, 2, (BATCH, 2))
        return points, (np.square(points).sum(axis=1) > 1).astype(int)

    def train(self, points: int) -> float:
        """Train for one round on `points` new points, and return the share of steps that helped."""
        network = self.network
        optimizer = nn.Adam(3e-3 / (1 + self.points_seen / 5_000))
        helped = steps = 0
        for _ in range(-(-points // BATCH)):
            x, y = self.fresh_batch()
            kept = network.snapshot()
            old = network.train_on_batch(x, y, loss="softmax_cross_entropy", optimizer=optimizer)
            new = network.evaluate(x, y)
            helps = new["loss"] <= old["loss"] or new["accuracy"] >= old["accuracy"]
            if not helps and not self.keep_all:
                network.restore(kept)
            helped += helps
            steps += 1
        self.points_seen += steps * BATCH
        self.keep_all = helped / steps < FORCE_BELOW
        return helped / steps

    def accuracy(self) -> float:
        """Accuracy on 10,000 points that are not used in training."""
        return self.network.evaluate(self.data.x_test, self.data.y_test, loss="softmax_cross_entropy")["accuracy"]

    def picture(self, title: str, name: str) -> None:
        """Plot the network's decision regions with a thousand points in the colours of their true classes."""
        if self.options.out is not None:
            axes = plotting.plot_decision_regions(
                self.network, self.data.x_train, self.data.y_train, classes=self.data.classes
            )
            axes.set(title=title, xlabel="x", ylabel="y")
            self.options.save(axes, f"{self.pictures}-{name}")
            self.pictures += 1

    def sketch(self) -> str:
        """The decision regions as text for a terminal: # is outside, . is inside."""
        across, down = np.linspace(-2, 2, 48), np.linspace(2, -2, 24)
        grid = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)
        marks = np.where(self.network.predict_classes(grid) == 1, "#", ".").reshape(24, 48)
        return "\n".join("    " + "".join(row) for row in marks)


def run(options: tools.Options) -> dict[str, float]:
    """Train, and return the accuracy on 10,000 new points."""
    session = Session(options)
    print(tools.described(session.network))
    if options.out is not None:
        axes = plotting.plot_scatter(session.data.x_train, session.data.y_train, classes=session.data.classes)
        axes.set(title="The truth: 1,000 points", xlabel="x", ylabel="y")
        options.save(axes, f"{session.pictures}-truth")
        session.pictures += 1
    if options.interactive:
        choose(session)
        rounds = iter(asked_rounds())
    else:
        session.picture("Before training", "before")
        rounds = iter(ROUNDS[:3] if options.quick else ROUNDS)

    seconds = 0.0
    for number, points in enumerate(rounds, start=1):
        begin = time.perf_counter()
        helped = session.train(points)
        seconds += time.perf_counter() - begin
        print(
            f"round {number}: {points:,} points, {100 * helped:.1f} % of the steps helped; "
            f"{100 * session.accuracy():.2f} % of 10,000 new points correct" + (", keep all next" * session.keep_all)
        )
        session.picture(f"After {session.points_seen:,} points", f"round-{number}")
    accuracy = session.accuracy()
    print(f"new points correct: {100 * accuracy:.2f} % of 10,000, after {session.points_seen:,} points")
    session.picture(f"After training: {100 * accuracy:.2f} % correct", "after")
    return {"accuracy": accuracy, "points": session.points_seen, "seconds": seconds}


def choose(session: Session) -> None:
    """Show initial networks until the user accepts one."""
    candidate = 1
    while True:
        print(f"\nstarting network {candidate}  (# outside, . inside the circle)\n{session.sketch()}")
        session.picture(f"Starting network {candidate}", f"start-{candidate}")
        if ask("Use this network? [y/n] ", ("y", "n"), at_end="y") == "y":
            return
        session.network = session.start(session.options.seed + candidate)
        candidate += 1


def asked_rounds() -> Iterator[int]:
    """Yield the number of points of each round that the user wants, until the user stops."""
    while True:
        reply = ask("Train? [a number of points, or n to stop] ", ("n",), at_end="n", numbers=True)
        if reply == "n":
            return
        yield int(reply)


def ask(question: str, words: tuple[str, ...], at_end: str, numbers: bool = False) -> str:
    """Ask until the answer is one of the words or, if `numbers`, a number; return `at_end` at the end of the input."""
    while True:
        try:
            reply = input(question).strip().lower()
        except EOFError:
            print()
            return at_end
        if not sys.stdin.isatty():
            print(reply)  # The terminal does not show piped answers.
        if reply in words or (numbers and reply.isdecimal() and int(reply) > 0):
            return reply
        print(f"  please answer {' or '.join(words)}" + (", or a number such as 3000" if numbers else ""))


if __name__ == "__main__":
    tools.main(run, __doc__, flags={"interactive": "pick a starting network and train, round by round"})
