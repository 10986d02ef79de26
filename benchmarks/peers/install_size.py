"""How much of a disk a package and everything it needs take, as they are installed here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

__all__ = ["install_bytes", "with_requirements"]


def install_bytes(name: str) -> int:
    """Bytes of a distribution's files and of all it requires, without the bytecode that Python makes of them."""
    return sum(_bytes(each) for each in with_requirements(name).values())


def with_requirements(name: str) -> dict[str, Distribution]:
    """The distribution and all that it requires here, by normalised name. What is not installed does not count."""
    found: dict[str, Distribution] = {}
    waiting = [name]
    while waiting:
        normalised = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if normalised in found:
            continue
        try:
            found[normalised] = distribution(normalised)
        except PackageNotFoundError:
            continue
        waiting += _requirements(found[normalised])
    return found


def _requirements(owner: Distribution) -> Iterator[str]:
    from packaging.requirements import Requirement

    for text in owner.requires or ():
        requirement = Requirement(text)
        # Extras are nobody's who did not ask for them.
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement.name


def _bytes(owner: Distribution) -> int:
    paths = [Path(str(owner.locate_file(file))) for file in owner.files or ()]
    if owner.metadata["Name"] == "nnbackend":
        # Installed for development it consists of a link; what counts is what the link points to.
        import nnbackend

        paths += Path(nnbackend.__file__).parent.rglob("*")
    counted = {path.resolve() for path in paths if path.suffix != ".pyc" and "__pycache__" not in path.parts}
    return sum(path.stat().st_size for path in counted if path.is_file())
