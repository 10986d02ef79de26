"""A training step and an epoch of the three networks, each with its batch size and optimizer."""

from __future__ import annotations

import time

from benchmarks import common
from benchmarks.common import NetSuite, median_seconds, rounded, training_run
from nnbackend.backends.contract import Backend
from nnbackend.presets import PRESETS
from nnbackend.step.replay import Watch
from nnbackend.training.run import TrainingRun


class TrainingStep(NetSuite):
    """One step in steady state: the recorded step is replayed on data on the device.

    Both results are from the same measurement; only the first is checked for regressions, see asv.conf.json.
    """

    def build(self, device: Backend, net: str) -> None:
        self.device = device
        self.batch_size = PRESETS[net].batch_size
        self.run = training_run(device, net, common.TRAIN_ROWS)
        self.executor, self.full_batches = self.run.executors[0]
        warm_up(self.run, device)
        self.steps = 1
        begin = time.perf_counter()
        self.replay()
        seconds = time.perf_counter() - begin
        # There are no data after the last full batch.
        self.steps = max(1, min(self.full_batches, round(common.BLOCK_SECONDS / seconds)))

    def replay(self) -> None:
        """A block of steps from the start of the epoch."""
        self.executor.run(self.steps)
        self.device.synchronize()

    def seconds_per_step(self) -> float:
        return median_seconds(self.replay, before=self.run.begin) / self.steps

    def track_us_per_step(self, backend: str, net: str) -> float:
        return rounded(self.seconds_per_step() * 1e6)

    def track_samples_per_second(self, backend: str, net: str) -> float:
        return rounded(self.batch_size / self.seconds_per_step())

    track_us_per_step.unit = "us"
    track_us_per_step.pretty_name = "training step"
    track_samples_per_second.unit = "samples/s"
    track_samples_per_second.pretty_name = "training throughput (higher is better)"


class _Stopped(Watch):
    """Ends an epoch before its first step."""

    def allow(self, done: int, steps: int) -> int:
        return 0


class TrainingEpoch(NetSuite):
    """An epoch over 20,000 rows as `fit` runs it: the new order, all steps with the shorter last batch, the losses."""

    # An epoch of the largest net takes seconds: three are enough, or one on a slow machine. `build` has warmed up.
    rounds = 1
    repeat = (1, 3, 20.0)
    number = 1
    warmup_time = 0

    def build(self, device: Backend, net: str) -> None:
        self.run = training_run(device, net, common.EPOCH_ROWS)
        warm_up(self.run, device)
        # Reading the losses is part of an epoch; an epoch stopped before its first step does only that.
        self.run.epoch(_Stopped())

    def time_epoch(self, backend: str, net: str) -> None:
        # The epoch ends by reading its losses, which waits for the device.
        self.run.epoch()

    time_epoch.pretty_name = "training epoch, 20,000 rows"


def warm_up(run: TrainingRun, device: Backend) -> None:
    """Run the first steps of full batches and of the shorter last batch, and return to the start."""
    run.begin()
    for executor, repeats in run.executors:
        executor.run(min(2, repeats))
    device.synchronize()
    run.begin()
