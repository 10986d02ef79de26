"""Download a published file from the first of its mirrors that responds.

All mirrors are requested at once, each in its own thread. The first to respond transfers the file; the others wait in
case it fails. The caller waits only while bytes keep arriving, so a DNS lookup or a connection that hangs cannot block
it; the timeouts of HTTP libraries do not cover DNS.
"""

from __future__ import annotations

import hashlib
import io
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from nnbackend.datasets.idx import decompressed
from nnbackend.errors import DataError
from nnbackend.support.extras import demo_package_missing
from nnbackend.support.files import atomic_write

__all__ = ["PATIENCE", "RemoteFile", "contents_match", "fetch"]

PATIENCE = 8.0
"""Seconds without a byte after which a download is abandoned: below 10, including the time to import libraries."""

_CHUNK = 2**16


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Attributes
    ----------
    name : str
        Name without ``.gz``.
    size : int
        Uncompressed size in bytes.
    sha256 : str
        SHA-256 of the uncompressed contents in hexadecimal; mirrors may compress differently.
    """

    name: str
    size: int
    sha256: str


def fetch(file: RemoteFile, mirrors: Sequence[str], folder: Path, patience: float = PATIENCE) -> Path:
    """Download a gzipped file, check it, and store it uncompressed.

    The library requests takes proxies from the environment.

    Parameters
    ----------
    file : RemoteFile
        The file to download. Contents with another SHA-256 are never stored.
    mirrors : sequence of str
        URLs of folders, ending in ``/``, that contain ``<file.name>.gz``.
    folder : Path
        Folder for the file; created if it is missing.
    patience : float
        Longest time in seconds without a byte from any mirror.

    Returns
    -------
    Path
        The stored file, named ``file.name``.

    Raises
    ------
    DataError
        No mirror delivered the right file, requests is not installed, or the folder cannot be written. The message
        has a reason for each mirror; the folder is unchanged.
    """
    try:
        import requests  # noqa: F401  (used in the threads, where its absence would be reported once per mirror)
    except ImportError as error:
        raise demo_package_missing("downloading a data set", "requests") from error
    contents = _Race(file, [f"{mirror}{file.name}.gz" for mirror in mirrors], patience).run()
    path = folder / file.name
    try:
        with atomic_write(path) as stream:
            stream.write(contents)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def contents_match(path: Path, file: RemoteFile) -> bool:
    """Whether the file at `path`, plain or gzipped, has the contents of `file`; false if missing or damaged."""
    try:
        with open(path, "rb") as raw:
            _verified_contents(raw, file)
    except (OSError, DataError):
        return False
    return True


class _Race:
    """A download from several mirrors. One transfers at a time; the first correct file ends the race."""

    def __init__(self, file: RemoteFile, urls: Sequence[str], patience: float) -> None:
        self._file = file
        self._urls = urls
        self._patience = patience
        self._turn = threading.Lock()
        self._over = False
        self._last_arrival = time.monotonic()
        self._outcomes: queue.SimpleQueue[tuple[str, bytes | Exception]] = queue.SimpleQueue()

    def run(self) -> bytes:
        for url in self._urls:
            # Daemon threads: one that hangs in a DNS lookup cannot be stopped, but must not keep the process alive.
            threading.Thread(target=self._enter, args=(url,), daemon=True).start()
        failures: dict[str, str] = {}
        try:
            while len(failures) < len(self._urls):
                left = self._last_arrival + self._patience - time.monotonic()
                if left <= 0:
                    break
                try:
                    url, outcome = self._outcomes.get(timeout=left)
                except queue.Empty:
                    continue
                if isinstance(outcome, bytes):
                    return outcome
                failures[url] = _reason(outcome)
        finally:
            self._over = True
        silence = f"no answer within {self._patience:g} s"
        reasons = "; ".join(f"{urlsplit(url).netloc}: {failures.get(url, silence)}" for url in self._urls)
        raise DataError(f"{self._file.name}.gz: {reasons}")

    def _enter(self, url: str) -> None:
        try:
            self._outcomes.put((url, self._transfer(url)))
        except Exception as error:  # reported to the main thread
            self._outcomes.put((url, error))

    def _transfer(self, url: str) -> bytes:
        """Download into memory, so that no temporary file can be left behind."""
        import requests

        data = bytearray()
        # Half the patience, so that another mirror can take over if this one stops responding.
        with requests.get(url, stream=True, timeout=self._patience / 2) as response:
            response.raise_for_status()
            with self._turn:
                for chunk in response.iter_content(_CHUNK):
                    if self._over:
                        raise DataError("no longer needed")
                    self._last_arrival = time.monotonic()
                    data += chunk
                    # gzip adds less than this even to incompressible data.
                    if len(data) > self._file.size * 1.01 + 1024:
                        raise DataError(f"sends more than the {self._file.size} bytes of {self._file.name}")
                contents = _verified_contents(io.BytesIO(data), self._file)
                self._over = True
                return contents


def _verified_contents(raw: io.BufferedIOBase, file: RemoteFile) -> bytes:
    with decompressed(raw, file.name) as stream:
        # Read at most one byte more than expected, as protection against decompression bombs.
        contents = stream.read(file.size + 1)
    digest = hashlib.sha256(contents).hexdigest()
    if digest != file.sha256:
        raise DataError(f"wrong checksum: SHA-256 of {file.name} is {digest}, expected {file.sha256}")
    return contents


def _reason(error: Exception) -> str:
    """A short message for an exception of requests, whose own messages are very long."""
    import requests

    if isinstance(error, DataError):
        return str(error)
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the transfer broke off"
    if isinstance(error, requests.ConnectionError):
        return f"no connection ({_innermost(error)})"
    return f"{type(error).__name__}: {error}"


def _innermost(error: BaseException) -> str:
    """The message of the exception that originally caused `error`."""
    while error.__context__ is not None:
        error = error.__context__
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
