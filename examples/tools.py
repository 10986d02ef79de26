"""Options, pictures and error messages of all examples."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnbackend import Callback, Conv2D, Dense, History, Network, plotting
from nnbackend.errors import NNBackendError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    import nnbackend as nn


@dataclass
class Options:
    """Options of an example.

    Attributes
    ----------
    backend : str
    seed : int
    quick : bool
        Use less data or fewer epochs, so that it takes seconds.
    out : Path or None
        Folder for the pictures; None draws none.
    interactive : bool
        Ask the user in the terminal (S1 only).
    tutorial : bool
        Use the tutorial's own recipe (S5) or data (S13).
    """

    backend: str = "auto"
    seed: int = 0
    quick: bool = False
    out: Path | None = None
    interactive: bool = False
    tutorial: bool = False

    @property
    def folder(self) -> Path:
        """The folder for the example's files."""
        assert self.out is not None
        return self.out

    def save(self, axes: Axes, name: str) -> None:
        """Save the figure of these axes in the folder, and print its path."""
        path = self.folder / f"{name}.png"
        plotting.save_figure(axes, path)
        print(f"picture: {path}")


def main(
    run: Callable[[Options], object],
    doc: str | None,
    arguments: Sequence[str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> None:
    """Run an example from the command line; an error prints one line and gives exit code 2.

    Parameters
    ----------
    run : callable
    doc : str
        The example's docstring, for --help.
    arguments : sequence of str, optional
        Default: the arguments of the process.
    flags : dict from name to help, optional
        Additional flags of `Options` that this example supports.
    """
    name = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(
        prog=f"{name}.py", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--backend", default="auto", help="numpy, numba, cupy, or auto for the fastest that can run")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, order and points (default: 0)")
    parser.add_argument("--quick", action="store_true", help="less data or fewer epochs: faster, but worse results")
    parser.add_argument("--out", type=Path, default=Path("runs") / name, help="folder for pictures (runs/NAME)")
    for flag, meaning in (flags or {}).items():
        parser.add_argument(f"--{flag}", action="store_true", help=meaning)
    options = Options(**vars(parser.parse_args(arguments)))
    try:
        if find_spec("matplotlib") is None:
            raise ImportError(
                'pictures need the package matplotlib: pip install -e ".[plot]" in your checkout of nnbackend'
            )
        # Check before training.
        check_folder(options.folder)
        run(options)
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted", file=sys.stderr)
        sys.exit(130)
    except (NNBackendError, OSError, ImportError) as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        sys.exit(2)


def check_folder(folder: Path) -> None:
    """Check that a folder can be created or written to, without creating it."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise NotADirectoryError(f"--out {folder}: {existing} is a file; choose a folder")
    if not os.access(existing, os.W_OK):
        raise PermissionError(f"--out {folder}: {existing} is not writable; choose another folder")


def fit(network: Network, x: Any, y: Any, **options: Any) -> History:
    """Call `Network.fit`, and end the example on Ctrl-C, which would only end the training early."""
    history = network.fit(x, y, verbose=False, **options)
    if history.interrupted:
        raise KeyboardInterrupt
    return history


class EachEpoch(Callback):
    """Print a line after every `every` epochs.

    Parameters
    ----------
    line : callable
        Returns the line for the metrics of an epoch.
    every : int
    """

    def __init__(self, line: Callable[[Mapping[str, float]], str], every: int = 1) -> None:
        self.line = line
        self.every = every

    def on_epoch_end(self, network: Network, epoch: int, metrics: Mapping[str, float]) -> str | None:
        if epoch % self.every == 0:
            print(self.line(metrics), flush=True)
        return None


def axes(count: int, width: float = 4.8, height: float = 4.0) -> list[Any]:
    """`count` axes side by side in a new figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * count, height), layout="constrained")
    return list(figure.subplots(1, count, squeeze=False)[0])


def described(network: Network) -> str:
    """One line with the network's sizes and its backend."""
    parts = [str(size) for size in network.input_shape]
    for layer in network.layers:
        if isinstance(layer, Conv2D):
            parts.append(f"{layer.filters}c{layer.kernel_size[0]}")
        elif isinstance(layer, Dense):
            parts.append(str(layer.units))
    sizes = "-".join(parts)
    return f"{sizes} network, {network.parameter_count:,} parameters, backend {network.backend.name}"


def judged(data: nn.datasets.Dataset, models: Mapping[str, Network]) -> dict[str, float]:
    """Print and return each model's accuracy on the training and the test set, as "NAME train" and "NAME test"."""
    results = {}
    for name, model in models.items():
        train = results[f"{name} train"] = model.evaluate(data.x_train, data.y_train)["accuracy"]
        test = results[f"{name} test"] = model.evaluate(data.x_test, data.y_test)["accuracy"]
        print(
            f"{name + ':':19} best train accuracy {100 * train:6.2f} %, "
            f"test accuracy {100 * test:6.2f} % of {len(data.y_test):,}"
        )
    return results
