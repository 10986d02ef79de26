"""A fake of the part of CuPy that ``runtime.py`` uses, on host memory.

Memory is the emulator's, with guard zones; kernels are built for the CPU.
"""

from __future__ import annotations

import collections
import ctypes
import gc
import threading
from types import SimpleNamespace
from typing import Any

from tests.backends.cupy.emulator import EmulatedRuntime

__all__ = ["FakeCupy"]

STREAM_ADDRESS = 0x57BEA4


class FakeCupy:
    """A fake of the module ``cupy``; `calls` records calls of the driver."""

    def __init__(self) -> None:
        self._emulated = EmulatedRuntime()
        self.calls: list[str] = []
        #: Like CuPy on an AMD GPU.
        self.refuses_capture = False
        #: How many captures end with an error, as after a forbidden call of another library.
        self.breaks_captures = 0
        self.current = 0
        # Like CuPy's pools, which keep memory that is no longer used: enqueued work may still use it.
        self._pool: list[Any] = []
        #: Devices on which memory was allocated.
        self.touched: set[int] = set()
        self.queues = _Queues()
        self.streams: dict[int, _Stream] = {}
        self.cuda = SimpleNamespace(
            runtime=_Runtime(self),
            Device=self._device,
            Stream=self._stream,
            Event=self._event,
            alloc_pinned_memory=self._pinned,
            cublas=None,
            nvrtc=None,
        )

    def zeros(self, shape, dtype) -> Any:
        assert self.stream.entered, "allocated on the default stream"
        self.touched.add(self.current)
        assert self.stream.captured is None, "memory of a capture belongs to the graph"
        self.calls.append("zeros")
        self._pool.append(self._emulated.zeros(shape, dtype))
        return self._pool[-1]

    def RawModule(self, *, code: str, options: tuple[str, ...], backend: str) -> Any:  # noqa: N802
        assert backend == "nvrtc"
        assert isinstance(options, tuple)
        module = self._emulated.load(code, options)
        return SimpleNamespace(get_function=lambda name: SimpleNamespace(kernel=self._function(module.kernel(name))))

    def _function(self, kernel):
        # A module is loaded when its first function is looked up.
        device = self.current

        def launch(grid, block, args, shared_mem=0, stream=None):
            assert self.current == device, "the kernel was loaded on another device"
            assert isinstance(args, tuple)
            assert stream is self.stream
            self.calls.append(kernel.name)
            self.stream.do(lambda: self._emulated.launch(kernel, grid, block, args, shared_mem))

        return launch

    def _device(self, number: int) -> _Device:
        return _Device(self, number)

    def _stream(self, non_blocking: bool = False) -> _Stream:
        assert non_blocking
        return _Stream(self)

    @property
    def stream(self) -> _Stream:
        """The stream of kernels, which is the first of the two that each runtime creates."""
        return self.queues.streams[-2]

    def _event(self, disable_timing: bool = False) -> _Event:
        assert disable_timing, "slower, and nobody looks at the time"
        return _Event(self)

    def _pinned(self, size: int) -> bytearray:
        self.calls.append("pinned")
        self._pool.append(bytearray(size))
        return self._pool[-1]

    def get_default_memory_pool(self) -> Any:
        return SimpleNamespace(free_bytes=lambda: 1 << 20)


class _Device:
    """``with cupy.cuda.Device(1):``"""

    def __init__(self, cupy: FakeCupy, number: int) -> None:
        self._cupy, self._number = cupy, number

    def __enter__(self) -> None:
        self._before, self._cupy.current = self._cupy.current, self._number

    def __exit__(self, *_) -> None:
        self._cupy.current = self._before

    def use(self) -> None:
        self._cupy.current = self._number


class _Queues:
    """The pending work of streams. It runs when a thread waits, in an order that favours `first`.

    Attributes
    ----------
    first : {"kernels", "copies"}
        The stream that runs as far ahead as possible; a missing dependency is detected with one of the two.
    """

    def __init__(self) -> None:
        self.first = "kernels"
        self.streams: list[_Stream] = []
        self._lock = threading.Lock()

    def run(self, until) -> None:
        """Run until ``until()`` is true; threads that fill host memory may also wait."""
        with self._lock:
            order = self.streams if self.first == "kernels" else self.streams[::-1]
            while not until():
                assert any(stream.advance() for stream in order), "streams wait for each other"


