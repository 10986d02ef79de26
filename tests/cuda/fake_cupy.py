"""The part of CuPy that ``runtime.py`` uses, on host memory: so that file runs in the tests too.

Memory is the emulator's, with guard zones; kernels are built for the CPU.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

from tests.cuda.emulator import EmulatedRuntime

__all__ = ["FakeCupy"]

STREAM_ADDRESS = 0x57BEA4


class FakeCupy:
    """Stands in for the module ``cupy``; `calls` notes what was asked of the driver."""

    def __init__(self) -> None:
        self._emulated = EmulatedRuntime()
        self.calls: list[str] = []
        #: As CuPy on an AMD GPU does.
        self.refuses_capture = False
        self.current = 0
        self.cuda = SimpleNamespace(
            runtime=_Runtime(self), Device=self._device, Stream=self._stream, cublas=None, nvrtc=None
        )

    def zeros(self, shape, dtype) -> Any:
        assert self.stream.entered, "allocated on the default stream"
        assert self.stream.captured is None, "memory of a capture belongs to the graph"
        self.calls.append("zeros")
        return self._emulated.zeros(shape, dtype)

    def RawModule(self, *, code: str, options: tuple[str, ...], backend: str) -> Any:  # noqa: N802
        assert backend == "nvrtc"
        assert isinstance(options, tuple)
        module = self._emulated.load(code, options)
        return SimpleNamespace(get_function=lambda name: SimpleNamespace(kernel=self._function(module.kernel(name))))

    def _function(self, kernel):
        def launch(grid, block, args, shared_mem=0, stream=None):
            assert isinstance(args, tuple)
            assert stream is self.stream
            self.calls.append(kernel.name)
            self.stream.do(lambda: self._emulated.launch(kernel, grid, block, args, shared_mem))

        return launch

    def _device(self, number: int) -> _Device:
        return _Device(self, number)

    def _stream(self, non_blocking: bool = False) -> _Stream:
        assert non_blocking
        self.stream = _Stream(self)
        return self.stream


class _Device:
    """``with cupy.cuda.Device(1):``"""

    def __init__(self, cupy: FakeCupy, number: int) -> None:
        self._cupy, self._number = cupy, number

    def __enter__(self) -> None:
        self._before, self._cupy.current = self._cupy.current, self._number

    def __exit__(self, *_) -> None:
        self._cupy.current = self._before


class _Stream:
    ptr = STREAM_ADDRESS
    entered = False

    def __init__(self, cupy: FakeCupy) -> None:
        self._cupy = cupy
        self._device = cupy.current
        self.captured = None

    def __enter__(self) -> None:
        assert self._cupy.current == self._device, "the stream belongs to another device"
        self.entered = True

    def __exit__(self, *_) -> None:
        self.entered = False

    def synchronize(self) -> None:
        assert self.captured is None, "the driver breaks a capture off that waits"
        self._cupy.calls.append("synchronize")

    def do(self, work) -> None:
        """Now, or when the graph is launched."""
        if self.captured is None:
            work()
        else:
            self.captured.append(work)

    def begin_capture(self) -> None:
        assert self.entered
        assert self.captured is None
        if self._cupy.refuses_capture:
            raise RuntimeError("hipErrorNotSupported")
        self._cupy.calls.append("begin_capture")
        self.captured = []

    def end_capture(self) -> _Graph:
        self._cupy.calls.append("end_capture")
        captured, self.captured = self.captured, None
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
            work()


class _Runtime:
    """``cupy.cuda.runtime``: addresses are host addresses."""

    memcpyHostToDevice, memcpyDeviceToHost, memcpyDeviceToDevice = 1, 2, 3  # noqa: N815

    def __init__(self, cupy: FakeCupy) -> None:
        self._cupy = cupy

    def getDevice(self) -> int:  # noqa: N802
        return self._cupy.current

    def getDeviceProperties(self, number: int) -> dict[str, bytes]:  # noqa: N802
        return {"name": f"Fake GPU {number}".encode()}

    def memcpyAsync(self, dst, src, size, kind, stream) -> None:  # noqa: N802
        assert stream == STREAM_ADDRESS
        self._cupy.calls.append(f"memcpyAsync {kind}")
        self._cupy.stream.do(lambda: ctypes.memmove(dst, src, size))

    def memcpy2DAsync(self, dst, dpitch, src, spitch, width, height, kind, stream) -> None:  # noqa: N802
        assert stream == STREAM_ADDRESS
        assert width <= dpitch, "the driver refuses a pitch below the width"
        assert width <= spitch, "the driver refuses a pitch below the width"
        self._cupy.calls.append(f"memcpy2DAsync {kind}")

        def copy() -> None:
            for row in range(height):
                ctypes.memmove(dst + row * dpitch, src + row * spitch, width)

        self._cupy.stream.do(copy)
