"""The backend on PyTorch: the operations of the array API standard, and the named exceptions in which PyTorch's own
functions write to a given array, so that a step allocates no more than it has to."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from nnbackend.backends.array_api import ArrayApiBackend
from nnbackend.backends.array_api.executor import Replaced, StepExecutor
from nnbackend.backends.arrays import Array, HostArray
from nnbackend.backends.contract import Call, Executor
from nnbackend.backends.torch.activations import FORWARD, GRADIENT
from nnbackend.backends.torch.images import TorchImages, shared_places
from nnbackend.backends.torch.probe import best_device, probe
from nnbackend.errors import BackendUnavailableError

__all__ = ["TorchBackend"]


class TorchBackend(TorchImages, ArrayApiBackend):
    """PyTorch's tensors: on CPUs, and on the GPUs of NVIDIA, AMD, Intel and Apple.

    No setting of PyTorch is changed: its threads, its precision of products on GPUs and its choice of deterministic
    algorithms are those of the program. On a CPU the same bits are promised for the same number of its threads.

    Parameters
    ----------
    device : str, optional
        "cpu", "cuda", "xpu" or "mps", or one of several devices, such as "cuda:1". Default: the GPU that PyTorch
        finds, else the CPU.

    Raises
    ------
    BackendUnavailableError
        PyTorch or the device is missing; the message says what to install.
    """

    name = "torch"

    def __init__(self, device: str = "") -> None:
        reason, remedy = probe(device)
        requested = f"torch:{device}" if device else "torch"
        if reason is not None:
            raise BackendUnavailableError(requested, reason, remedy)
        place = torch.device(device or best_device(torch))
        super().__init__(torch, place)
        self.name = requested  # type: ignore[misc]
        self.device = f"{_description(place)}, PyTorch {torch.__version__}"
        self._on_host = place.type == "cpu"
        self.works_apart = not self._on_host

    # ---- memory --------------------------------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        self.check_threads()
        return _made(lambda: torch.zeros(shape, **self._placed(dtype)))

    def from_host(self, array: HostArray) -> Array:
        # PyTorch's own memory: sums in products may depend on its alignment.
        out = _made(lambda: torch.empty(array.shape, **self._placed(array.dtype)))
        self._fill(array, out)
        return out

    def asarray(self, array: HostArray) -> Array:
        flags = array.flags
        if not (self._on_host and flags.c_contiguous and flags.aligned and flags.writeable):
            return self.from_host(array)
        return _made(lambda: torch.from_numpy(array))

    def write(self, array: HostArray, out: Array) -> None:
        self._fill(array, out)
        self._host.written(out, array)

    def _fill(self, array: HostArray, out: Array) -> None:
        if out.device.type == "cpu":
            out.numpy()[...] = array
        else:
            out.copy_(torch.from_numpy(np.require(array, requirements=["C", "A", "W"])))

    def to_host(self, array: Array) -> HostArray:
        self._settle()
        # What comes from a GPU is a copy already.
        copy = True if array.device.type == "cpu" else None
        return np.array(self._shared(array), order="C", copy=copy)

    def _shared(self, array: Array) -> HostArray:
        shared: HostArray = array.cpu().numpy()
        return shared

    def copy(self, source: Array, out: Array) -> None:
        out.copy_(source)
        self._host.copied(out)

    def synchronize(self) -> None:
        super().synchronize()
        if not self._on_host:
            kind = self.library.device.type
            getattr(torch, kind).synchronize(*(() if kind == "mps" else (self.library.device,)))

    def free_bytes(self) -> int | None:
        if self.library.device.type != "cuda":
            return None
        free, _ = torch.cuda.mem_get_info(self.library.device)
        # Memory that PyTorch keeps for itself, and does not use, is free, too.
        kept = torch.cuda.memory_reserved(self.library.device) - torch.cuda.memory_allocated(self.library.device)
        return int(free + kept)

    # ---- batch, forward and backward -----------------------------------------------------------------------

    def gather(self, source: Array, order: Array, counter: Array, batch_size: int, scale: float, out: Array) -> None:
        start = int(self._numbers(counter)[0]) * batch_size
        rows = order[start : start + out.shape[0]]
        if source.dtype == out.dtype:
            torch.index_select(source, 0, rows, out=out)
        else:
            out.copy_(source.index_select(0, rows))
        if scale != 1:
            out.mul_(scale)

    def dense_forward(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        activation: str,
        alpha: float,
        preactivation: Array | None,
        out: Array,
    ) -> None:
        z = out if preactivation is None else preactivation
        if bias is None:
            torch.mm(x, weight, out=z)
        else:
            torch.addmm(bias, x, weight, out=z)
        if activation != "identity":
            self.activation_forward(z, activation, alpha, out)

    def activation_forward(self, z: Array, activation: str, alpha: float, out: Array) -> None:
        if activation in FORWARD:
            FORWARD[activation](z, alpha, out)
        else:
            super().activation_forward(z, activation, alpha, out)

    def activation_gradient(self, saved: Array, activation: str, alpha: float, upstream: Array, out: Array) -> None:
        if activation in GRADIENT:
            GRADIENT[activation](saved, alpha, upstream, out)
        else:
            super().activation_gradient(saved, activation, alpha, upstream, out)

    def dense_input_gradient(self, delta: Array, weight: Array, out: Array) -> None:
        torch.mm(delta, weight.t(), out=out)

    def dense_weight_gradient(self, x: Array, delta: Array, out: Array) -> None:
        torch.mm(x.t(), delta, out=out)

    def bias_gradient(self, delta: Array, out: Array) -> None:
        torch.sum(delta, 0, out=out)

    def softmax_cross_entropy(
        self, logits: Array, targets: Array, weights: Array | None, gradient: Array, row_losses: Array
    ) -> None:
        if targets.ndim == 2:
            super().softmax_cross_entropy(logits, targets, weights, gradient, row_losses)
            return
        row_losses[1].copy_(logits.argmax(1) == targets)
        labels = targets.long()[:, None]
        logarithms = torch.log_softmax(logits, 1)
        at_label = logarithms.gather(1, labels)
        torch.neg(at_label[:, 0], out=row_losses[0])
        torch.exp(logarithms, out=gradient)
        # The probability of the label minus 1.
        gradient.scatter_(1, labels, at_label.expm1_())
        gradient.mul_(1 / logits.shape[0])
        if weights is not None:
            gradient.mul_(weights[:, None])
            row_losses[0].mul_(weights)

    def record_loss(self, row_losses: Array, penalties: Array | None, counter: Array, trace: Array) -> None:
        if penalties is None and self.library.has_float64:
            line = trace[int(self._numbers(counter)[0])]
            torch.sum(row_losses, 1, dtype=torch.float64, out=line[:2])
            line[2:].zero_()
        else:
            super().record_loss(row_losses, penalties, counter, trace)

    def multiply(self, a: Array, b: Array, out: Array) -> None:
        torch.mul(a, b, out=out)

    def add(self, a: Array, b: Array, out: Array) -> None:
        torch.add(a, b, out=out)

    # ---- update --------------------------------------------------------------------------------------------

    def sgd_update(
        self,
        parameters: Array,
        gradients: Array,
        velocity: Array | None,
        counter: Array,
        learning_rates: Array,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
        momenta: Array | None = None,
    ) -> None:
        if momenta is not None:
            momentum = self._this_step(momenta, counter)
        direction = gradients.add(parameters, alpha=weight_decay) if weight_decay else gradients
        if velocity is not None:
            velocity.mul_(momentum).add_(direction)
            direction = direction.add(velocity, alpha=momentum) if nesterov else velocity
        parameters.add_(direction, alpha=_limited(-self._this_step(learning_rates, counter), parameters))

    def adam_update(
        self,
        parameters: Array,
        gradients: Array,
        first: Array,
        second: Array,
        counter: Array,
        learning_rates: Array,
        beta1: float,
        beta2: float,
        epsilon: float,
        weight_decay: float,
        decoupled: bool,
        momenta: Array | None = None,
    ) -> None:
        if momenta is not None:
            beta1 = self._this_step(momenta, counter)
        # The function of PyTorch's own optimisers, which passes over the memory once.
        update = torch._fused_adamw_ if decoupled else torch._fused_adam_
        # A tensor of its own, because networks on one backend may train at the same time.
        number = int(self._numbers(counter)[2]) + 1
        step = _made(lambda: torch.full((), number, dtype=torch.float32, device=parameters.device))
        update(
            [parameters], [gradients], [first], [second], [], [step],
            lr=self._this_step(learning_rates, counter), beta1=beta1, beta2=beta2, weight_decay=weight_decay,
            eps=epsilon, amsgrad=False, maximize=False,
        )  # fmt: skip

    def rmsprop_update(
        self,
        parameters: Array,
        gradients: Array,
        square: Array,
        counter: Array,
        learning_rates: Array,
        decay: float,
        epsilon: float,
        weight_decay: float,
    ) -> None:
        g = gradients.add(parameters, alpha=weight_decay) if weight_decay else gradients
        square.mul_(decay).addcmul_(g, g, value=1 - decay)
        rate = _limited(-self._this_step(learning_rates, counter), parameters)
        parameters.addcdiv_(g, square.sqrt().add_(epsilon), value=rate)

    # ---- running a recorded step ---------------------------------------------------------------------------

    def plain_executor(self, calls: Sequence[Call]) -> Executor:
        return _TorchExecutor(self, calls)

    def replaced(self, calls: Sequence[Call]) -> Replaced:
        return super().replaced(calls) | shared_places(self, calls)

    def check_threads(self) -> None:
        """Refuse to compute where PyTorch would wait forever.

        Raises
        ------
        BackendUnavailableError
            This process was forked from one that may have computed with several threads of GNU's OpenMP.
        """
        if _forked and self._on_host and torch.get_num_threads() > 1:
            raise BackendUnavailableError(
                self.name,
                "this process was forked from one that uses PyTorch, whose threads do not survive a fork",
                "Call torch.set_num_threads(1) in it first, or start it with multiprocessing's method 'spawn'",
            )


class _TorchExecutor(StepExecutor):
    """Calls the operations one by one, in full precision also where the program lowers that of its own networks."""

    _backend: TorchBackend

    def __init__(self, backend: TorchBackend, calls: Sequence[Call]) -> None:
        super().__init__(backend, calls)
        self._backend = backend

    def run(self, repeats: int) -> None:
        self._backend.check_threads()
        kind = self._backend.library.device.type
        if torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                super().run(repeats)
        else:
            super().run(repeats)


#: Whether this process was forked from one that had this module, and PyTorch's threads are lost.
_forked = False


def _lose_threads() -> None:
    global _forked
    _forked = True


if sys.platform == "linux":
    # Elsewhere PyTorch has another OpenMP, which starts its threads again.
    os.register_at_fork(after_in_child=_lose_threads)


def _made(make: Callable[[], Array]) -> Array:
    """A new tensor; a lack of memory is a MemoryError."""
    try:
        # Tensors made within a user's inference mode could not be written outside of it.
        with torch.inference_mode(False):
            return make()
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "allocate" in str(error):
            raise MemoryError(str(error).splitlines()[0]) from error
        raise


def _limited(factor: float, like: Array) -> float:
    """A factor as infinity where its type cannot hold it; PyTorch refuses such numbers."""
    return factor if abs(factor) <= torch.finfo(like.dtype).max else math.copysign(math.inf, factor)


def _description(device: torch.device) -> str:
    """The hardware, in readable text."""
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    if device.type == "mps":
        return "Apple GPU"
    return str(getattr(torch, device.type).get_device_name(device))
