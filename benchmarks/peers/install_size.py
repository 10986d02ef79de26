"""The installed size of a package with all its requirements."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

__all__ = ["install_bytes", "with_requirements"]


def install_bytes(name: str) -> int:
    """Bytes of the files of a distribution and its requirements, without compiled bytecode."""
    return sum(_bytes(each) for each in with_requirements(name).values())


def with_requirements(name: str) -> dict[str, Distribution]:
    """The distribution and its installed requirements, by normalised name."""
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
        # Skip the requirements of extras.
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement.name


def _bytes(owner: Distribution) -> int:
    paths = [Path(str(owner.locate_file(file))) for file in owner.files or ()]
    if owner.metadata["Name"] == "nnbackend":
        # An editable installation consists of a link; count the files that it points to.
        import nnbackend

        paths += Path(nnbackend.__file__).parent.rglob("*")
    counted = {path.resolve() for path in paths if path.suffix != ".pyc" and "__pycache__" not in path.parts}
    return sum(path.stat().st_size for path in counted if path.is_file())
