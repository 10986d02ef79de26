"""``nnbackend search``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from nnbackend.backends.registry import get_backend
from nnbackend.cli.grid import Candidate, Several, candidates_of, option, value_text, varied
from nnbackend.cli.many import Trained, check_alone, check_some, draw_all, outcome, train_all
from nnbackend.cli.options import add_backend, add_data, check_images, decimal, load_data
from nnbackend.cli.run_folder import RunFolder
from nnbackend.cli.text import aligned, backend_line, field, percent
from nnbackend.cli.train_options import HELD_OUT, add_network_options, add_training_options
from nnbackend.cli.train_setup import (
    INTERRUPTED,
    Split,
    base_recipe,
    check_run,
    configuration_of,
    data_lines,
    finish,
    fitted,
    split_rows,
)
from nnbackend.datasets import Dataset
from nnbackend.distributed import world
from nnbackend.errors import InvalidInputError
from nnbackend.metrics import accuracy
from nnbackend.support.checks import above_zero
from nnbackend.support.extras import install_command

__all__ = ["DESCRIPTION", "add_options", "run"]

DESCRIPTION = """\
Search for the best hyperparameters: train a network with every combination of
the given values, all at once, and save the best.

  nnbackend search --dataset mnist-5k --learning-rate 0.001 0.003 0.01
                   --hidden 100 200 200,80 --dropout 0 0.2

Every option of a network or of its training takes several values, separated by
spaces; 200,80 are two hidden layers. --grid reads values from a JSON file:

  {"learning_rate": [0.001, 0.003], "hidden": [[100], [200, 80]]}

or a list of such objects, for hyperparameters that do not all go together.

