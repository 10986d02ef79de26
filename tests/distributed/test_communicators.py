"""Detecting ranks, missing ranks, and calls to GPUs; without MPI and without a GPU."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import types

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.distributed import Alone, launched_ranks, local_backend, world
from nnbackend.distributed.watch import Place, Watch, is_alive
from nnbackend.errors import BackendUnavailableError, DistributedError, InvalidInputError


@pytest.mark.parametrize(
    ("environment", "ranks"),
    [
        ({}, 1),
        ({"PMI_SIZE": "4", "PMI_RANK": "2"}, 4),
        ({"OMPI_COMM_WORLD_SIZE": "3"}, 3),
        ({"PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "8"}, 8),
        # A SLURM batch script, which has not started any ranks.
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, 1),
        ({"PMI_SIZE": ""}, 1),
    ],
)
def test_how_many_ranks_the_launcher_started(environment, ranks):
    assert launched_ranks(environment) == ranks


def test_a_program_that_nothing_launched_is_alone():
    alone = world()
    assert isinstance(alone, Alone)
    assert (alone.rank, alone.size, alone.gather(3), alone.broadcast(4)) == (0, 1, [3], 4)
    assert local_backend("numpy", alone) is nn.get_backend("numpy")
    assert repr(alone) == "<Alone: rank 0 of 1>"


def run_as_one_of_four(code):
    environment = {**os.environ, "PMI_SIZE": "4"}
    script = f"import sys, types\nimport nnbackend as nn\n{code}\nnn.distributed.world()"
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True).stderr


def test_several_ranks_without_mpi4py_are_an_error():
    errors = run_as_one_of_four("sys.modules['mpi4py'] = None")
    assert (
        '4 ranks were started together, and they need the package mpi4py to communicate: pip install -e ".[mpi]"'
        in errors
    )


def test_the_mpi_of_another_launcher_is_an_error():
    code = "import nnbackend.distributed.mpi as mpi; mpi.MpiCommunicator = lambda timeout: nn.distributed.Alone()"
    assert "4 ranks were started together, but mpi4py sees 1: its MPI is not the launcher's" in run_as_one_of_four(code)


def test_the_time_to_wait_is_checked(monkeypatch):
    monkeypatch.setattr("nnbackend.distributed.launch._world", None)
    with pytest.raises(InvalidInputError, match="timeout must be above 0"):
        world(0)


def test_live_processes_are_detected():
    assert is_alive(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert is_alive(child.pid)
    child.kill()
    # A zombie.
    while is_alive(child.pid):
        pass
    child.communicate()
    assert not is_alive(child.pid)


class Post:
    """The reports of waiting ranks, by rank."""

    ANY_SOURCE = -1

    def __init__(self, size):
        self.boxes = [[] for _ in range(size)]

    def group(self, rank):
        box = self.boxes[rank]

        def send(message, to, tag):
            self.boxes[to].append((rank, message.copy()))
            return types.SimpleNamespace(Test=lambda: True)

        def probe(source, tag, status):
            if box:
                sender = box[0][0]
                status.Get_source = lambda: sender
            return bool(box)

        def receive(message, source, tag):
            sender, message[...] = box.pop(0)
            assert sender == source

        return types.SimpleNamespace(Get_rank=lambda: rank, Isend=send, Iprobe=probe, Recv=receive)

    def Status(self):  # noqa: N802
        return types.SimpleNamespace()


def watches(size):
    post = Post(size)
    places = [Place(f"host{rank}", 100 + rank) for rank in range(size)]
    return [Watch(post, post.group(rank), places, timeout=4.0) for rank in range(size)]


def test_the_first_rank_names_silent_ranks():
    first, second, third, _ = watches(4)
    for seconds in (1.0, 2.0, 3.0, 4.0, 5.0):
        assert [watch.look("a sum", 7, seconds) for watch in (second, third, first)] == ["", "", ""]
    said = first.look("a sum", 7, 6.0)
    assert said == "no response from rank 3 (process 103 on host3), while rank 0 has waited 6.0 s for a sum"
    # Rank 1 leaves rank 0 time to report.
    assert second.look("a sum", 7, 6.0) == ""
    assert "rank 3" in second.look("a sum", 7, 8.0)


def test_the_second_names_the_first():
    _, second, third = watches(3)
    for seconds in (1.0, 3.0, 5.0, 7.0):
        assert third.look("a sum", 7, seconds) == second.look("a sum", 7, seconds) == ""
    assert second.look("a sum", 7, 8.0).startswith("no response from rank 0 (process 100 on host0), while rank 1")
    assert third.look("a sum", 7, 8.0) == ""
    assert "ranks 0 and 1 do not report" in third.look("a sum", 7, 10.0)


def test_a_rank_waiting_for_something_else_is_named():
    first, second = watches(2)
    second.look("the end of the program", 9, 1.0)
    assert first.look("a sum", 7, 6.0) == (
        "rank 1 (process 101 on host1) waits for the end of the program elsewhere in the program, "
        "while rank 0 has waited 6.0 s for a sum"
    )


def test_a_dead_rank_is_detected_on_its_machine():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    places = [Place("here", os.getpid()), Place("there", 1), Place("here", child.pid)]
    watch = Watch(Post(3), Post(3).group(0), places, timeout=60.0)
    assert watch.look("a sum", 7, 1.0) == ""
    child.kill()
    child.communicate()
    assert watch.look("a sum", 7, 1.5) == ""
    assert watch.look("a sum", 7, 2.0) == f"rank 2 of 3, process {child.pid} on here, has died"


def test_no_rank_is_reported_missing_too_early():
    first, *_ = watches(2)
    for number in range(20):
        assert first.look("a sum", number, 3.9) == ""


class FakeArray(np.ndarray):
    """An array that claims to be CuPy's."""


