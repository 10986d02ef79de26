"""NVIDIA's runtime compiler through ctypes; it needs neither driver nor GPU."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

__all__ = ["compile_cubin", "compile_ptx", "kept_cubin", "why_not"]


@cache
def _library() -> ctypes.CDLL:
    pathfinder = importlib.import_module("cuda.pathfinder")
    return ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("nvrtc").abs_path)


@cache
def why_not() -> str | None:
    """Why NVRTC cannot be used here; None if it can."""
    try:
        _library()
    except (ImportError, OSError, RuntimeError) as error:
        return f"NVRTC is not installed: {str(error).splitlines()[0]}"
    return None


def compile_cubin(source: str, name: str, options: Sequence[str]) -> tuple[bytes, str]:
    """Machine code for a GPU, and the compiler's log.

    Raises
    ------
    RuntimeError
        It does not compile; the message is the compiler's.
    """
    return _compile(source, name, options, "CUBIN")


def kept_cubin(folder: Path, source: str, name: str, options: Sequence[str]) -> tuple[bytes, str]:
    """What `compile_cubin` gives, from a folder that keeps it for this source, these options and this compiler."""
    key = hashlib.sha256(repr((source, name, options, _library()._name, _version())).encode()).hexdigest()
    path = folder / key
    if not path.exists():
        cubin, log = compile_cubin(source, name, options)
        text = log.encode()
        # In one step: another process may look for it.
        unfinished = folder / f"{key}.{os.getpid()}"
        unfinished.write_bytes(len(text).to_bytes(8, "little") + text + cubin)
        unfinished.replace(path)
    contents = path.read_bytes()
    end = 8 + int.from_bytes(contents[:8], "little")
    return contents[end:], contents[8:end].decode()


def _version() -> tuple[int, int]:
    major, minor = ctypes.c_int(), ctypes.c_int()
    assert _library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)) == 0
    return major.value, minor.value


def compile_ptx(source: str, name: str, options: Sequence[str]) -> str:
    """Assembly for a virtual GPU; errors as :func:`compile_cubin`."""
    return _compile(source, name, options, "PTX")[0].rstrip(b"\0").decode()


def _compile(source: str, name: str, options: Sequence[str], kind: str) -> tuple[bytes, str]:
    library = _library()
    program = ctypes.c_void_p()
    created = library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), 0, None, None)
    if created:
        raise RuntimeError(f"nvrtcCreateProgram: status {created}")
    try:
        texts = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = library.nvrtcCompileProgram(program, len(options), texts)
        log = _result(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program)
        message = log.rstrip(b"\0").decode().strip()
        if status:
            raise RuntimeError(f"{name} does not compile for {' '.join(options)}:\n{message}")
        get_size, get = getattr(library, f"nvrtcGet{kind}Size"), getattr(library, f"nvrtcGet{kind}")
        return _result(get_size, get, program), message
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _result(get_size, get, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    assert get_size(program, ctypes.byref(size)) == 0
    buffer = ctypes.create_string_buffer(size.value)
    assert get(program, buffer) == 0
    return buffer.raw
