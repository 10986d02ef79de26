"""``python -m benchmarks.golden``; see the package's docstring."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import nnbackend as nn

# Importing these registers their configurations.
from . import estimators as estimators
from . import parts as parts
from . import runs as runs
from .compare import INTENDED, against, differences
from .digest import CONFIGURATIONS, run


def main() -> int:
    """Run or compare configurations; returns the exit code."""
    options = _options()
    if options.against:
        return _compare(options.against, options.only)
    # Make sure that the imported package is the one to compare.
    if options.package and not Path(nn.__file__).is_relative_to(options.package):
        sys.exit(f"the package is that of {Path(nn.__file__).parent} and not that of {options.package}")
    chosen = [name for name in CONFIGURATIONS if re.search(options.only, name)]
    if not chosen:
        sys.exit(f"no configuration has a name that {options.only!r} matches")
    results = {}
    for name in chosen:
        results[name] = run(name)
        if options.twice and run(name) != results[name]:
            results[name] = {"error": "the second time the results were others"}
        if not options.json:
            print(f"{name:45} {'  '.join(f'{part} {value}' for part, value in results[name].items())}", flush=True)
    if options.json:
        print(json.dumps(results, indent=1))
    return int(any("error" in result for result in results.values()))


def _compare(commit: str, only: str) -> int:
    then, now = against(commit, only)
    found = dict(differences(then, now))
    intended = {name: text for name, text in found.items() if name in INTENDED}
    for name, text in intended.items():
        print(f"intended: {name}: {text}\n    {INTENDED[name]}")
    others = {name: text for name, text in found.items() if name not in intended}
    for name, text in others.items():
        print(f"{name}: {text}")
    print(f"{len(now)} configurations, {len(others)} differ from {commit}, {len(intended)} on purpose")
    return int(bool(others))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.golden", description="Checksums of training runs.")
    parser.add_argument("--only", default="", metavar="PATTERN", help="configurations whose names this matches")
    parser.add_argument("--against", metavar="COMMIT", help="compare with the package of another commit")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--twice", action="store_true", help="run each configuration twice, and compare")
    parser.add_argument("--package", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
