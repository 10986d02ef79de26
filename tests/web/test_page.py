"""The page itself in a headless browser: draw, read the answer; train, see the curves.

Needs an installed Chromium and ``pip install playwright``; the server is tested without them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.web.browser import browsing, draw_digit, find_chromium, serving
from tests.web.handwriting import DIGITS

CHROMIUM = find_chromium()
pytest.importorskip("playwright", reason="needs the package playwright")
if CHROMIUM is None:
    pytest.skip("needs an installed Chromium", allow_module_level=True)

pytestmark = pytest.mark.slow

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def address(digits_model) -> Iterator[str]:
    options = ("--model", str(digits_model), "--backend", "numpy", "--dataset", "mnist-5k")
    with serving(*options) as (_, url):
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing(CHROMIUM) as browser:
        yield browser


@pytest.fixture(params=["desktop", "phone"])
def tab(request, browser, address) -> Iterator[Any]:
    """The page on a desktop or a phone; errors on its console fail the test."""
    errors: list[str] = []
    context = browser.new_context(viewport=DESKTOP if request.param == "desktop" else PHONE)
    tab = context.new_page()
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    asked: list[str] = []
    tab.on("request", lambda asking: asked.append(asking.url))
    tab.goto(address)
    tab.wait_for_selector("#bars li")
    tab.errors = errors
    yield tab
    context.close()
    assert errors == []
    assert all(url.startswith(address) for url in asked)


def expect(locator: Any) -> Any:
    from playwright.sync_api import expect

    return expect(locator)


def test_a_digit_is_recognised_while_it_is_drawn(tab):
    expect(tab.locator("#answer")).to_have_text("?")
    for digit in ("1", "3", "7"):
        draw_digit(tab, digit)
        expect(tab.locator("#answer")).to_have_text(digit)
        expect(tab.locator("#bars .best .name")).to_have_text(digit)
        expect(tab.locator("#spoken")).to_contain_text(digit)
        tab.get_by_role("button", name="Clear").click()
        expect(tab.locator("#answer-text")).to_have_text("Nothing drawn yet")
    cells = tab.get_by_role("img", name=re.compile(r"Hidden layer \d: \d+ of \d+ units active"))
    expect(cells).to_have_count(2)


def test_nothing_is_wider_than_the_screen(tab):
    for view in ("Draw", "Train"):
        tab.get_by_role("link", name=view, exact=True).click()
        box = tab.locator("main").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= tab.viewport_size["width"]
        width = tab.locator("html").evaluate("element => element.scrollWidth")
        assert width <= tab.viewport_size["width"]


def test_the_answer_is_visible_while_drawing(tab):
    for place in ("#pad", "#answer", "#bars"):
        box = tab.locator(place).bounding_box()
        assert box["y"] + box["height"] <= tab.viewport_size["height"]


def test_a_digit_is_drawn_and_undone_with_the_keyboard_alone(tab):
    tab.locator("#pad").focus()
    tab.keyboard.press("Space")
    for _ in range(14):
        tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Space")
    expect(tab.locator("#answer")).to_have_text("1")
    tab.keyboard.press("Control+z")
    expect(tab.locator("#answer-text")).to_have_text("Nothing drawn yet")


def test_a_test_image_is_shown_with_its_true_class(tab):
    tab.get_by_role("button", name="Test image").click()
    expect(tab.locator("#answer-text")).to_contain_text(re.compile("correct"))
    draw_digit(tab, "1")
    expect(tab.locator("#answer")).to_have_text("1")


def test_a_network_is_trained_and_then_reads_drawings(tab):
    tab.get_by_role("link", name="Train", exact=True).click()
    tab.get_by_label("Network", exact=True).select_option("784-40-10")
    tab.get_by_label("Backend", exact=True).select_option("numpy")
    tab.get_by_label("Epochs", exact=True).fill("4")
    progress = tab.locator("#progress")
    expect(progress).to_have_attribute("data-run", re.compile(r"\d+"))
    # The server may have trained for another test, whose "Done" is shown until the new run begins.
    number = int(progress.get_attribute("data-run")) + 1
    tab.get_by_role("button", name="Start").click()
    expect(progress).to_have_attribute("data-run", str(number))
    expect(tab.locator("#progress-text")).to_contain_text("Done", timeout=60_000)
    for chart in ("Loss", "Accuracy"):
        curve = tab.get_by_role("img", name=re.compile(f"{chart} after 4.0 epochs"))
        expect(curve.locator("path:not(.before)")).to_have_count(2)
        assert curve.locator("path.test:not(.before)").get_attribute("d").count("L") == 3
    tab.get_by_role("button", name="Draw with this network").click()
    expect(tab.locator("#model-text")).to_contain_text("784-40-10")
    draw_digit(tab, "0")
    expect(tab.locator("#answer")).to_have_text("0")
    expect(tab.get_by_role("img", name=re.compile("of 40 units active"))).to_be_visible()


def test_a_run_that_diverges_is_clipped_and_named(tab):
    tab.get_by_role("link", name="Train", exact=True).click()
    tab.get_by_label("Network", exact=True).select_option("784-40-10")
    tab.get_by_label("Backend", exact=True).select_option("numpy")
    tab.get_by_label("Learning rate").fill("100000")
    tab.get_by_label("Epochs", exact=True).fill("2")
    progress = tab.locator("#progress")
    number = int(progress.get_attribute("data-run")) + 1
    tab.get_by_role("button", name="Start").click()
    expect(progress).to_have_attribute("data-run", str(number))
    expect(tab.locator("#progress-text")).to_contain_text(re.compile("Done|Failed"), timeout=60_000)
    if "Done" in tab.locator("#progress-text").text_content():
        expect(tab.locator("#chart-loss text.trouble")).to_contain_text("The run diverged: loss above 5,000")
    chart = tab.locator("#chart-loss").bounding_box()
    for curve in tab.locator("#chart-loss path").all():
        assert curve.bounding_box()["y"] >= chart["y"]


def test_training_is_stopped(tab):
    tab.get_by_role("link", name="Train", exact=True).click()
    tab.get_by_label("Network", exact=True).select_option("784-500-1000-300-10")
    tab.get_by_label("Backend", exact=True).select_option("numpy")
    tab.get_by_label("Epochs", exact=True).fill("100")
    tab.get_by_role("button", name="Start").click()
    tab.get_by_role("button", name="Stop").click()
    expect(tab.locator("#progress-text")).to_contain_text("Stopped", timeout=60_000)


def test_an_error_of_the_server_is_shown(tab):
    tab.get_by_role("link", name="Train", exact=True).click()
    tab.get_by_label("Learning rate").fill("0")
    tab.get_by_role("button", name="Start").click()
    expect(tab.get_by_role("alert")).to_contain_text("learning rate must be above 0")
    # The browser logs every error response on its console; this one is expected.
    assert "400" in tab.errors.pop()


def test_there_is_handwriting_of_every_digit():
    assert sorted(DIGITS) == list("0123456789")
