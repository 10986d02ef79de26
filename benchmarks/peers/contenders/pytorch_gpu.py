"""PyTorch on a GPU, float32: eager, with mode "reduce-overhead", and as a manually captured CUDA graph."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peers.contenders import pytorch
from benchmarks.peers.contenders.base import Training
from benchmarks.peers.contenders.pytorch import Loss, make_network
from benchmarks.peers.data import Weights
from benchmarks.peers.dry import is_dry
from benchmarks.peers.works import Work

__all__ = ["ByHand", "Eager", "ReduceOverhead"]


class Eager(pytorch.Eager):
    """Images and the epoch's order are on the device, and nothing is read back."""

    device = torch.device("cpu" if is_dry() else "cuda")

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


class ReduceOverhead(Eager):
    """Forward pass, loss and backward pass compiled, and replayed as CUDA graphs by PyTorch itself."""

    def loss_of(self, network: torch.nn.Module) -> Loss:
        torch.compiler.reset()
        compiled = torch.compile(super().loss_of(network), dynamic=False, mode="reduce-overhead")

        def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            torch.compiler.cudagraph_mark_step_begin()
            # The next replay would overwrite the results of this one.
            return compiled(x, y).clone()

        return loss


class _Captured(Training):
    """The whole step in one graph, which reads the rows by an order on the device and advances its own position."""

    def __init__(self, contender: ByHand, work: Work, weights: Weights) -> None:
        self._work, self._device, self._wait = work, contender.device, contender.wait
        self._x, self._y = contender.images, contender.labels
        self._network = make_network(work, weights).to(self._device)
        kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[work.optimizer]
        options = {"capturable": True} if work.optimizer == "adam" and self._device.type == "cuda" else {}
        self._optimizer = kind(self._network.parameters(), lr=work.learning_rate, fused=True, **options)
        self._loss_of = contender.loss_of(self._network)
        self._order = torch.arange(work.rows, device=self._device)
        self._place = torch.zeros((), dtype=torch.int64, device=self._device)
        self._within = torch.arange(work.batch_size, device=self._device)
        self._replay = self._capture() if self._device.type == "cuda" else self._step

    def losses(self, batches: NDArray[np.int64]) -> list[float]:
        self._begin(torch.from_numpy(batches.ravel()))
        found = []
        for _ in batches:
            self._replay()
            found.append(self._loss.item())
        return found

    def shuffle(self) -> None:
        self._begin(torch.randperm(self._work.rows, device=self._device))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self._replay()
        self._wait()

    def _begin(self, order: torch.Tensor) -> None:
        self._order[: len(order)].copy_(order)
        self._place.zero_()

    def _step(self) -> None:
        rows = self._order.index_select(0, self._place * self._work.batch_size + self._within)
        self._optimizer.zero_grad(set_to_none=True)
        self._loss = self._loss_of(self._x.index_select(0, rows), self._y.index_select(0, rows))
        self._loss.backward()
        self._optimizer.step()
        self._loss = self._loss.detach()
        self._place += 1

    def _capture(self):  # type: ignore[no-untyped-def]
        """As in PyTorch's documentation: a few steps on a side stream, which are undone, and then the capture, which
        runs nothing."""
        before = [parameter.detach().clone() for parameter in self._network.parameters()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        self._optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        with torch.no_grad():
            for parameter, value in zip(self._network.parameters(), before, strict=True):
                parameter.copy_(value)
        for state in self._optimizer.state.values():
            for value in state.values():
                if isinstance(value, torch.Tensor):
                    value.zero_()
        return graph.replay


class ByHand(Eager):
    """Compiled, then captured manually together with the gather and the update: PyTorch's minimum of launches."""

    def build(self, work: Work, weights: Weights) -> Training:
        return _Captured(self, work, weights)

    def loss_of(self, network: torch.nn.Module) -> Loss:
        torch.compiler.reset()
        return torch.compile(super().loss_of(network), dynamic=False)
