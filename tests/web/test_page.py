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


@pytest.fixture(scope="module")
def convolutions_address(convolutions_model) -> Iterator[str]:
    options = ("--model", str(convolutions_model), "--backend", "numpy", "--dataset", "mnist-5k")
    with serving(*options) as (_, url):
        yield url


@pytest.fixture(params=["desktop", "phone"])
def tab(request, browser, address) -> Iterator[Any]:
    """The page on a desktop or a phone; errors on its console fail the test."""
    yield from opened(browser, address, request.param)


@pytest.fixture(params=["desktop", "phone"])
def convolutions_tab(request, browser, convolutions_address) -> Iterator[Any]:
    """The page of a convolutional network, as `tab`."""
    yield from opened(browser, convolutions_address, request.param)


def opened(browser, address: str, device: str) -> Iterator[Any]:
    errors: list[str] = []
    context = browser.new_context(viewport=DESKTOP if device == "desktop" else PHONE)
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


def pixels(canvas: Any) -> str:
    """What is painted on a canvas."""
    return canvas.evaluate("canvas => canvas.toDataURL()")


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


def test_feature_maps_are_shown_while_a_digit_is_drawn(convolutions_tab):
    tab = convolutions_tab
    first = tab.get_by_role("img", name="Layer 1: 6 feature maps of 24 by 24")
    second = tab.get_by_role("img", name="Layer 2: 8 feature maps of 8 by 8")
    expect(first).to_be_visible()
    expect(second).to_be_visible()
    empty = [pixels(canvas) for canvas in (first, second)]
    tab.mouse.move(0, 0)
    box = tab.locator("#pad").bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 4)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + 3 * box["height"] / 4, steps=5)
    # The pen is still down.
    expect(tab.locator("#answer")).to_have_text("1")
    drawn = [pixels(canvas) for canvas in (first, second)]
    assert all(one != other for one, other in zip(empty, drawn, strict=True))
    tab.mouse.up()
    tab.get_by_role("button", name="Clear").click()
    expect(tab.locator("#answer-text")).to_have_text("Nothing drawn yet")
    draw_digit(tab, "3")
    expect(tab.locator("#answer")).to_have_text("3")
    assert all(pixels(canvas) != other for canvas, other in zip((first, second), drawn, strict=True))


def test_kernels_of_every_filter_can_be_chosen(convolutions_tab):
    tab = convolutions_tab
    expect(tab.get_by_role("img", name="6 kernels of 5 by 5, one for each map")).to_be_visible()
    kernels = tab.get_by_role("img", name=re.compile("Filter . of 8: 6 kernels of 5 by 5, one for each channel"))
    expect(kernels).to_have_attribute("aria-label", re.compile("Filter 1 "))
    before = pixels(kernels)
    slider = tab.get_by_role("slider", name="Layer 2: filter whose kernels are shown")
    slider.focus()
    tab.keyboard.press("ArrowRight")
    expect(kernels).to_have_attribute("aria-label", re.compile("Filter 2 "))
    assert pixels(kernels) != before
    # The first map, by a click.
    tab.get_by_role("img", name="Layer 2: 8 feature maps").click(position={"x": 10, "y": 10})
    expect(kernels).to_have_attribute("aria-label", re.compile("Filter 1 "))
    assert pixels(kernels) == before
    assert slider.input_value() == "1"


def test_maps_are_no_wider_than_the_screen(convolutions_tab):
    width = convolutions_tab.viewport_size["width"]
    assert convolutions_tab.locator("html").evaluate("element => element.scrollWidth") <= width
    for canvas in convolutions_tab.locator("#layers canvas").all():
        box = canvas.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["height"] > 20


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


@pytest.mark.parametrize("convolutions_tab", ["desktop"], indirect=True)
def test_a_convolutional_network_is_trained_and_adopted(convolutions_tab):
    tab = convolutions_tab
    tab.get_by_role("link", name="Train", exact=True).click()
    tab.get_by_label("Network", exact=True).select_option("lenet")
    tab.get_by_label("Backend", exact=True).select_option("numpy")
    tab.get_by_label("Epochs", exact=True).fill("1")
    progress = tab.locator("#progress")
    expect(progress).to_have_attribute("data-run", re.compile(r"\d+"))
    number = int(progress.get_attribute("data-run")) + 1
    tab.get_by_role("button", name="Start").click()
    expect(progress).to_have_attribute("data-run", str(number))
    expect(tab.locator("#progress-text")).to_contain_text("Done", timeout=180_000)
    tab.get_by_role("button", name="Draw with this network").click()
    expect(tab.locator("#model-text")).to_contain_text("784-20-40-100-10")
    maps = tab.get_by_role("img", name="Layer 2: 40 feature maps of 8 by 8")
    before = pixels(maps)
    draw_digit(tab, "0")
    expect(tab.locator("#answer")).not_to_have_text("?")
    assert pixels(maps) != before


def test_there_is_handwriting_of_every_digit():
    assert sorted(DIGITS) == list("0123456789")
