"""The routes of the page's server, and whom it refuses."""

from __future__ import annotations

import socket

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from nnbackend.web.app import PAGE
from nnbackend.web.digits import check_strokes, draw, normalise
from nnbackend.web.guard import MOST_BYTES
from nnbackend.web.recogniser import Recogniser
from nnbackend.web.server import HOST, address, listen
from nnbackend.web.session import Session
from tests.web.conftest import CLASSES, PORT, made_up
from tests.web.handwriting import DIGITS

LINE = [[[0.2, 0.3], [0.6, 0.7]]]


def error(response, status: int) -> str:
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    return response.json()["error"]


# ---- what it answers -----------------------------------------------------------------------------------------


def test_every_file_of_the_page_is_served(page):
    for path in PAGE.iterdir():
        response = page.get(f"/{path.name}")
        assert response.status_code == 200
        assert response.content == path.read_bytes()
    assert page.get("/").content == (PAGE / "index.html").read_bytes()
    assert "text/javascript" in page.get("/app.js").headers["content-type"]


def test_the_page_fetches_nothing_from_elsewhere(page):
    for path in PAGE.iterdir():
        text = path.read_text()
        assert "https://" not in text
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    policy = page.get("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")


def test_it_describes_the_network_and_the_choices(page):
    told = page.get("/api/page").json()
    assert told["model"]["network"] == "784-12-7-10"
    assert told["model"]["classes"] == list(CLASSES)
    assert told["model"]["hidden"] == ["12 units, relu", "7 units, tanh"]
    assert told["model"]["backend"].startswith("numpy on CPU")
    assert "784-200-80-10" in [preset["name"] for preset in told["presets"]]
    assert ("numpy", True) in [(backend["name"], backend["usable"]) for backend in told["backends"]]


def test_a_drawing_is_answered_with_what_the_network_makes_of_it(page, network):
    answer = page.post("/api/look", {"strokes": DIGITS["5"]}).json()
    image = normalise(draw(check_strokes(DIGITS["5"])))
    assert answer["image"] == image.ravel().tolist()
    np.testing.assert_allclose(answer["outputs"], network.predict(image.reshape(1, 784))[0], atol=6e-5)
    assert [len(layer) for layer in answer["hidden"]] == [12, 7]
    assert min(answer["hidden"][0]) == 0 < max(answer["hidden"][0])
    assert min(answer["hidden"][1]) < 0


def test_an_empty_pad_is_no_digit(page):
    answer = page.post("/api/look", {"strokes": []}).json()
    assert answer["outputs"] is None
    assert set(answer["image"]) == {0}


def test_test_images_are_counted_round_and_round(page):
    data = made_up()
    count = len(data.y_test)
    answer = page.get(f"/api/test-images/{count + 2}").json()
    assert answer["image"] == data.x_test[2].tolist()
    assert answer["label"] == CLASSES[data.y_test[2]]
    error(page.get(f"/api/test-images/{2**31}"), 404)
    error(page.get("/api/test-images/-1"), 404)


def test_data_that_cannot_be_had_are_told_of(network):
    from tests.web.conftest import Page

    def nothing():
        raise nn.errors.DataError("there are no images")

    page = Page(Session(Recogniser(network, CLASSES, "a test"), nothing))
    assert error(page.get("/api/test-images/0"), 503) == "there are no images"


# ---- whom it refuses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:80", f"127.0.0.1:{PORT}.evil.example", ""]
)
def test_a_name_that_points_here_is_refused(page, host):
    assert "the address that it printed" in error(page.get("/", headers={"host": host}), 403)


def test_its_own_names_are_not(page):
    for name in ("127.0.0.1", "localhost", "LOCALHOST"):
        assert page.get("/", headers={"host": f"{name}:{PORT}"}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", f"https://127.0.0.1:{PORT}", "http://127.0.0.1:81"])
def test_requests_of_other_pages_are_refused(page, origin):
    response = page.client.post("/api/look", json={"strokes": LINE}, headers={"origin": origin})
    assert "its own page" in error(response, 403)
    own = {"origin": f"http://localhost:{PORT}"}
    assert page.client.post("/api/look", json={"strokes": LINE}, headers=own).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
def test_what_a_form_elsewhere_could_send_is_refused(page, kind):
    headers = {} if kind is None else {"content-type": kind}
    for path in ("/api/look", "/api/training", "/api/model"):
        assert "application/json" in error(page.client.post(path, content=b'{"strokes": []}', headers=headers), 400)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "must be a JSON object, received list"),
        (b'{"strokes": [[[NaN, 0.5]]]}', "JSON has no NaN"),
        (b'{"strokes": [[[1e999, 0.5]]]}', "finite number"),
        (b'{"strokes": [[[' + b"9" * 5000 + b", 0.5]]]}", "a whole number of 5000 digits"),
        (b'{"strokes": [[["' + b"9" * 5000 + b'", 0.5]]]}', "finite number"),
        (b'{"drawing": []}', "list of strokes"),
    ],
)
def test_hostile_bodies_get_one_clear_message(page, body, message):
    response = page.client.post("/api/look", content=body, headers={"content-type": "application/json"})
    told = error(response, 400)
    assert message in told
    assert len(told) <= 500


def test_a_body_without_end_is_not_read_to_its_end(page):
    sent = 0

    def endless():
        nonlocal sent
        while sent < 100 * MOST_BYTES:
            sent += 65536
            yield b" " * 65536

    response = page.client.post("/api/look", content=endless(), headers={"content-type": "application/json"})
    assert "at most 524,288 bytes" in error(response, 413)


def test_unknown_paths_and_methods_are_refused_in_json(page):
    assert "Not Found" in error(page.get("/nothing"), 404)
    error(page.get("/../server.py"), 404)
    error(page.get("/%2e%2e/server.py"), 404)
    error(page.client.put("/api/training"), 405)


def test_a_mistake_of_the_server_is_told_without_its_inside(page, session, monkeypatch):
    from starlette.testclient import TestClient

    monkeypatch.setattr(session, "look_at_strokes", lambda request: 1 / 0)
    client = TestClient(page.client.app, base_url=f"http://127.0.0.1:{PORT}", raise_server_exceptions=False)
    assert "ZeroDivisionError" in error(client.post("/api/look", json={"strokes": LINE}), 500)


# ---- networks, data and sockets that do not fit --------------------------------------------------------------


@pytest.mark.parametrize(("inputs", "outputs", "message"), [(64, 10, "28 x 28"), (784, 1, "one output for each")])
def test_networks_for_other_things_are_refused(inputs, outputs, message):
    network = nn.Network([nn.Dense(outputs)], inputs, "numpy")
    with pytest.raises(InvalidInputError, match=message):
        Recogniser(network, CLASSES, "a test")


def test_other_data_are_refused(network):
    session = Session(Recogniser(network, CLASSES, "a test"), lambda: nn.datasets.load("circle"))
    with pytest.raises(InvalidInputError, match="'circle' has none; choose mnist"):
        session.data()


def test_the_socket_is_on_the_loopback_address_and_a_taken_port_is_told_of():
    with listen() as listening:
        host, port = listening.getsockname()
        assert host == HOST == "127.0.0.1"
        assert address(listening) == f"http://127.0.0.1:{port}/"
        with socket.create_connection((host, port), timeout=5):
            pass
        with pytest.raises(InvalidInputError, match=f"port {port} of 127.0.0.1 cannot be listened on"):
            listen(port)
    with pytest.raises(InvalidInputError, match="must be 1 to 65535"):
        listen(65536)