Networks are compared on rows that are held out of the training rows; the best
has the highest accuracy there, and among equals the lowest loss. Only the best
is then evaluated on the test rows. Its folder has the files of nnbackend train,
a table (search.csv) and a picture (search.png) of all. After Ctrl-C, the best
of the networks that were ready is saved. Exit code: 130 after Ctrl-C."""

#: How many networks a table shows; search.csv has all.
_SHOWN = 40


@dataclass(frozen=True)
class _Scored:
    """A candidate and its result. Those that were not trained to the end have no scores."""

    number: int
    candidate: Candidate
    names: dict[str, str]
    trained: Trained
    accuracy: float = -1.0
    loss: float = 0.0

    @property
    def label(self) -> str:
        return ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in self.names.items())

    def row(self) -> dict[str, str | float]:
        """A line of search.csv."""
        found: dict[str, str | float] = {"network": self.number, **self.names}
        if self.trained.done:
            return {**found, "val_accuracy": self.accuracy, "val_loss": self.loss, "error": ""}
        return {**found, "val_accuracy": "", "val_loss": "", "error": outcome(self.trained)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    what = parser.add_argument_group("what to train on")
    add_data(what, "auto", "default: auto, which is mnist if it is available, else mnist-5k")
    what.add_argument(
        "--validation",
        type=decimal,
        default=HELD_OUT,
        metavar="SHARE",
        help=f"share of the training rows on which the networks are compared (default: {HELD_OUT:g})",
    )
    grid = parser.add_argument_group("grid")
    grid.add_argument("--grid", metavar="FILE", help="read values from this JSON file")
    add_network_options(Several(parser, "network"))
    add_training_options(Several(parser, "training"))
    where = parser.add_argument_group("where to run, what to save")
    add_backend(where)
    where.add_argument("--out", metavar="FOLDER", help="the folder of the best (default: runs/<data set>-<time>)")
    where.add_argument("--force", action="store_true", help="replace the run in the folder --out")
    where.add_argument(
        "--plot", metavar="FILE", help="where to draw the curves of all networks (default: search.png in the folder)"
    )
    where.add_argument("--no-plots", action="store_true", help="draw no pictures")
    where.add_argument("--quiet", action="store_true", help="print only the best network and its test accuracy")


def run(options: argparse.Namespace) -> int:
    """Search, save the best network, and return the exit code."""
    ranks = world()
    try:
        check_alone("nnbackend search", ranks)
    except InvalidInputError:
        if ranks.rank == 0:
            raise
        return 2
    candidates = candidates_of(options, base_recipe(options))
    _check(options, candidates)
    folder = RunFolder.at(options.out, options.force) if options.out else None
    backend = get_backend(options.backend)
    data = load_data(options.dataset, options)
    if data.notice and options.quiet:
        print(f"nnbackend: note: {data.notice}", file=sys.stderr)
    split = split_rows(data, options.validation, options.seed)
    recipes = [fitted(each.recipe, len(split.y), "batch_size" in each.settings) for each in candidates]
    with ExitStack() as held:
        folder = folder or RunFolder.fresh(data.name)
        held.enter_context(folder.lock())
        if not options.quiet:
            _describe(options, candidates, data, split, backend_line(options.backend, backend), folder)
        seeds = [options.seed] * len(recipes)
        trained = train_all(recipes, seeds, data, split, backend, options.dtype, verbose=not options.quiet)
        ranking = _ranking(candidates, trained, split)
        _save(ranking, data, folder, options)
    done = sum(each.done for each in trained)
    if any(each.history.interrupted for each in trained):
        print(f"nnbackend: interrupted after {done} of {len(trained)} networks", file=sys.stderr)
        return INTERRUPTED
    return 0


def _check(options: argparse.Namespace, candidates: Sequence[Candidate]) -> None:
    """Check everything that can be checked before data are loaded."""
    check_run(options)
    above_zero("validation", options.validation)
    for each in candidates:
        check_images(options.dataset, each.recipe)
    if options.plot is None:
        return
    if options.no_plots:
        raise InvalidInputError("--plot and --no-plots exclude each other; leave out one of them")
    if not options.plot.lower().endswith(".png"):
        raise InvalidInputError(f"--plot: the name of a picture must end in .png, received {options.plot!r}")
    if Path(options.plot).is_dir():
        raise InvalidInputError(f"--plot: {options.plot} is a folder; name a file")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(f"--plot needs the package matplotlib: {install_command('plot')}") from error


def _describe(
    options: argparse.Namespace,
    candidates: Sequence[Candidate],
    data: Dataset,
    split: Split,
    backend: str,
    folder: RunFolder,
) -> None:
    """Describe the search before it starts."""
    values: dict[str, dict[str, None]] = {}
    for names in varied(candidates):
        for name, text in names.items():
            values.setdefault(name, {})[text] = None
    grid = [f"{name.replace('_', ' ')}: {'  '.join(texts)}" for name, texts in values.items()]
    lines = [
        *data_lines(data, split),
        field("recipe", "default" if options.preset is None else f"preset {options.preset}"),
        field("grid", "\n".join([*grid, f"{len(candidates)} networks, seed {options.seed}, {options.dtype}"])),
        field("backend", backend),
        field("folder", f"{folder.path}"),
    ]
    print("\n".join(lines) + "\n", flush=True)


def _ranking(candidates: Sequence[Candidate], trained: Sequence[Trained], split: Split) -> list[_Scored]:
    """All networks, the best first, and those that were not trained to the end last."""
    x, y = split.validation
    scored = []
    for number, (candidate, names, each) in enumerate(zip(candidates, varied(candidates), trained, strict=True)):
        scores = (
            (accuracy(y, each.network.predict_classes(x)), each.network.evaluate(x, y)["loss"]) if each.done else ()
        )
        scored.append(_Scored(number, candidate, names, each, *scores))
    check_some(trained, any(each.done for each in trained))
    return sorted(scored, key=lambda each: (-each.accuracy, each.loss, each.number))


def _save(ranking: Sequence[_Scored], data: Dataset, folder: RunFolder, options: argparse.Namespace) -> None:
    """Save the best network first, because it took the longest to make, then print and draw all."""
    best = ranking[0]
    network, recipe, history = best.trained.network, best.trained.recipe, best.trained.history
    folder.begin(configuration_of(data, options.validation, recipe, network, options, ranks=1))
    folder.save_model(network)
    folder.save_search([each.row() for each in ranking])
    if not options.quiet:
        _print_table(ranking)
    if not options.no_plots:
        path = folder.search_picture if options.plot is None else Path(options.plot)
        missing = draw_all([each.trained for each in ranking], [each.label for each in ranking], path)
        if missing:
            print(f"nnbackend: note: no picture of the search: {missing}", file=sys.stderr)
    print(f"best: network {best.number}, {best.label}, validation accuracy {percent(best.accuracy)}")
    if not options.quiet:
        print(f"again: {_command(best.candidate, data, options)}")
    finish(network, data, history, folder, pictures=not options.no_plots, quiet=options.quiet)


def _print_table(ranking: Sequence[_Scored]) -> None:
    names = list(ranking[0].names)
    table = [["network", *(name.replace("_", " ") for name in names), "val_accuracy", "val_loss"]]
    for each in ranking[:_SHOWN]:
        scores = [percent(each.accuracy), f"{each.loss:.4f}"] if each.trained.done else ["-", outcome(each.trained)]
        table.append([str(each.number), *each.names.values(), *scores])
    print("\n" + aligned(table, right=range(len(names) + 2)))
    if len(ranking) > _SHOWN:
        print(f"and {len(ranking) - _SHOWN} more, in search.csv")
    print()


def _command(best: Candidate, data: Dataset, options: argparse.Namespace) -> str:
    """The command that trains the best network again."""
    words = ["nnbackend", "train", "--dataset", data.name, "--validation", f"{options.validation!r}"]
    if options.data_dir is not None:
        words += ["--data-dir", options.data_dir]
    if options.preset is not None:
        words += ["--preset", options.preset]
    for name, value in best.settings.items():
        if isinstance(value, bool):
            words.append(option(name) if value else option(f"no_{name}"))
        else:
            words += [option(name), value if isinstance(value, str) else value_text(value)]
    for name, default in (("seed", 0), ("dtype", "float32"), ("backend", "auto")):
        if getattr(options, name) != default:
            words += [f"--{name}", str(getattr(options, name))]
    return shlex.join(words)
