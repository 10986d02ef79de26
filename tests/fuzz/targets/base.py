"""What a target is."""

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
        Where its inputs may be written.

    Attributes
    ----------
    name : str
        Also the folder of its corpus.
    share : float
        How many of all inputs are for it, beside the other targets: quick ones have more.
    most_memory : int
        Bytes that reading an input may take, each input being at most `tests.fuzz.mutations.LONGEST` bytes long.
    seeds : list of bytes
        Inputs that are good, or broken in a way that is known.
    """

    name: ClassVar[str]
    share: ClassVar[float] = 1
    most_memory: ClassVar[int] = 64 << 20

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seeds = [path.read_bytes() for path in sorted((CORPUS / self.name).iterdir())]

    def mutate(self, chance: random.Random, data: bytes, other: bytes) -> bytes:
        """A broken input, made of `data` and maybe parts of `other`."""
        return mutate(chance, data, other)

    def close(self) -> None:
        """Give back what is not memory."""

    @abstractmethod
    def run(self, data: bytes) -> str | None:
        """Read it; a word for what came of it, where there is more than one thing that may.

        Raises
        ------
        NNBackendError, OSError
            It is refused.
        """
