"""Make the README's pictures from a run of `nnbackend train`, as it prints and draws them.

    python docs/pictures.py [nnbackend train options]

Needs the extra `demo`. Writes docs/images/train.svg, curves.png and confusion.png.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

IMAGES = Path(__file__).parent / "images"


def main(options: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "digits"
        # Run from there, so that the printed folders are short names and not this machine's paths.
        environment = dict(os.environ)
        if "NNBACKEND_DATA_DIR" in environment:
            (Path(folder) / "mnist").symlink_to(Path(environment["NNBACKEND_DATA_DIR"]).resolve())
            environment["NNBACKEND_DATA_DIR"] = "mnist"
        command = [sys.executable, "-m", "nnbackend", "train", *options, "--out", run.name]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        for name in ("curves.png", "confusion.png"):
            shutil.copy(run / name, IMAGES / name)
    lines = [f"$ {' '.join(['nnbackend', 'train', *options, '--out', run.name])}", *done.stdout.splitlines()]
    with open("/dev/null", "w") as nowhere:
        console = Console(record=True, width=max(map(len, lines)) + 2, file=nowhere)
        for line in lines:
            console.print(Text(line))
        console.save_svg(str(IMAGES / "train.svg"), title="nnbackend train")


if __name__ == "__main__":
    main(sys.argv[1:])
