"""The curves of the page, drawn by its script in Node.js on the little of a browser that it needs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import nnbackend as nn

NODE = shutil.which("node")
if NODE is None:
    pytest.skip("needs Node.js", allow_module_level=True)

#: Draws a chart of 600 x 200 pixels for each of the cases on standard input, and prints what is drawn.
PROGRAM = """
import { readFileSync } from "node:fs";

globalThis.ResizeObserver = class { observe() {} };
globalThis.document = {
  createElementNS: (space, name) => ({
    name, attributes: {}, textContent: "", children: [],
    setAttribute(key, value) { this.attributes[key] = String(value); },
    replaceChildren(...parts) { this.children = parts; },
    append(part) { this.children.push(part); },
  }),
};
const { Chart } = await import(process.argv[2]);
const drawn = JSON.parse(readFileSync(0, "utf8")).map(([title, names, logarithmic, points, before]) => {
  const place = document.createElementNS("", "div");
  Object.assign(place, { clientWidth: 600, clientHeight: 200 });
  const chart = new Chart(place, title, names, logarithmic);
  chart.show(points, before, 3);
  return { label: place.attributes["aria-label"], parts: chart.svg.children };
});
console.log(JSON.stringify(drawn));
"""

TOP, BOTTOM = 8, 178


@pytest.fixture(scope="module")
def draw(tmp_path_factory):
    """Draws charts: cases of points, points of the previous run, and whether it is the chart of the loss."""
    folder = tmp_path_factory.mktemp("chart")
    script = Path(nn.__file__).parent / "web" / "page" / "chart.js"
    (folder / "chart.mjs").write_text(script.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "program.mjs").write_text(PROGRAM, encoding="utf-8")

    def run(*cases: Any) -> list[dict[str, Any]]:
        given = json.dumps(
            [
                [
                    "Loss" if loss else "Accuracy",
                    ["loss", "val_loss"] if loss else ["accuracy", "val_accuracy"],
                    loss,
                    points,
                    before,
                ]
                for points, before, loss in cases
            ]
        )
        command = [NODE, folder / "program.mjs", str(folder / "chart.mjs")]
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def losses(*values: Any, name: str = "loss") -> list[dict[str, Any]]:
    return [{"epoch": place + 1, name: value, f"val_{name}": value} for place, value in enumerate(values)]


def heights(chart: dict[str, Any], kind: str) -> list[float]:
    """The vertical positions of a curve's points."""
    (path,) = [part for part in chart["parts"] if part["name"] == "path" and part["attributes"]["class"] == kind]
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", path["attributes"]["d"])]
    return numbers[1::2]


def words(chart: dict[str, Any]) -> list[str]:
    return [part["textContent"] for part in chart["parts"] if part["attributes"].get("class") == "trouble"]


DIVERGED = "The run diverged: loss above 5,000"

CASES = {
    "ordinary": (losses(2.3, 0.5, 0.1), []),
    "above 5,000": (losses(2.3, 4e3, 1e7), [DIVERGED]),
    "from the start": (losses(6e3, 1e9, 1e30), [DIVERGED]),
    "not finite": (losses(2.3, 9.0, None), [DIVERGED]),
    "recovered": (losses(2.3, 1e5, 2.0), ["Clipped at 5,000"]),
    "at the edge": (losses(2.3, 9.0, 5000), []),
    "without test data": ([{"epoch": 1, "loss": 0.5}], []),
    "zero": (losses(0.5, 0.0, 0.0), []),
}


def test_no_loss_leaves_the_chart_and_a_diverging_run_is_named(draw):
    charts = draw(*[(points, [], True) for points, _ in CASES.values()])
    for chart, (name, (points, expected)) in zip(charts, CASES.items(), strict=True):
        found = heights(chart, "train")
        assert len(found) == len(points), name
        assert all(TOP <= height <= BOTTOM for height in found), (name, found)
        assert words(chart) == expected, name
        assert chart["label"].endswith(f". {expected[0]}" if expected else "on the test images"), name
        assert "NaN" not in json.dumps(chart), name
    rising = heights(charts[1], "train")
    assert rising[0] > rising[1] > rising[2] == TOP


def test_a_previous_run_that_diverged_stays_in_the_chart(draw):
    (chart,) = draw((losses(2.3, 1.0, 0.5), losses(3.0, 1e8, None), True))
    assert all(TOP <= height <= BOTTOM for kind in ("train", "train before") for height in heights(chart, kind))
    assert words(chart) == []


def test_an_unknown_accuracy_is_left_out(draw):
    (chart,) = draw((losses(0.5, None, 0.9, name="accuracy"), [], False))
    assert len(heights(chart, "train")) == 2
    assert words(chart) == []
