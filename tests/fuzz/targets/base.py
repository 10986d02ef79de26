"""The base class of targets."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from tests.fuzz.mutations import mutate

__all__ = ["CORPUS", "Target"]

CORPUS = Path(__file__).parent.parent / "corpus"


class Target(ABC):
    """A reader of files or descriptions.

    Parameters
    ----------
    folder : Path
        Folder for its inputs.

    Attributes
    ----------
    name : str
        Name of the target and of the folder of its corpus.
    share : float
        Relative number of inputs; fast targets have more.
    most_memory : int
        Most bytes of memory for an input of at most `tests.fuzz.mutations.LONGEST` bytes.
    seeds : list of bytes
        Valid inputs, and inputs with known damage.
    """

    name: ClassVar[str]
    share: ClassVar[float] = 1
    most_memory: ClassVar[int] = 64 << 20

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seeds = [path.read_bytes() for path in sorted((CORPUS / self.name).iterdir())]

    def mutate(self, chance: random.Random, data: bytes, other: bytes) -> bytes:
        """A mutated input from `data`, possibly with parts of `other`."""
        return mutate(chance, data, other)

    def close(self) -> None:
        """Release resources other than memory."""

    @abstractmethod
    def run(self, data: bytes) -> str | None:
        """Read an input; return a word for the outcome if several are possible.

        Raises
        ------
        NNBackendError, OSError
            The input is rejected.
        """
