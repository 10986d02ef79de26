"""The first half hour on a GPU: whether everything is correct there, what runs, and how long it takes.

    python -m benchmarks.gpu_first              # all pieces, at most 20 minutes
    python -m benchmarks.gpu_first smoke tests  # some of them, each at most 8 minutes
    python -m benchmarks.gpu_first --dry-run    # everything on the CPU, as a test; the times are meaningless

Each piece writes its results as soon as it has them, and one that fails does not stop the others. Whatever may break
the GPU's context runs in a process of its own. Nothing is downloaded; tools that are not installed are skipped.

smoke      three networks in each way to run a step: losses and weights beside NumPy in float64, the kernels of the
           captured graph, and the time of a step in 2,000 replays
tests      `tests/gpu`, then the tests of `tests/backends` that need a GPU, with warnings shown instead of raised
kernels    the time of each operation of a step; with Nsight Compute also that of each kernel
peers      three rounds beside PyTorch, JAX and plain CuPy
sanitizer  memcheck, racecheck and synccheck on three steps of each network
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import nnbackend as nn
from benchmarks.common import CLASSES, NETS, PIXELS, SEED, images
from benchmarks.peers.rounds import TOLERANCE, disagreement
from nnbackend.backends.contract import Backend, Executor
from nnbackend.backends.cupy import CupyBackend, device_name, probe
from nnbackend.presets import PRESETS
from nnbackend.step.recorder import OptimizerState
from nnbackend.support.files import atomic_write
from nnbackend.training.run import TrainingRun

__all__ = ["PIECES", "WAYS", "Device", "kernel_names", "main", "names_in_dot"]

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(__file__).resolve().parent / "results" / "gpu"

#: Seconds of a piece, and of all.
PIECE_SECONDS, ALL_SECONDS = 480.0, 1200.0
#: Seconds of one network in one way.
_COMBINATION_SECONDS = 90.0

#: How a step can run: the options of the backend.
WAYS: dict[str, dict[str, bool]] = {
    "two kernels": {"two_kernels": True},
    "products with epilogues": {"two_kernels": False},
    "plain products": {"two_kernels": False, "epilogues": False},
}
REPLAYS = 2_000
#: Times that an operation is repeated in a graph, so that starting the graph does not count.
_REPEATED = 50
_TOOLS = ("memcheck", "racecheck", "synccheck")
#: Kernels of NVIDIA's libraries, whose checks would take minutes; versions of the tool differ in how they are named.
_NOT_OURS = ("regex:(gemm|cublas|cutlass|nvjet|splitK|globalKernel|gemv)", "kns=gemm")


class Device:
    """The GPU, or its emulation in a dry run, and how much is measured on it."""

    def __init__(self, dry: bool) -> None:
        self.dry = dry
        self.replays, self.repeated = (3, 2) if dry else (REPLAYS, _REPEATED)
        #: Rows of the timed epochs, in batches of the recipe's size; smaller ones in a dry run.
        self.rows = 96 if dry else 60_000

    def batch_size(self, net: str) -> int:
        return 8 if self.dry else PRESETS[net].batch_size

    def backend(self, way: str) -> CupyBackend:
        return CupyBackend(self._runtime(), **WAYS[way])

    def _runtime(self) -> Any:
        if self.dry:
            from tests.backends.cupy.emulator import EmulatedRuntime

            return EmulatedRuntime()
        from nnbackend.backends.cupy.runtime import CudaRuntime

        return CudaRuntime()

    def seconds(self, backend: CupyBackend, work: Callable[[], object]) -> float:
        """The time that the device needs for some work, measured by events on its stream."""
        if self.dry:
            begin = time.perf_counter()
            work()
            return time.perf_counter() - begin
        import cupy

        first, last = cupy.cuda.Event(), cupy.cuda.Event()
        with backend.runtime.active():
            first.record()
            work()
            last.record()
            last.synchronize()
        return float(cupy.cuda.get_elapsed_time(first, last)) / 1e3


# ---- a network in one way --------------------------------------------------------------------------------------------


def training(backend: Backend, net: str, rows: int, batch_size: int, dtype: str = "float32") -> TrainingRun:
    """A training run in the order of the rows."""
    recipe = PRESETS[net]
    network = nn.Network(recipe.layers(CLASSES), PIXELS, backend=backend, dtype=dtype, seed=SEED, input_scale=1 / 255)
    loss = network.set_loss(recipe.loss)
    feed = network.intake.feed(*images(rows), loss, batch_size)
    memory = OptimizerState.fresh(recipe.make_optimizer(), network.model)
    run = TrainingRun(network, loss, memory, feed, batch_size, shuffle=False)
    run.network = network
    return run


def smoke(device: Device, net: str, way: str) -> dict[str, Any]:
    """Correctness, kernels and time of a step."""
    backend, batch = device.backend(way), device.batch_size(net)
    # Adam turns rounding errors of tiny gradients into steps of normal size.
    steps = 10 if PRESETS[net].optimizer == "adam" else 20
    found = training(backend, net, steps * batch, batch)
    expected = training(nn.NumpyBackend(), net, steps * batch, batch, "float64")
    losses, reference = found.epoch().losses, expected.epoch().losses
    weights = [[w.ravel() for w in run.network.get_weights().values()] for run in (found, expected)]
    mine, theirs = map(np.concatenate, weights)
    result: dict[str, Any] = {
        "losses_differ": float(disagreement(losses.tolist(), reference.tolist())),
        "weights_differ": float(np.abs(mine - theirs).max() / np.abs(theirs).max()),
    }
    run = training(backend, net, device.rows, batch)
    executor, epoch_steps = run.executors[0]
    run.begin()
    executor.run(min(10, epoch_steps))
    graphs = getattr(executor, "_graphs", {})
    result |= {"executor": executor.name, "reason": executor.reason, "steps_of_graphs": sorted(graphs)}
    if 1 in graphs:
        names, result["graph"] = kernel_names(graphs[1])
        result |= {"kernels": names, "kernel_count": len(names)}
    result["microseconds"] = _step_times(device, backend, run, executor, epoch_steps)
    result["passes"] = result["losses_differ"] <= TOLERANCE and bool(graphs)
    return result


def _step_times(
    device: Device, backend: CupyBackend, run: TrainingRun, executor: Executor, epoch_steps: int
) -> dict[str, float]:
    """The time of a step in microseconds: median, least and most of the epochs that make up the replays."""
    times, steps = [], 0
    while steps < device.replays:
        # The counter starts again, so that the steps find their rows.
        run.begin()
        backend.synchronize()
        times.append(1e6 * device.seconds(backend, lambda: executor.run(epoch_steps)) / epoch_steps)
        steps += epoch_steps
    return {"median": statistics.median(times), "least": min(times), "most": max(times), "steps": steps}


def kernel_names(graph: Any) -> tuple[list[str], str]:
    """The kernels of a captured graph in the order of its description, and the description."""
    described = getattr(graph, "_graph", None)
    if described is None:  # the emulation's, a list of what was requested
        work = [(item.args[0], item.func.__name__ + getattr(item.args[-1], "kind", "")) for item in graph.work]
        names = [getattr(first, "name", requested) for first, requested in work]
        return names, "\n".join(names)
    text = described.debug_dot_str(1)
    return names_in_dot(text), text


def names_in_dot(text: str) -> list[str]:
    """The names of the kernels in a description in DOT: labels in which the launch's extents follow the name."""
    labels = re.findall(r'label="(.*?)"\s*[\];,]', text, re.DOTALL)
    launches = [label.replace("\\", "").split("<<<")[0] for label in labels if "<<<" in label.replace("\\", "")]
    return [launch.strip().split("\n")[-1].split("|")[-1].strip() for launch in launches]


