"""``nnbackend demo``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nnbackend.backends.registry import get_backend
from nnbackend.cli.models import load_model, single_network
from nnbackend.cli.options import add_backend, add_data, check_data, load_data, whole
from nnbackend.cli.run_folder import class_names, dataset_name, find_model
from nnbackend.cli.text import backend_line, count_rows, field, network_line, percent
from nnbackend.datasets import Dataset
from nnbackend.network import Network
from nnbackend.presets import DEFAULT

if TYPE_CHECKING:
    from nnbackend.backends.contract import Backend
    from nnbackend.web.session import Session

__all__ = ["DESCRIPTION", "add_options", "run"]

DESCRIPTION = """\
Open a page in the browser where you draw a digit and see how a network reads
it, layer by layer, and where you watch another network learn.

Without --model, a small network is trained first, which takes seconds. The
page is served to this machine only and loads nothing from the internet.
Ctrl-C ends it."""

#: Images shown to the network that is trained first, and the range of epochs over which they are spread. This reaches
#: 98 % accuracy on MNIST's test images and 94 % on those of mnist-5k.
_IMAGES = 240_000
_PASSES = (1, 20)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--model", metavar="MODEL", help="a model file or the folder of a run")
    meaning = "default: the data set in the model's run folder, otherwise auto: mnist if it is available, else mnist-5k"
    add_data(parser, None, meaning)
    add_backend(parser)
    parser.add_argument("--port", type=whole, default=0, metavar="N", help="port on 127.0.0.1 (default: a free one)")
    parser.add_argument("--no-browser", action="store_true", help="print the page's address; do not open a browser")


def run(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C and return the exit code."""
    from nnbackend.web import check_installed

    check_installed()
    from nnbackend.web.server import address, listen, serve

    path = find_model(options.model) if options.model else None
    # A network trained on Fashion-MNIST must not be shown digits.
    dataset = options.dataset or ("auto" if path is None else dataset_name(path))
    check_data(dataset, options.data_dir)
    load = partial(load_data, dataset, options)
    backend = get_backend(options.backend)
    # Open the port first: if it is taken, fail before the training, not after it.
    with closing(listen(options.port)) as listening:
        session = _trained(load, options, backend) if path is None else _saved(path, load, options, backend)
        print(f"\nthe page is at {address(listening)}; Ctrl-C ends it", flush=True)
        serve(session, listening, open_browser=not options.no_browser)
    return 0


def _saved(path: Path, load: Callable[[], Dataset], options: argparse.Namespace, backend: Backend) -> Session:
    """A page for a saved model; its data are read when they are first needed."""
    from nnbackend.web.recogniser import Recogniser
    from nnbackend.web.session import Session

    network = single_network(load_model(path, backend), path, "the page shows the layers of one")
    recogniser = Recogniser(network, class_names(path, network), source=path.name)
    _describe(network, str(path), options, backend)
    return Session(recogniser, load)


def _trained(load: Callable[[], Dataset], options: argparse.Namespace, backend: Backend) -> Session:
    """Train a small network and return a page for it.

    Raises
    ------
    KeyboardInterrupt
        If Ctrl-C interrupts the training; the page is then not opened.
    """
    from nnbackend.web.recogniser import Recogniser
    from nnbackend.web.session import Session, check_images

    data = check_images(load())
    fewest, most = _PASSES
    recipe = DEFAULT.changed(epochs=min(max(_IMAGES // len(data.y_train), fewest), most))
    network = Network(recipe.layers(len(data.classes)), data.input_shape, backend)
    _describe(network, "no --model given: training a small one first", options, backend)
    rows = count_rows(data, len(data.y_train))
    print(field("data", f"{data.name}: {rows}, from {data.source}"))
    if data.notice:
        print(field("NOTE", data.notice))
    print(flush=True)
    history = network.fit(
        data.x_train,
        data.y_train,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        loss=recipe.loss,
        optimizer=recipe.make_optimizer(),
        validation_data=(data.x_test, data.y_test),
        verbose=True,
    )
    if history.interrupted:
        raise KeyboardInterrupt
    source = f"trained on {data.name}: test accuracy {percent(history['val_accuracy'][-1])}"
    return Session(Recogniser(network, data.classes, source), lambda: data)


def _describe(network: Network, model: str, options: argparse.Namespace, backend: Backend) -> None:
    print(field("model", f"{model}\n{network_line(network)}"))
    print(field("backend", backend_line(options.backend, backend)), flush=True)
