"""scikit-learn's own tests of its perceptrons, with this package's estimators in their place.

``python -m tests.interop.sklearn_suite`` prints how many pass; ``python -m tests.interop.sklearn_suite page`` writes it
to the documentation. The tests are those of the installed scikit-learn.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import sklearn
from sklearn import neural_network

import nnbackend as nn

#: The tests that read a private name of scikit-learn's estimators, and the name.
NEED_PRIVATE_NAMES = {
    "test_gradient": "_loss_grad_lbfgs",
    "test_learning_rate_warmstart": "_optimizer",
    "test_adaptive_learning_rate": "_optimizer",
    "test_n_iter_no_change": "_no_improvement_count",
    "test_n_iter_no_change_inf": "_no_improvement_count",
}

BACKENDS = ("numpy", "numba")

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "sklearn.md"
_MARKS = re.compile(r"(<!-- scikit-learn's tests -->\n).*(<!-- end -->)", re.DOTALL)


def load() -> ModuleType:
    """scikit-learn's file of tests, which imports this package's estimators instead of its own."""
    path = Path(neural_network.__file__).parent / "tests" / "test_mlp.py"
    # Pickles of the tests name it.
    name = "sklearn_mlp_tests_of_nnbackend"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neural_network, "MLPClassifier", nn.MLPClassifier)
        patch.setattr(neural_network, "MLPRegressor", nn.MLPRegressor)
        spec.loader.exec_module(module)
    return module


class _Counted:
    """A plug-in of pytest that counts the tests that passed and failed on each backend."""

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        backend = next((name for name in BACKENDS if re.search(rf"\b{name}\b", report.nodeid)), None)
        if backend is not None and report.when == "call":
            (self.passed if report.passed else self.failed)[backend] += 1


def text() -> str:
    """Run the tests; returns what the documentation says about them."""
    counted = _Counted()
    tests = Path(__file__).with_name("test_sklearn_own_tests.py")
    pytest.main(["-q", "-p", "no:cacheprovider", f"{tests}::TestOfScikitLearn"], plugins=[counted])
    lines = [
        f"`python -m tests.interop.sklearn_suite` runs the tests that scikit-learn {sklearn.__version__} has for its "
        "perceptrons, with this package's\nestimators in their place:",
        "",
    ]
    for backend in BACKENDS:
        passed = counted.passed[backend]
        count = passed + counted.failed[backend] + len(NEED_PRIVATE_NAMES)
        lines.append(f"- {backend}: {passed} of {count} tests pass")
    private = [f"- `{test}` (`{name}`)" for test, name in NEED_PRIVATE_NAMES.items()]
    left_out = f"{len(NEED_PRIVATE_NAMES)} are left out, because they read private names of scikit-learn's estimators:"
    return "\n".join([*lines, "", left_out, "", *private])


def main(arguments: list[str]) -> int:
    """Print the text, or write it to the page."""
    found = text()
    if arguments == ["page"]:
        page = PAGE.read_text(encoding="utf-8")
        assert _MARKS.search(page), f"{PAGE.name} has no marks"
        PAGE.write_text(_MARKS.sub(lambda match: f"{match[1]}{found}\n{match[2]}", page), encoding="utf-8")
    print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
