"""What all examples share: their options, where their pictures go, and how a mistake is told."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnbackend import Callback, Dense, History, Network, plotting
from nnbackend.errors import NNBackendError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    import nnbackend as nn


@dataclass
class Options:
    """How an example is run.

    Attributes
    ----------
    backend : str
    seed : int
    quick : bool
        Less data or fewer epochs: seconds, for a first look and for the tests.
    out : Path or None
        Folder for the pictures; None draws none.
    interactive : bool
        Ask the person at the terminal (S1 only).
    tutorial : bool
        Follow the tutorial's own recipe where ours is another (S5 only).
    """

    backend: str = "auto"
    seed: int = 0
    quick: bool = False
    out: Path | None = None
    interactive: bool = False
    tutorial: bool = False

    @property
    def folder(self) -> Path:
        """Where what the example leaves goes."""
        assert self.out is not None
        return self.out

    def save(self, axes: Axes, name: str) -> None:
        """Write the figure that holds these axes into the folder, and say so."""
        path = self.folder / f"{name}.png"
        plotting.save_figure(axes, path)
        print(f"picture: {path}")


def main(
    run: Callable[[Options], object],
    doc: str | None,
    arguments: Sequence[str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> None:
    """Run an example from the command line; a mistake is one line and exit code 2.

    Parameters
    ----------
    run : callable
    doc : str
        The example's docstring, for --help.
    arguments : sequence of str, optional
        Those of the process if not given.
    flags : dict from name to help, optional
        Flags of `Options` that this example knows beyond the common ones.
    """
    name = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(
        prog=f"{name}.py", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--backend", default="auto", help="numpy, numba, cupy, or auto, the fastest that can run here")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and points (default: 0)")
    parser.add_argument("--quick", action="store_true", help="less data or fewer epochs: seconds, but worse figures")
    parser.add_argument("--out", type=Path, default=Path("runs") / name, help="folder for pictures (runs/NAME)")
    for flag, meaning in (flags or {}).items():
        parser.add_argument(f"--{flag}", action="store_true", help=meaning)
    options = Options(**vars(parser.parse_args(arguments)))
    try:
        if find_spec("matplotlib") is None:
            raise ImportError('pictures need the package matplotlib: pip install -e ".[plot]"')
        # Told now, and not when the training is over.
        check_folder(options.folder)
        run(options)
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted", file=sys.stderr)
        sys.exit(130)
    except (NNBackendError, OSError, ImportError) as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        sys.exit(2)


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be made or written to, without making it yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"--out {folder}: {there} is a file; name a folder")
    if not os.access(there, os.W_OK):
        raise PermissionError(f"--out {folder}: {there} cannot be written to; name another folder")


def fit(network: Network, x: Any, y: Any, **options: Any) -> History:
    """`Network.fit`; Ctrl-C, which only ends a fit early, ends the whole example."""
    history = network.fit(x, y, verbose=False, **options)
    if history.interrupted:
        raise KeyboardInterrupt
    return history


class EachEpoch(Callback):
    """Prints a line after every epoch, or after every so many.

    Parameters
    ----------
    line : callable
        From the epoch's figures to the text.
    every : int
    """

    def __init__(self, line: Callable[[Mapping[str, float]], str], every: int = 1) -> None:
        self.line = line
        self.every = every

    def on_epoch_end(self, network: Network, epoch: int, figures: Mapping[str, float]) -> str | None:
        if epoch % self.every == 0:
            print(self.line(figures), flush=True)
        return None


def axes(count: int, width: float = 4.8, height: float = 4.0) -> list[Any]:
    """Some axes side by side in a figure of their own."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * count, height), layout="constrained")
    return list(figure.subplots(1, count, squeeze=False)[0])


def described(network: Network) -> str:
    """One line: what runs where."""
    units = [layer.units for layer in network.layers if isinstance(layer, Dense)]
    sizes = "-".join(str(size) for size in [*network.input_shape, *units])
    return f"{sizes} network, {network.parameter_count:,} parameters, backend {network.backend.name}"


def judged(data: nn.datasets.Dataset, models: Mapping[str, Network]) -> dict[str, float]:
    """Print and return the accuracy of each model on the training and the test set: "NAME train" and "NAME test"."""
    results = {}
    for name, model in models.items():
        train = results[f"{name} train"] = model.evaluate(data.x_train, data.y_train)["accuracy"]
        test = results[f"{name} test"] = model.evaluate(data.x_test, data.y_test)["accuracy"]
        print(
            f"{name + ':':19} best train accuracy {100 * train:6.2f} %, "
            f"test accuracy {100 * test:6.2f} % of {len(data.y_test):,}"
        )
    return results
