"""Make the README's pictures in docs/images/ from the commands that print or draw them.

    python docs/pictures.py [nnbackend train options]      train.svg, curves.png and confusion.png
    python docs/pictures.py --examples                     pictures of the examples; takes a few minutes
    python docs/pictures.py --notebook                     run examples/ten_minutes.ipynb and save its outputs
    python docs/pictures.py --demo                         demo.png, the page of nnbackend demo

Needs the extra `demo`; the notebook also needs `notebook` and nbclient; the page also needs `web`, an installed
Chromium and the package playwright.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from nnbackend import plotting

IMAGES = Path(__file__).parent / "images"


#: The pictures of each example that are shown.
EXAMPLES = {
    "circle": ("0-truth", "1-before", "3-round-2", "9-after"),
    "iris": ("iris",),
    "mnist_relu": ("misclassified", "weights"),
    "network3": ("kernels", "maps"),
}


def examples() -> None:
    for name, pictures in EXAMPLES.items():
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "nnbackend", "examples", "run", name, "--out", folder]
            subprocess.run(command, check=True)
            for picture in pictures:
                shutil.copy(Path(folder) / f"{picture}.png", IMAGES / f"{name}-{picture}.png")
    comparison()


def comparison() -> None:
    """Plot the stored results of `python -m benchmarks.tutorials.table`, because measuring takes long."""
    root = Path(__file__).parents[1]
    stored = json.loads((root / "benchmarks" / "results" / "tutorials" / "numba.json").read_text())
    sys.path.insert(0, str(root / "examples"))
    import mnist_classical

    axes = mnist_classical.comparison(stored["S10"]["0"], 10_000)
    plotting.save_figure(axes, IMAGES / "mnist_classical-comparison.png")


def notebook() -> None:
    import nbformat
    from nbclient import NotebookClient

    path = Path(__file__).parents[1] / "examples" / "ten_minutes.ipynb"
    book = nbformat.read(path, as_version=4)
    metadata = book.metadata.copy()
    # Do not store times or the Python version, so that a new run changes only the outputs.
    NotebookClient(book, kernel_name="python3", record_timing=False).execute()
    book.metadata = metadata
    nbformat.write(book, path)


def demo() -> None:
    """Draw a digit on the page in a headless browser, and take a screenshot."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.web.browser import browsing, draw_digit, find_chromium, serving

    chromium = find_chromium()
    if chromium is None:
        sys.exit("the page's picture needs an installed Chromium")
    with serving() as (_, address), browsing(chromium) as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
        page.goto(address)
        draw_digit(page, "3")
        # Wait for the answer and the end of the bars' animation.
        page.locator("#answer", has_text="3").wait_for()
        page.wait_for_timeout(500)
        page.screenshot(path=str(IMAGES / "demo.png"))


def main(options: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "digits"
        # Run in the folder, so that the output has short names instead of this machine's paths.
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
    if sys.argv[1:] == ["--examples"]:
        examples()
    elif sys.argv[1:] == ["--notebook"]:
        notebook()
    elif sys.argv[1:] == ["--demo"]:
        demo()
    else:
        main(sys.argv[1:])
