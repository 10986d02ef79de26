"""The routes of the page's server, and the requests that it refuses."""

from __future__ import annotations

import base64
import socket

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from nnbackend.web.app import PAGE
from nnbackend.web.digits import check_strokes, draw, normalise
from nnbackend.web.guard import MOST_BYTES
from nnbackend.web.recogniser import Recogniser, _levels
from nnbackend.web.server import HOST, address, listen
from nnbackend.web.session import Session
from tests.web.conftest import CLASSES, PORT, Page, synthetic
from tests.web.handwriting import DIGITS

LINE = [[[0.2, 0.3], [0.6, 0.7]]]


def error(response, status: int) -> str:
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    return response.json()["error"]


# ---- responses -----------------------------------------------------------------------------------------------


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
    description = page.get("/api/page").json()
    assert description["model"]["network"] == "784-12-7-10"
    assert description["model"]["classes"] == list(CLASSES)
    assert description["model"]["hidden"] == ["12 units, relu", "7 units, tanh"]
    assert description["model"]["maps"] == [None, None]
    assert description["model"]["backend"].startswith("numpy on CPU")
    assert "784-200-80-10" in [preset["name"] for preset in description["presets"]]
    assert ("numpy", True) in [(backend["name"], backend["usable"]) for backend in description["backends"]]


def test_a_drawing_is_answered_with_outputs_and_activations(page, network):
    answer = page.post("/api/look", {"strokes": DIGITS["5"]}).json()
    image = normalise(draw(check_strokes(DIGITS["5"])))
    assert answer["image"] == image.ravel().tolist()
    np.testing.assert_allclose(answer["outputs"], network.predict(image.reshape(1, 784))[0], atol=6e-5)
    assert [len(layer) for layer in answer["hidden"]] == [12, 7]
    assert min(answer["hidden"][0]) == 0 < max(answer["hidden"][0])
    assert min(answer["hidden"][1]) < 0


def levels(text):
    return np.frombuffer(base64.b64decode(text), np.int8).astype(float)


def test_a_drawing_is_answered_with_feature_maps():
    layers = [
        nn.Reshape((28, 28, 1)), nn.Conv2D(45, 5, activation="tanh"), nn.MaxPool2D(4),
        nn.Conv2D(3, (2, 3)), nn.Flatten(), nn.Dense(10),
    ]  # fmt: skip
    network = nn.Network(layers, 784, backend="numpy", input_scale=1 / 255)
    page = Page(Session(Recogniser(network, CLASSES, "a test"), synthetic))
    model = page.get("/api/page").json()["model"]
    assert model["network"] == "784-45-3-10"
    assert model["hidden"] == ["45 maps of 24 x 24, tanh", "3 maps of 5 x 4"]
    first, second = model["maps"]
    # The page shows the first forty maps, and of a filter those for the first forty channels.
    assert (first["shape"], first["shown"]) == ([24, 24, 45], 40)
    assert (first["kernels"]["shape"], first["kernels"]["of"]) == ([40, 1, 5, 5], [45, 1])
    assert (second["shape"], second["shown"]) == ([5, 4, 3], 3)
    assert (second["kernels"]["shape"], second["kernels"]["of"]) == ([3, 40, 2, 3], [3, 45])
    weight = network.get_weights()["layers.3.weight"][:, :, :40].transpose(3, 2, 0, 1)
    shown = levels(second["kernels"]["levels"]).reshape(weight.shape)
    np.testing.assert_allclose(shown / 127, weight / abs(weight).max(), atol=0.5 / 127)

    answer = page.post("/api/look", {"strokes": DIGITS["5"]}).json()
    part = nn.Network(network.layers[:2], 784, backend="numpy", weights_from=network)
    maps = part.predict(np.array([answer["image"]], np.uint8))[0].transpose(2, 0, 1)[:40]
    np.testing.assert_allclose(
        levels(answer["hidden"][0]).reshape(maps.shape) / 127, maps / abs(maps).max(), atol=0.5 / 127
    )
    # Nothing drawn: the maps of a black image are its biases, which are 0.
    assert not levels(page.post("/api/look", {"strokes": []}).json()["hidden"][0]).any()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5, -0.25, 0.0], [127, -64, 0]),
        ([np.nan, 2.0, -np.inf, np.inf], [0, 127, -127, 127]),
        ([np.nan, np.inf], [0, 0]),
        ([0.0, 0.0], [0, 0]),
    ],
)
def test_levels_are_shares_of_the_largest_finite_value(values, expected):
    assert levels(_levels(np.array(values, np.float32))).tolist() == expected