class _Event:
    def __init__(self, cupy: FakeCupy) -> None:
        self._cupy = cupy
        self.done = False

    def record(self, stream: _Stream) -> None:
        stream.do(lambda: setattr(self, "done", True))

    def synchronize(self) -> None:
        self._cupy.calls.append("wait")
        self._cupy.queues.run(lambda: self.done)


class _Stream:
    entered = False

    def __init__(self, cupy: FakeCupy) -> None:
        self._cupy = cupy
        self._device = cupy.current
        self._queue = collections.deque()
        self.captured = None
        cupy.queues.streams.append(self)
        self.ptr = STREAM_ADDRESS + len(cupy.streams)
        cupy.streams[self.ptr] = self

    def __enter__(self) -> None:
        assert self._cupy.current == self._device, "the stream belongs to another device"
        self.entered = True

    def __exit__(self, *_) -> None:
        self.entered = False

    def synchronize(self) -> None:
        assert self.captured is None, "the driver breaks a capture off that waits"
        self._cupy.calls.append("synchronize")
        self._cupy.queues.run(lambda: not self._queue)

    def do(self, work) -> None:
        """Run when its turn comes, or when the graph is launched."""
        (self._queue if self.captured is None else self.captured).append(work)

    def wait_event(self, event: _Event) -> None:
        assert self.captured is None
        self._queue.append(event)

    def advance(self) -> bool:
        """Run the next item if its dependencies are done."""
        if not self._queue or (isinstance(self._queue[0], _Event) and not self._queue[0].done):
            return False
        work = self._queue.popleft()
        if not isinstance(work, _Event):
            work()
        return True

    def begin_capture(self) -> None:
        assert self.entered
        assert self.captured is None
        assert not gc.isenabled(), "a collection could break the capture"
        if self._cupy.refuses_capture:
            raise RuntimeError("hipErrorNotSupported")
        self._cupy.calls.append("begin_capture")
        self.captured = []

    def end_capture(self) -> _Graph:
        self._cupy.calls.append("end_capture")
        captured, self.captured = self.captured, None
        if self._cupy.breaks_captures:
            self._cupy.breaks_captures -= 1
            raise RuntimeError("cudaErrorStreamCaptureInvalidated")
        return _Graph(self._cupy, self, captured)


class _Graph:
    def __init__(self, cupy: FakeCupy, stream: _Stream, captured) -> None:
        self._cupy, self._stream, self._captured = cupy, stream, captured

    def upload(self, stream) -> None:
        assert stream is self._stream
        self._cupy.calls.append("upload")

    def launch(self) -> None:
        assert self._stream.entered, "launched on another stream"
        self._cupy.calls.append("graph")
        for work in self._captured:
            self._stream.do(work)


class _Runtime:
    """``cupy.cuda.runtime``: addresses are host addresses."""

    memcpyHostToDevice, memcpyDeviceToHost, memcpyDeviceToDevice = 1, 2, 3  # noqa: N815

    def __init__(self, cupy: FakeCupy) -> None:
        self._cupy = cupy

    def getDevice(self) -> int:  # noqa: N802
        return self._cupy.current

    def getDeviceCount(self) -> int:  # noqa: N802
        return 2

    def getDeviceProperties(self, number: int) -> dict[str, bytes]:  # noqa: N802
        return {"name": f"Fake GPU {number}".encode()}

    def memGetInfo(self) -> tuple[int, int]:  # noqa: N802
        return 7 << 30, 80 << 30

    def memcpyAsync(self, dst, src, size, kind, stream) -> None:  # noqa: N802
        self._cupy.calls.append(f"memcpyAsync {kind}")
        self._cupy.streams[stream].do(lambda: ctypes.memmove(dst, src, size))

    def memcpy2DAsync(self, dst, dpitch, src, spitch, width, height, kind, stream) -> None:  # noqa: N802
        assert width <= dpitch, "the driver refuses a pitch below the width"
        assert width <= spitch, "the driver refuses a pitch below the width"
        self._cupy.calls.append(f"memcpy2DAsync {kind}")

        def copy() -> None:
            for row in range(height):
                ctypes.memmove(dst + row * dpitch, src + row * spitch, width)

        self._cupy.streams[stream].do(copy)