def operations(device: Device, net: str, way: str) -> dict[str, Any]:
    """The time of each operation of a step, or of its two kernels, repeated in a graph; the gaps between them count."""
    backend, batch = device.backend(way), device.batch_size(net)
    run = training(backend, net, device.rows, batch)
    executor = run.executors[0][0]
    run.begin()
    executor.run(1)
    found = []
    for name, work in (part for bound in executor._plain._bound for part in _launches(backend, *bound)):
        # Counters go on with each repetition.
        run.begin()
        backend.synchronize()
        graph = backend.runtime.capture(partial(_repeat, work, device.repeated))
        graph.launch()
        backend.synchronize()
        run.begin()
        seconds = device.seconds(backend, graph.launch) / device.repeated
        names = kernel_names(graph)[0]
        names = names[: len(names) // device.repeated]
        found.append({"operation": name, "microseconds": 1e6 * seconds, "kernels": names})
    return {"executor": executor.name, "operations": found, "sum": sum(each["microseconds"] for each in found)}


def _repeat(work: Callable[[], object], times: int) -> None:
    for _ in range(times):
        work()


def _launches(
    backend: CupyBackend, operation: Callable[..., object], arguments: Sequence[Any]
) -> list[tuple[str, Callable[[], object]]]:
    """An operation by name; a step in two kernels as two, because each of them can be repeated alone."""
    name = getattr(operation, "__name__", str(operation))
    if operation != backend.run_dense_step:
        return [(name, partial(operation, *arguments))]

    def launch(kind: str, kernel: str, *given: Any, **options: Any) -> None:
        if kernel.startswith(f"dense_step.{kind}"):
            backend._launch(kernel, *given, **options)

    return [(f"{name}: {kind}", partial(arguments[0].launch, partial(launch, kind))) for kind in ("rows", "update")]


def steps(device: Device, net: str, way: str) -> dict[str, Any]:
    """Three steps without a graph, for tools that watch kernels; a profiler records only these."""
    backend, batch = device.backend(way), device.batch_size(net)
    run = training(backend, net, 8 * batch, batch)
    executor = run.executors[0][0]
    run.begin()
    executor.run(1)
    backend.synchronize()
    if not device.dry:
        import cupy

        cupy.cuda.profiler.start()
    executor._plain.run(3)
    backend.synchronize()
    if not device.dry:
        cupy.cuda.profiler.stop()
    return {"executor": executor.name, "finite": all(np.isfinite(w).all() for w in run.network.get_weights().values())}


_CHILDREN: dict[str, Callable[[Device, str, str], dict[str, Any]]] = {
    "smoke": smoke, "operations": operations, "steps": steps,
}  # fmt: skip


# ---- pieces ----------------------------------------------------------------------------------------------------------


class Piece:
    """A piece: where it writes, and the time it has."""

    def __init__(self, device: Device, folder: Path, seconds: float) -> None:
        self.device, self.folder = device, folder
        self._end = time.monotonic() + seconds

    def left(self, most: float = PIECE_SECONDS) -> float:
        return max(1.0, min(most, self._end - time.monotonic()))

    def write(self, name: str, result: Any) -> None:
        text = result if isinstance(result, str) else json.dumps(result, indent=1) + "\n"
        with atomic_write(self.folder / name) as stream:
            stream.write(text.encode())

    def ran(self, command: Sequence[str], most: float = PIECE_SECONDS) -> tuple[int | None, str]:
        """The exit code of a command, None if its time was up, and its output."""
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
            try:
                options: dict[str, Any] = {"stdout": output, "stderr": subprocess.STDOUT, "cwd": ROOT}
                done = subprocess.run(command, timeout=self.left(most), **options)
                code: int | None = done.returncode
            except subprocess.TimeoutExpired:
                code = None
            except OSError as error:
                return 127, str(error)
            output.seek(0)
            return code, output.read()

    def each(self, child: str, report: Callable[[list[dict[str, Any]]], None]) -> list[dict[str, Any]]:
        """Run a function for every network and way, each in its own process, and report after each."""
        results: list[dict[str, Any]] = []
        for net in NETS:
            for way in WAYS:
                result = {"net": net, "way": way} | self._one(child, net, way)
                results.append(result)
                report(results)
                said = {k: v for k, v in result.items() if isinstance(v, float | int | str) and k != "graph"}
                print(f"{child}: {net}, {way}: {str(result.get('error') or said)[-600:]}", flush=True)
        return results

    def _one(self, child: str, net: str, way: str) -> dict[str, Any]:
        if self.device.dry:
            return _CHILDREN[child](self.device, net, way)
        code, output = self.ran(command_of(child, net, way), _COMBINATION_SECONDS)
        last = output.strip().rpartition("\n")[2]
        if code == 0 and last.startswith("{"):
            return dict(json.loads(last))
        return {"error": f"exit code {code}: {output[-3000:]}", "passes": False}


def command_of(child: str, net: str, way: str) -> list[str]:
    """The command that runs a child of a piece."""
    return [sys.executable, "-m", "benchmarks.gpu_first", "--child", child, net, way]


def run_smoke(piece: Piece) -> bool:
    def report(results: list[dict[str, Any]]) -> None:
        graphs = [f"==== {r['net']}, {r['way']}\n{r['graph']}" for r in results if "graph" in r]
        piece.write("graphs.txt", "\n".join(graphs))
        piece.write("smoke.json", [{k: v for k, v in r.items() if k != "graph"} for r in results])

    return all(result["passes"] for result in piece.each("smoke", report))


def run_tests(piece: Piece) -> bool:
    """Without settings that need plugins, and with warnings that are shown."""
    options = ["-q", "-rs", "-o", "addopts=", "-o", "filterwarnings=default", "-p", "no:cacheprovider"]
    options += ["--continue-on-collection-errors", "--tb=short", "--durations=10"]
    chosen = [["tests/gpu", "--ignore=tests/gpu/test_sanitizer.py"], ["tests/backends", "-m", "gpu"]]
    if piece.device.dry:
        chosen = [["tests/gpu/test_device.py", "-k", "device_has_a_name"]]
    text, good = "", True
    for each in chosen:
        command = [sys.executable, "-m", "pytest", *each, *options]
        code, output = piece.ran(command, piece.left() / 2 if each is chosen[0] else PIECE_SECONDS)
        # 5: no test was chosen.
        good = good and code in (0, 5)
        text += f"$ pytest {' '.join(each)}: exit code {code}\n{output}\n"
        piece.write("tests.txt", text)
        print(f"tests: {' '.join(each)}: exit code {code}: {output.strip().rpartition(chr(10))[2]}", flush=True)
    return good


def run_kernels(piece: Piece) -> bool:
    profiler = None if piece.device.dry else _tool("ncu", "nsight-compute")
    found = piece.each("operations", lambda results: piece.write("kernels.json", results))
    for result in found if profiler else []:
        options = ["--csv", "--metrics", "gpu__time_duration.sum", "--profile-from-start", "off"]
        options += ["--clock-control", "none"]
        command = command_of("steps", result["net"], result["way"])
        code, output = piece.ran([profiler, *options, "--target-processes", "all", *command], _COMBINATION_SECONDS)
        result["ncu"] = {"code": code, "rows": [line for line in output.splitlines() if line.startswith('"')][:400]}
        if not result["ncu"]["rows"]:
            result["ncu"]["output"] = output[-2000:]
        piece.write("kernels.json", found)
    return all("error" not in result for result in found)


def run_peers(piece: Piece) -> bool:
    options = ["--dry-run", "--contenders", "cupy"] if piece.device.dry else ["--rounds", "3"]
    command = [sys.executable, "-m", "benchmarks.gpu", "nets", *options, "--out", str(piece.folder)]
    code, output = piece.ran(command)
    piece.write("peers.txt", f"exit code {code}\n{output}")
    print(f"peers: exit code {code}\n{output[-2500:]}", flush=True)
    return code == 0


def run_sanitizer(piece: Piece) -> bool:
    """Checks of our own kernels; without the filter if the installed version does not have it."""
    if piece.device.dry:
        piece.each("steps", lambda results: piece.write("sanitizer.txt", json.dumps(results)))
        return True
    sanitizer = _tool("compute-sanitizer", "cuda/compute-sanitizer")
    if sanitizer is None:
        piece.write("sanitizer.txt", "compute-sanitizer is not installed\n")
        return True
    text, good = "", True
    # The third way has no kernels of ours that the first two lack.
    for tool in _TOOLS:
        for net, way in ((net, way) for net in NETS for way in list(WAYS)[:2]):
            command = command_of("steps", net, way)
            options = ["--tool", tool, "--error-exitcode", "9"]
            for filters in (*(["--kernel-regex-exclude", each] for each in _NOT_OURS), []):
                code, output = piece.ran([sanitizer, *options, *filters, *command], _COMBINATION_SECONDS)
                # Racecheck's is a "RACECHECK SUMMARY", that of the others an "ERROR SUMMARY".
                if "SUMMARY" in output or code is None:
                    break
            good = good and code == 0
            text += f"==== {tool}, {net}, {way}: exit code {code}\n{output[-4000:]}\n"
            piece.write("sanitizer.txt", text)
            print(f"sanitizer: {tool}, {net}, {way}: exit code {code}", flush=True)
    return good


PIECES: dict[str, Callable[[Piece], bool]] = {
    "smoke": run_smoke, "tests": run_tests, "kernels": run_kernels, "peers": run_peers, "sanitizer": run_sanitizer,
}  # fmt: skip


def _tool(name: str, folder: str) -> str | None:
    homes = ["/usr/local/cuda", *map(str, Path("/opt/nvidia").glob(f"{folder}/*"))]
    places = [os.environ.get("PATH", ""), *homes, *(str(Path(home, "bin")) for home in homes if home)]
    return shutil.which(name, path=os.pathsep.join(places))


# ---- the command -----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the pieces; returns 0 if all were good."""
    options = _parser().parse_args(arguments)
    device = Device(options.dry_run)
    if not device.dry and (reason := probe()[0]) is not None:
        print(f"{reason}. With --dry-run, everything runs on the CPU.", file=sys.stderr)
        return 1
    if options.child:
        child, net, way = options.child
        print(json.dumps(_CHILDREN[child](device, net, way)))
        return 0
    folder = Path(options.out or (tempfile.mkdtemp(prefix="gpu-first-") if device.dry else FOLDER)).resolve()
    end = time.monotonic() + ALL_SECONDS
    summary: dict[str, Any] = {"device": "none: a dry run on the CPU" if device.dry else device_name()}
    for name in options.pieces or PIECES:
        piece = Piece(device, folder, min(PIECE_SECONDS, end - time.monotonic()))
        begin = time.monotonic()
        try:
            summary[name] = {"good": PIECES[name](piece)}
        except Exception as error:
            # The others may still say something.
            summary[name] = {"good": False, "error": f"{type(error).__name__}: {error}"}
        summary[name]["seconds"] = round(time.monotonic() - begin, 1)
        piece.write("summary.json", summary)
        print(f"{name}: {summary[name]}", flush=True)
    print(f"results: {folder}")
    return 0 if all(each["good"] for each in summary.values() if isinstance(each, dict)) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_first", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pieces", nargs="*", choices=[[], *PIECES], help="what to run (default: all)")
    parser.add_argument("--out", metavar="FOLDER", help="of results (default: benchmarks/results/gpu)")
    parser.add_argument("--dry-run", action="store_true", help="run a small version on the CPU, as a test")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