FakeArray.__module__ = "cupy._core.core"


def test_gpus_sum_through_nccl_on_the_backends_stream(monkeypatch):
    """The calls of CuPy's NCCL, with a fake; `test_cupys_nccl_has_the_expected_signatures` checks the real one."""
    from nnbackend.distributed.mpi import MpiCommunicator

    said = []
    active = []

    class Active:
        def __enter__(self):
            active.append(True)

        def __exit__(self, *error):
            active.pop()

    class Group:
        def all_reduce(self, source, out, op="sum", stream=None):
            assert active
            assert source is out
            said.append((op, stream))
            out *= 3

    def init_process_group(devices, rank, *, backend="nccl", host=None, port=None, use_mpi=False):
        assert active
        said.append(("init", devices, rank, use_mpi))
        return Group()

    monkeypatch.setitem(sys.modules, "cupyx", types.ModuleType("cupyx"))
    fake = types.ModuleType("cupyx.distributed")
    fake.init_process_group = init_process_group
    monkeypatch.setitem(sys.modules, "cupyx.distributed", fake)
    ranks = MpiCommunicator.__new__(MpiCommunicator)
    ranks.rank, ranks.size, ranks._devices = 1, 3, None
    monkeypatch.setattr(MpiCommunicator, "barrier", lambda self: said.append("barrier"))
    monkeypatch.setattr(MpiCommunicator, "allreduce", lambda self, buffer: pytest.fail("MPI got a device's address"))
    backend = types.SimpleNamespace(runtime=types.SimpleNamespace(active=Active))
    buffer = np.arange(4.0).view(FakeArray)
    reduce = ranks.reducer(backend, buffer)
    ranks.reducer(backend, buffer)
    assert said == ["barrier", ("init", 3, 1, True)]
    reduce()
    assert buffer.tolist() == [0, 3, 6, 9]
    assert said[2:] == [("sum", None)]

    def broken(*arguments, **options):
        raise RuntimeError("NCCL is not available")

    fake.init_process_group = broken
    ranks._devices = None
    with pytest.raises(
        BackendUnavailableError, match=r"NCCL, which does not start: NCCL is not available\. pip install"
    ):
        ranks.reducer(backend, buffer)


def test_cupys_nccl_has_the_expected_signatures():
    pytest.importorskip("cupy")
    distributed = pytest.importorskip("cupyx.distributed", exc_type=ImportError)
    options = inspect.signature(distributed.init_process_group).parameters
    assert list(options)[:2] == ["n_devices", "rank"]
    assert "use_mpi" in options
    reduce = inspect.signature(distributed.NCCLBackend.all_reduce).parameters
    assert list(reduce) == ["self", "in_array", "out_array", "op", "stream"]


def test_errors_can_be_sent():
    import pickle

    error = pickle.loads(pickle.dumps(DistributedError("no", 3)))
    assert (str(error), error.rank) == ("no", 3)
