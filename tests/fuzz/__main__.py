"""Try mutated inputs on the readers of files and descriptions; exit with 1 if one violates the guarantees."""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.targets import TARGETS
from tests.fuzz.trial import Finding, Tally
from tests.fuzz.worker import MEMORY, NOTE, NOTE_BYTES

ROOT = Path(__file__).parents[2]

#: Inputs per worker; then a new worker takes over.
_SHARE = 20_000

#: Seconds without a new input after which a worker is considered hung, out of reach of its own timer.
_SILENCE = 60.0


def main() -> int:
    options = _options()
    names = options.targets or list(TARGETS)
    begin = time.monotonic()
    with ThreadPoolExecutor(options.jobs) as pool:
        share = options.seconds * options.jobs / len(names)
        tallies = dict(zip(names, pool.map(lambda name: _run(name, options, share), names), strict=True))
    _print(tallies, time.monotonic() - begin, options)
    return 1 if any(tally.findings for tally in tallies.values()) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="time for all targets together (default: 60)")
    parser.add_argument("--inputs", type=int, default=10**12, help="largest number of inputs for all targets together")
    parser.add_argument("--seed", type=int, default=0, help="seed of the mutations (default: 0)")
    parser.add_argument("--jobs", type=int, default=1, help="number of targets to run at the same time (default: 1)")
    parser.add_argument("--out", default="fuzz-findings", help="folder for inputs that violate the guarantees")
    parser.add_argument("--targets", nargs="*", choices=list(TARGETS), metavar="TARGET", help=", ".join(TARGETS))
    return parser.parse_args()


def _run(name: str, options: argparse.Namespace, seconds: float) -> Tally:
    """Try all inputs of a target, with one worker after the other."""
    total, end = Tally(), time.monotonic() + seconds
    shares = sum(TARGETS[target].share for target in options.targets or TARGETS)
    inputs = math.ceil(options.inputs * TARGETS[name].share / shares)
    while total.inputs < inputs and time.monotonic() < end:
        count = min(_SHARE, inputs - total.inputs)
        part = _work(name, options.seed, total.inputs, count, end - time.monotonic())
        total.inputs += part.inputs
        total.outcomes.update(part.outcomes)
        total.paths = max(total.paths, part.paths)
        total.seconds += part.seconds
        total.slowest = max(total.slowest, part.slowest)
        total.memory = max(total.memory, part.memory)
        total.findings += part.findings
        for finding in part.findings:
            # Write findings at once, so that they are not lost if the run is stopped.
            _keep(finding, Path(options.out))
        if part.inputs == 0:
            break
    return total


def _work(name: str, seed: int, first: int, count: int, seconds: float) -> Tally:
    # Files instead of pipes: a full pipe that is not read would block the worker.
    with (
        tempfile.NamedTemporaryFile(dir=MEMORY) as notes,
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
    ):
        notes.truncate(NOTE_BYTES)
        command = [sys.executable, "-m", "tests.fuzz.worker", name, str(seed), str(first), str(count), str(seconds)]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        with subprocess.Popen(
            [*command, notes.name], cwd=ROOT, env=environment, stdout=output, stderr=errors
        ) as process:
            hung = _watch(process, notes.name)
        output.seek(0)
        errors.seek(0)
        if process.returncode == 0 and not hung:
            result = json.load(output)
            result["findings"] = [
                Finding(**{**finding, "data": base64.b64decode(finding["data"])}) for finding in result["findings"]
            ]
            tally = Tally(**result)
            return tally
        contents, said = Path(notes.name).read_bytes(), errors.read().decode(errors="replace")
    number, length = NOTE.unpack(contents[: NOTE.size])
    what = "it hangs" if hung else f"the process ended with {process.returncode}"
    data = contents[NOTE.size : NOTE.size + length]
    crash = Finding(name, data, f"{what}\n{said[-3000:]}")
    return Tally(inputs=max(number - first + 1, 0), findings=[crash])


def _watch(process: subprocess.Popen[bytes], notes: str) -> bool:
    """Wait for the end of the worker; kill it and return True if it hangs."""
    last, since = b"", time.monotonic()
    while True:
        try:
            process.wait(1.0)
            return False
        except subprocess.TimeoutExpired:
            pass
        with open(notes, "rb") as file:
            now = file.read(NOTE.size)
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > _SILENCE:
            process.kill()
            return True


def _print(tallies: dict[str, Tally], seconds: float, options: argparse.Namespace) -> None:
    print(f"seed {options.seed}, {seconds:.0f} s")
    print(f"{'target':<12}{'inputs':>10}{'paths':>7}{'slowest ms':>12}{'memory MiB':>12}  outcomes")
    for name, tally in tallies.items():
        outcomes = ", ".join(f"{outcome} {count:,}" for outcome, count in tally.outcomes.most_common())
        figures = f"{tally.paths:>7}{1000 * tally.slowest:>12.1f}{tally.memory / 2**20:>12.1f}"
        print(f"{name:<12}{tally.inputs:>10,}{figures}  {outcomes}")
    total = sum(tally.inputs for tally in tallies.values())
    found = sum(len(tally.findings) for tally in tallies.values())
    print(f"{total:,} inputs, {found} of them broke the promise")


def _keep(finding: Finding, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{finding.target}-{hashlib.sha256(finding.data).hexdigest()[:12]}"
    path.write_bytes(finding.data)
    # Error messages may contain characters that cannot be encoded.
    what = finding.what.encode(errors="backslashreplace").decode()
    path.with_suffix(".txt").write_text(what)
    print(f"\n{path} ({len(finding.data):,} bytes)\n{what[-1500:]}")


if __name__ == "__main__":
    sys.exit(main())
