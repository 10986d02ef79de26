"""The program of the MPI tests: many checks in one start, because starting is slow."""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np

import nnbackend as nn
from nnbackend.training.checkpoints import checkpoint
from tests.helpers import classifier, convolutional_network, images, rich_network, same_weights

X, Y = images(rows=70)


def train(communicator, callbacks=(), resume=False):
    net = rich_network("numpy", "float64")
    options = {"loss": "softmax_cross_entropy", "optimizer": nn.Adam(0.01), "validation_data": (X[:5], Y[:5])}
    options |= {"communicator": communicator, "callbacks": callbacks, "resume": resume}
    return net, net.fit(X, Y, epochs=2, batch_size=16, **options)


def check_messages(world):
    """Check every method with messages of different sizes and in sequence."""
    size, rank = world.size, world.rank
    for elements in (1, 1000, 200_000):
        for dtype in (np.float32, np.float64, np.int64):
            values = (np.arange(elements) % 7 + rank).astype(dtype)
            world.allreduce(values)
            expected = (np.arange(elements) % 7) * size + sum(range(size))
            assert (values == expected).all()
    uneven = np.random.default_rng(rank).normal(size=5000)
    sums = [uneven.copy() for _ in range(3)]
    for values in sums:
        world.allreduce(values)
    assert len(set(world.gather(tuple(values.tobytes() for values in sums)))) == 1
    assert sums[0].tobytes() == sums[1].tobytes() == sums[2].tobytes()
    for value in ({"a": 1}, "x" * 100_000, None):
        assert world.broadcast(value if rank == 0 else "no") == value
    assert world.gather("y" * rank) == ["y" * other for other in range(size)]
    assert world.any(rank == size - 1)
    assert not world.any(False)
    world.barrier()
    assert nn.distributed.world() is world
    assert (world.local_rank, world.local_size) == (rank, size)
    assert world.cores >= 1
    assert nn.distributed.local_backend("numpy", world).products.threads == world.cores


def check_training(world):
    net, history = train(world)
    alone, expected = train(None)
    for name, weight in alone.get_weights().items():
        np.testing.assert_allclose(net.get_weights()[name], weight, atol=1e-12)
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        np.testing.assert_allclose(history[name], expected[name], rtol=1e-12)


def check_batch_normalisation(world):
    """Running statistics are the same on all ranks, and in every run."""
    runs = []
    for _ in range(2):
        net = convolutional_network("numpy")
        net.fit(X, Y, epochs=2, batch_size=16, loss="softmax_cross_entropy", communicator=world)
        runs.append(b"".join(array.tobytes() for array in net.get_weights().values()))
    assert set(world.gather(runs[0])) == {runs[1]}


class Trouble(nn.Callback):
    """Fail on rank 1 after an epoch."""

    def __init__(self, kind):
        self.kind = kind

    def on_epoch_end(self, network, epoch, metrics):
        if self.kind == "work":
            time.sleep(4)
        if self.kind == "sleep":
            time.sleep(1000)
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.kind == "raise":
            raise OSError("the disk is full")


class Terminate(nn.Callback):
    """Send a signal in an epoch of a resumed run."""

    def on_epoch_begin(self, network, epoch):
        assert network.steps_trained == 5
        os.kill(os.getpid(), signal.SIGTERM)


def train_many(communicator, kind=None):
    """Five networks; there is trouble on the rank that trains the last but one."""
    networks = [classifier(seed=seed) for seed in range(5)]
    callbacks = nn.PerNetwork([[Trouble(kind)] if place == 3 else [] for place in range(5)])
    options = {"loss": "softmax_cross_entropy", "callbacks": callbacks, "communicator": communicator}
    return networks, nn.fit_many(networks, X, Y, epochs=2, **options)


def check_many(world):
    """One rank trains for longer than the timeout, and the others wait for it."""
    networks, histories = train_many(world, "work")
    expected, _ = train_many(None)
    assert all(same_weights(*pair) for pair in zip(networks, expected, strict=True))
    assert [len(history) for history in histories] == [2] * 5
    print(f"rank {world.rank} has all networks", flush=True)


def kill_in_the_second_epoch():
    """After the checkpoint of its second step."""
    write = checkpoint.write_checkpoint

    def write_and_die(path, contents):
        write(path, contents)
        if contents.config["steps_trained"] == 7:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.write_checkpoint = write_and_die


def main(kind, folder=None):
    world = nn.distributed.world(timeout=1.0 if kind in ("sleep", "stop", "leave", "many") else 60.0)
    if kind == "work":
        check_messages(world)
        check_training(world)
        check_batch_normalisation(world)
        print(f"rank {world.rank} has done its work", flush=True)
    elif kind in ("keep", "resume"):
        callbacks = [nn.Checkpoint(folder, every_steps=1)]
        if kind == "keep":
            kill_in_the_second_epoch()
        elif world.rank == 1:
            callbacks.append(Terminate())
        train(world, callbacks, resume=True)
        print("went on", flush=True)
    elif kind == "many":
        check_many(world)
    elif kind == "leave":
        if world.rank == 0:
            world.barrier()
    elif kind == "early":
        if world.rank == 1:
            raise ValueError("there are no data")
        world.barrier()
    else:
        if world.rank == 0:
            print(f"rank 1 is {world.places[1]}", flush=True)
        if folder is not None:
            errors = os.open(f"{folder}/rank-{world.rank}", os.O_CREAT | os.O_WRONLY)
            os.dup2(errors, sys.stderr.fileno())
        if kind == "kill-many":
            train_many(world, "kill")
        train(world, [Trouble(kind)] if world.rank == 1 else [])


if __name__ == "__main__":
    main(*sys.argv[1:])