def test_an_empty_drawing_has_no_outputs(page):
    answer = page.post("/api/look", {"strokes": []}).json()
    assert answer["outputs"] is None
    assert set(answer["image"]) == {0}


def test_test_images_are_counted_modulo_their_number(page):
    data = synthetic()
    count = len(data.y_test)
    answer = page.get(f"/api/test-images/{count + 2}").json()
    assert answer["image"] == data.x_test[2].tolist()
    assert answer["label"] == CLASSES[data.y_test[2]]
    error(page.get(f"/api/test-images/{2**31}"), 404)
    error(page.get("/api/test-images/-1"), 404)


def test_data_that_cannot_be_loaded_are_reported(network):
    from tests.web.conftest import Page

    def nothing():
        raise nn.errors.DataError("there are no images")

    page = Page(Session(Recogniser(network, CLASSES, "a test"), nothing))
    assert error(page.get("/api/test-images/0"), 503) == "there are no images"


# ---- refused requests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:80", f"127.0.0.1:{PORT}.evil.example", ""]
)
def test_other_host_names_are_refused(page, host):
    assert "only at the address that it printed" in error(page.get("/", headers={"host": host}), 403)


def test_its_own_host_names_are_accepted(page):
    for name in ("127.0.0.1", "localhost", "LOCALHOST"):
        assert page.get("/", headers={"host": f"{name}:{PORT}"}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", f"https://127.0.0.1:{PORT}", "http://127.0.0.1:81"])
def test_requests_of_other_pages_are_refused(page, origin):
    response = page.client.post("/api/look", json={"strokes": LINE}, headers={"origin": origin})
    assert "only from its own page" in error(response, 403)
    own = {"origin": f"http://localhost:{PORT}"}
    assert page.client.post("/api/look", json={"strokes": LINE}, headers=own).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
def test_content_types_that_a_form_can_send_are_refused(page, kind):
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
        (b'{"strokes": [[[' + b"9" * 5000 + b", 0.5]]]}", "an integer of 5000 digits"),
        (b'{"strokes": [[["' + b"9" * 5000 + b'", 0.5]]]}', "finite number"),
        (b'{"drawing": []}', "list of strokes"),
    ],
)
def test_hostile_bodies_get_one_clear_message(page, body, message):
    response = page.client.post("/api/look", content=body, headers={"content-type": "application/json"})
    received = error(response, 400)
    assert message in received
    assert len(received) <= 500


def test_an_endless_body_is_not_read_to_its_end(page):
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


def test_an_internal_error_is_reported_without_its_message(page, session, monkeypatch):
    from starlette.testclient import TestClient

    monkeypatch.setattr(session, "look_at_strokes", lambda request: 1 / 0)
    client = TestClient(page.client.app, base_url=f"http://127.0.0.1:{PORT}", raise_server_exceptions=False)
    assert "ZeroDivisionError" in error(client.post("/api/look", json={"strokes": LINE}), 500)


# ---- unsuitable networks, data and sockets -------------------------------------------------------------------


@pytest.mark.parametrize(("inputs", "outputs", "message"), [(64, 10, "28 x 28"), (784, 1, "one output per class")])
def test_unsuitable_networks_are_refused(inputs, outputs, message):
    network = nn.Network([nn.Dense(outputs)], inputs, "numpy")
    with pytest.raises(InvalidInputError, match=message):
        Recogniser(network, CLASSES, "a test")


def test_unsuitable_data_are_refused(network):
    session = Session(Recogniser(network, CLASSES, "a test"), lambda: nn.datasets.load("circle"))
    with pytest.raises(InvalidInputError, match="'circle' does not have; choose mnist"):
        session.data()


def test_the_socket_is_on_the_loopback_address_and_a_taken_port_is_an_error():
    with listen() as listening:
        host, port = listening.getsockname()
        assert host == HOST == "127.0.0.1"
        assert address(listening) == f"http://127.0.0.1:{port}/"
        with socket.create_connection((host, port), timeout=5):
            pass
        with pytest.raises(InvalidInputError, match=f"cannot listen on port {port} of 127.0.0.1"):
            listen(port)
    with pytest.raises(InvalidInputError, match="must be 1 to 65535"):
        listen(65536)
