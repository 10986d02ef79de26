"""The states in which programs use this package."""

from __future__ import annotations

import contextlib
import decimal
import functools
import gc
import inspect
import io
import locale
import logging
import os
import random
import signal
import sys
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

__all__ = ["SURROUNDINGS", "Terminal", "output"]

#: A surrounding is a context manager that takes an empty folder.
Surrounding = Callable[[Path], contextlib.AbstractContextManager[None]]
SURROUNDINGS: list[Surrounding] = []


def surrounding(function: Callable[[Path], Iterator[None]]) -> Surrounding:
    """Add a surrounding: a function that yields once. What follows is also run after a failure, so that one surrounding
    does not affect the tests of others."""

    @contextlib.contextmanager
    @functools.wraps(function)
    def made(folder: Path) -> Iterator[None]:
        steps = function(folder)
        next(steps)
        try:
            yield
        finally:
            next(steps, None)

    SURROUNDINGS.append(made)
    return made


# ---- streams -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def output(stream: Any) -> Iterator[None]:
    """Standard output and standard error are this object."""
    before = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = stream
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


@surrounding
def no_streams(folder):
    """As in programs with windows only, and in services."""
    before, sys.stdin = sys.stdin, None
    with output(None):
        yield
    sys.stdin = before


@surrounding
def closed_streams(folder):
    stream = io.StringIO()
    stream.close()
    with output(stream):
        yield


@surrounding
def a_stream_that_only_writes(folder):
    class OnlyWrites:
        def write(self, text):
            pass

    with output(OnlyWrites()):
        yield


@surrounding
def an_object_that_is_no_stream(folder):
    with output(object()):
        yield


@surrounding
def a_stream_of_bytes(folder):
    with output(io.BytesIO()):
        yield


@surrounding
def an_ascii_stream(folder):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with output(stream):
        yield
    stream.flush()
    assert b"val_loss" in stream.buffer.getvalue()


@surrounding
def a_string_buffer(folder):
    with output(io.StringIO()):
        yield


@surrounding
def a_broken_pipe(folder):
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w", buffering=1)
    with output(stream):
        yield
    with contextlib.suppress(BrokenPipeError):
        stream.close()


@surrounding
def a_full_disk_for_the_output(folder):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    stream = open("/dev/full", "w", buffering=1)  # noqa: SIM115
    with output(stream):
        yield
    with contextlib.suppress(OSError):
        stream.close()


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    encoding = "ascii"

    def isatty(self) -> bool:
        return True


@surrounding
def a_terminal(folder):
    with output(Terminal()):
        yield


@surrounding
def a_terminal_that_is_gone(folder):
    class Gone(Terminal):
        def write(self, text):
            raise OSError(5, "Input/output error")

    with output(Gone()):
        yield


@surrounding
def a_terminal_with_the_programs_own_bar(folder):
    from rich.progress import Progress

    with output(Terminal()), Progress() as bar:
        bar.add_task("the program", total=3)
        yield


# ---- NumPy and warnings --------------------------------------------------------------------------------------


def raise_it(kind: str, flag: int) -> None:
    raise AssertionError(kind)


@surrounding
def numpy_raises(folder):
    with np.errstate(all="raise"):
        yield


@surrounding
def numpy_calls_a_function(folder):
    with np.errstate(all="call", call=raise_it):
        yield


@surrounding
def numpy_warns_and_warnings_are_errors(folder):
    with np.errstate(all="warn"), warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@surrounding
def numpy_prints_little(folder):
    with np.printoptions(precision=1, threshold=2, edgeitems=1, suppress=True, legacy="1.13"):
        yield


@surrounding
def small_numpy_buffers(folder):
    before = np.setbufsize(16)
    yield
    np.setbufsize(before)


@surrounding
def seeded_generators(folder):
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    yield
    random.setstate(before[0])
    np.random.set_state(before[1])  # noqa: NPY002


@surrounding
def another_decimal_context(folder):
    with decimal.localcontext(decimal.Context(prec=3, traps=[decimal.Inexact])):
        yield


# ---- the interpreter -----------------------------------------------------------------------------------------


@surrounding
def a_locale_with_decimal_commas(folder):
    before = locale.setlocale(locale.LC_ALL)
    for name in ("de_DE.UTF-8", "de_DE.utf8", "de_DE", "fr_FR.UTF-8", "es_ES.UTF-8"):
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_ALL, name)
            break
    else:
        pytest.skip("no locale with decimal commas is installed")
    yield
    locale.setlocale(locale.LC_ALL, before)


@surrounding
def a_working_directory_that_is_gone(folder):
    before = os.getcwd()
    gone = folder / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    yield
    os.chdir(before)


@surrounding
def no_garbage_collection(folder):
    gc.disable()
    yield
    gc.enable()


@surrounding
def frequent_garbage_collection(folder):
    before = gc.get_threshold()
    gc.set_threshold(50)
    yield
    gc.set_threshold(*before)


@surrounding
def little_recursion(folder):
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 90)
    yield
    sys.setrecursionlimit(before)


@surrounding
def no_arguments(folder):
    before, sys.argv = sys.argv, []
    yield
    sys.argv = before


@surrounding
def a_debugger(folder):
    def trace(frame, event, argument):
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    yield
    sys.settrace(before)


@surrounding
def a_profiler(folder):
    sys.setprofile(lambda frame, event, argument: None)
    yield
    sys.setprofile(None)


@surrounding
def traced_memory(folder):
    tracemalloc.start(5)
    yield
    tracemalloc.stop()


@surrounding
def all_messages_are_logged(folder):
    handler = logging.StreamHandler(io.StringIO())
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield
    root.removeHandler(handler)
    root.setLevel(level)


@surrounding
def hurried_threads(folder):
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


# ---- signals -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def handler(number: int, handle: Any) -> Iterator[None]:
    before = signal.signal(number, handle)
    try:
        yield
    finally:
        signal.signal(number, before)


@surrounding
def own_signal_handlers(folder):
    with handler(signal.SIGINT, lambda *_: None), handler(signal.SIGTERM, lambda *_: None):
        yield


@surrounding
def ignored_signals(folder):
    with handler(signal.SIGINT, signal.SIG_IGN), handler(signal.SIGTERM, signal.SIG_IGN):
        yield


@surrounding
def default_signals(folder):
    with handler(signal.SIGINT, signal.SIG_DFL), handler(signal.SIGTERM, signal.SIG_DFL):
        yield


@surrounding
def a_timer(folder):
    """It interrupts system calls and Python a thousand times a second, as profilers do."""
    with handler(signal.SIGPROF, lambda *_: None):
        signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
        yield
        signal.setitimer(signal.ITIMER_PROF, 0)
