"""The options of ``nnbackend train``."""

from __future__ import annotations

import argparse

from nnbackend.cli.options import add_backend, add_data, add_encoding, decimal, sizes, whole
from nnbackend.presets import DEFAULT, PRESETS

__all__ = ["HELD_OUT", "add_network_options", "add_options", "add_training_options"]

#: Share of the training rows that is held out if validation influences the training.
HELD_OUT = 0.1


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options. Options of the recipe have no default here: their defaults come from the preset."""
    _add_data_options(parser.add_argument_group("what to train on"))
    _add_table_options(parser, parser.add_argument_group("tables"))
    network = parser.add_argument_group("network")
    add_network_options(network)
    network.add_argument(
        "--members",
        type=whole,
        metavar="N",
        help="train N networks at once, which predict together; their seeds are --seed, --seed + 1, and so on "
        "(default: 1; for a table, 8)",
    )
    add_training_options(parser.add_argument_group("training"))
    _add_place_options(parser.add_argument_group("where to run, what to save"))


def _add_data_options(what: argparse._ArgumentGroup) -> None:
    add_data(what, "auto", "default: auto, which is mnist if it is available, else mnist-5k")
    what.add_argument(
        "--validation",
        type=decimal,
        metavar="SHARE",
        help=f"share of the training rows held out for validation (default: {HELD_OUT:g} with --patience or "
        "--schedule plateau, which depend on the validation loss; otherwise 0: the metrics of the test rows are shown "
        "after every epoch, but do not influence training; of a table, 0.2 of the rows, which are only for the metrics "
        "at the end)",
    )


def _add_table_options(parser: argparse.ArgumentParser, tables: argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "table", metavar="TABLE", nargs="?", help="a CSV, Parquet or NPZ file to train on, in place of a data set"
    )
    tables.add_argument("--target", metavar="COLUMN", help="the column of the table to predict")
    tables.add_argument(
        "--task",
        default="auto",
        metavar="NAME",
        help="classification, regression, or auto, which decides by the target's values and says why (default: auto)",
    )
    tables.add_argument(
        "--categorical", metavar="COLUMNS", help="columns of numbers that are categories, separated by commas"
    )
    tables.add_argument("--ignore", metavar="COLUMNS", help="columns to leave out, separated by commas")
    tables.add_argument(
        "--max-seconds",
        type=decimal,
        metavar="SECONDS",
        help="train for fewer epochs, such that it takes about this time (default: 256 epochs)",
    )
    add_encoding(tables)


def add_network_options(network: argparse._ArgumentGroup) -> None:
    """Declare the options that define the network."""
    network.add_argument(
        "--preset",
        metavar="NAME",
        help=f"start from this recipe instead of the default one: {', '.join(PRESETS)}. The defaults given below are "
        "those of the default recipe",
    )
    network.add_argument(
        "--hidden", type=sizes, metavar="SIZES", help="sizes of the hidden layers, such as 200,80 (default), or none"
    )
    network.add_argument(
        "--filters",
        type=sizes,
        metavar="SIZES",
        help="filters of convolutions before the hidden layers, each followed by a 2 x 2 max pool, such as 20,40; for "
        "square images (default: none)",
    )
    network.add_argument(
        "--kernels", type=sizes, metavar="SIZES", help="sizes of the kernels of each convolution (default: 5 for 5 x 5)"
    )
    network.add_argument(
        "--strides",
        type=sizes,
        metavar="SIZES",
        help="strides of each convolution (default: 1); there is no max pool after a stride above 1",
    )
    network.add_argument(
        "--activation", metavar="NAME", help="activation of the hidden layers: relu (default), sigmoid, gelu ..."
    )
    network.add_argument(
        "--dropout", type=decimal, metavar="SHARE", help="dropout rate after every hidden layer (default: 0)"
    )
    network.add_argument("--l1", type=decimal, metavar="FACTOR", help="penalty on absolute weights (default: 0)")
    network.add_argument("--l2", type=decimal, metavar="FACTOR", help="penalty on squared weights (default: 0)")
    network.add_argument("--dtype", default="float32", metavar="NAME", help="float32 (default) or float64")


def add_training_options(training: argparse._ArgumentGroup) -> None:
    """Declare the options that define how it is trained."""
    _add_loss_and_rate_options(training)
    _add_run_options(training)


def _add_loss_and_rate_options(training: argparse._ArgumentGroup) -> None:
    training.add_argument(
        "--loss",
        metavar="NAME",
        help="softmax_cross_entropy (default), sigmoid_cross_entropy, mean_squared_error, focal, huber or another "
        "name of nnbackend.losses",
    )
    training.add_argument(
        "--augment",
        metavar="LIST",
        help="transform the images of each training batch at random: shift=2,rotate=10,scale=0.1,flip,elastic=34:4, or "
        "some of these (default: none)",
    )
    training.add_argument("--optimizer", metavar="NAME", help="adam (default), adamw, lion, rmsprop or sgd")
    training.add_argument(
        "--learning-rate",
        type=decimal,
        metavar="RATE",
        help=f"default: {DEFAULT.learning_rate:g}; with --optimizer, that optimizer's own default",
    )
    training.add_argument(
        "--schedule",
        metavar="NAME",
        help="how the learning rate changes: constant, step, exponential, cosine (default), one-cycle or plateau",
    )
    training.add_argument(
        "--decay",
        type=decimal,
        metavar="FACTOR",
        help="factor by which a schedule multiplies the rate: step (default: 0.3), exponential (0.8 per epoch) or "
        "plateau (0.5)",
    )
    training.add_argument(
        "--decay-every",
        type=whole,
        metavar="EPOCHS",
        help="for step, epochs between two decays (default: a third of all epochs); "
        "for plateau, epochs without improvement before a decay (2)",
    )
    training.add_argument(
        "--warmup",
        type=decimal,
        metavar="EPOCHS",
        help="epochs over which the rate rises at first (default: 0; with one-cycle, 30 %% of all epochs)",
    )
    training.add_argument(
        "--cycle-momentum",
        action=argparse.BooleanOptionalAction,
        help="whether one-cycle sets the momentum, too: from 0.95 to 0.85 and back (default: yes, if the optimizer has "
        "one)",
    )
    training.add_argument("--momentum", type=decimal, metavar="SHARE", help="momentum of sgd (default: 0)")
    training.add_argument(
        "--nesterov", action=argparse.BooleanOptionalAction, help="use Nesterov momentum, with sgd (default: no)"
    )
    training.add_argument("--beta1", type=decimal, metavar="SHARE", help="of adam and adamw (default: 0.9)")
    training.add_argument("--beta2", type=decimal, metavar="SHARE", help="of adam and adamw (default: 0.999)")
    training.add_argument("--weight-decay", type=decimal, metavar="FACTOR", help="default: 0; with adamw, 0.01")


def _add_run_options(training: argparse._ArgumentGroup) -> None:
    training.add_argument("--batch-size", type=whole, metavar="ROWS", help=f"default: {DEFAULT.batch_size}")
    training.add_argument("--epochs", type=whole, metavar="N", help=f"default: {DEFAULT.epochs}")
    training.add_argument(
        "--patience",
        type=whole,
        metavar="EPOCHS",
        help="stop after this many epochs without a lower validation loss, and keep the best epoch (default: never)",
    )
    training.add_argument(
        "--seed", type=whole, default=0, metavar="N", help="seed of weights, batch order and dropout (default: 0)"
    )


def _add_place_options(where: argparse._ArgumentGroup) -> None:
    add_backend(where)
    where.add_argument(
        "--timeout",
        type=decimal,
        default=300.0,
        metavar="SECONDS",
        help="under mpiexec, end all ranks if one does not respond for this long (default: 300)",
    )
    where.add_argument("--out", metavar="FOLDER", help="the run's folder (default: runs/<data set>-<time>)")
    where.add_argument("--force", action="store_true", help="replace the run in the folder --out")
    where.add_argument(
        "--resume",
        metavar="FOLDER",
        help="resume the interrupted or killed run in this folder; all options of the run are restored from there. "
        "With more --epochs, a finished run trains on",
    )
    where.add_argument(
        "--any-target",
        action="store_true",
        help="resume a run on the Numba backend also with code for another CPU, which may round differently",
    )
    where.add_argument(
        "--checkpoint-minutes",
        type=decimal,
        default=1.0,
        metavar="MINUTES",
        help="minutes between checkpoints, for --resume (default: 1)",
    )
    where.add_argument("--no-plots", action="store_true", help="draw no pictures")
    where.add_argument("--quiet", action="store_true", help="print only the test accuracy")
