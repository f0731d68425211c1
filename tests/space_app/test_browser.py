"""Every tab, driven by a real browser at the width of a desk and of a phone.

SPATIALBOOST_SCREENSHOTS=FOLDER keeps pictures of what was seen.
"""

import os
import re
import shutil
from pathlib import Path

import pytest

from spatialboost_space import marks, models
from tests.space_app.conftest import EXAMPLE, SPACE

playwright = pytest.importorskip("playwright.sync_api", reason="driving the Space needs playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (Debian: apt install chromium)")
SECOND = SPACE / "spatialboost_space" / "examples" / "room_13.png"
SIZES = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
WEBGL = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
ANSWER = "The depth at the point (0.250, 0.750) is 2.105 m, and [A] is nearer. <img src=x onerror='window.hurt=1'>"


@pytest.fixture(scope="module")
def browser():
    playwright.expect.set_options(timeout=60_000)  # a busy machine may be slow
    with playwright.sync_playwright() as runner:
        browser = runner.chromium.launch(executable_path=CHROMIUM, args=WEBGL)
        yield browser
        browser.close()


def open_page(browser, url, size, **options):
    """The Space in a new window; scripts that fail are noted in `page.errors`."""
    touch = size == "phone"
    page = browser.new_context(viewport=SIZES[size], has_touch=touch, is_mobile=touch, **options).new_page()
    page.set_default_timeout(60_000)
    page.size_name, page.errors = size, []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(url, wait_until="domcontentloaded")
    page.get_by_role("tab", name="Depth").wait_for()
    return page


@pytest.fixture(scope="module", params=SIZES)
def window(request, browser, url):
    window = open_page(browser, url, request.param)
    yield window
    window.context.close()


@pytest.fixture
def page(window):
    """The Space at one width, which tests of different tabs share; no script may fail, no page be too wide."""
    yield window
    assert not window.errors
    assert window.evaluate("document.documentElement.scrollWidth") <= SIZES[window.size_name]["width"] + 1


@pytest.fixture
def new_page(browser, url):
    page = open_page(browser, url, "desk")
    yield page
    assert not page.errors
    page.context.close()


def keep(page, name):
    """A picture for people, where one is asked for."""
    folder = os.environ.get("SPATIALBOOST_SCREENSHOTS")
    if folder:
        page.wait_for_timeout(1500)
        page.screenshot(path=Path(folder) / f"{name}_{page.size_name}.png", full_page=True)


def open_tab(page, name):
    """Open a tab, which a narrow page keeps behind a menu."""
    tab = page.get_by_role("tab", name=name)
    if not tab.first.is_visible():
        page.locator(".overflow-menu > button, button[aria-label*='overflow' i]").first.click()
        page.locator(".overflow-dropdown button", has_text=name).click()
        return
    tab.first.click()


def press(page, name):
    page.get_by_role("button", name=name, exact=True).locator("visible=true").click()


def test_depth_has_a_slider_and_metres_under_the_pointer(page):
    page.set_input_files("#depth_image input[type=file]", str(EXAMPLE))
    frame, reading = page.locator("#depth_view .frame"), page.locator("#depth_view .reading")
    frame.hover(position={"x": 90, "y": 60})
    hovered = reading.text_content()
    frame.click(position={"x": 50, "y": 60})
    first = reading.text_content()
    assert hovered.endswith(" m") and hovered != first
    assert "base" in first and "boosted" in first and first.endswith(" m")
    frame.press("Shift+ArrowRight")
    assert reading.text_content() != first
    slider = page.get_by_role("slider", name="Where base ends")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    if page.size_name == "phone":
        page.touchscreen.tap(box["x"] + 0.8 * box["width"], box["y"] + box["height"] / 2)
    else:
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + box["height"] / 2, steps=4)
        page.mouse.up()
    assert float(slider.input_value()) == pytest.approx(80, abs=4)
    assert f"{slider.input_value()}%" in page.locator("#depth_view canvas").nth(1).evaluate("c => c.style.clipPath")
    assert re.fullmatch(r"Colours from .* m to .* m", page.locator("#depth_view .bar").get_attribute("aria-label"))
    with page.expect_download() as download:
        page.locator("#depth_files a").first.click()
    assert Path(download.value.path()).read_bytes()[:4] == b"\x89PNG"
    keep(page, "depth")


def test_two_turns_of_a_chat_with_a_point_and_a_region(page, monkeypatch):
    def answer(images, messages, max_new_tokens=None):
        for end in range(20, len(ANSWER) + 20, 20):
            yield ANSWER[:end]

    monkeypatch.setattr(models, "stream_answer", answer)
    open_tab(page, "Ask")
    page.set_input_files("#ask_upload input[type=file]", [str(EXAMPLE), str(SECOND)])
    figures = page.locator("#ask_board figure")
    figures.nth(1).locator("img").wait_for()
    question = page.get_by_label("Question", exact=True)
    box = figures.nth(0).bounding_box()
    figures.nth(0).click(position={"x": 0.27 * box["width"], "y": 0.51 * box["height"]})
    playwright.expect(question).to_have_value("the point (0.266, 0.516) in image 1 ")  # of 32 x 32 pixels
    x, y, *_ = place_of("circle.point:not(.spoken)", figures.nth(0))
    assert (x, y) == pytest.approx((0.266, 0.516), abs=0.01)
    figures.nth(1).scroll_into_view_if_needed()
    box = figures.nth(1).bounding_box()
    page.mouse.move(box["x"] + 30, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 120, box["y"] + 100, steps=4)
    page.mouse.up()
    playwright.expect(question).to_have_value("the point (0.266, 0.516) in image 1 [A] ")
    *_, width, height = place_of("rect.region:not(.spoken)", figures.nth(1))
    assert (width * box["width"], height * box["height"]) == pytest.approx((90, 70), abs=box["width"] / 32 + 2)
    playwright.expect(figures.nth(1).locator(".tag:not(.spoken)")).to_have_text("A")
    press(page, "Ask")
    chat = page.locator("#ask_chat")
    playwright.expect(chat.get_by_text("and [A] is nearer")).to_have_count(1)
    playwright.expect(chat.get_by_text("[A] is the region from")).to_have_count(1)
    x, y, *_ = place_of("circle.point.spoken", figures.nth(0))
    assert (x, y) == pytest.approx((0.25, 0.75), abs=0.01)
    playwright.expect(page.locator("#ask_board .spoken.region")).to_have_count(1)
    question.fill("And how deep is (0.1, 0.2)? <b>bold</b>")
    question.press("Enter")
    playwright.expect(chat.get_by_text("and [A] is nearer")).to_have_count(2)
    playwright.expect(chat.get_by_text("<b>bold</b>")).to_have_count(1)  # what is written is text
    assert chat.locator("img[src=x]").count() == 0 and page.evaluate("window.hurt") is None
    keep(page, "ask")
    press(page, "Undo")
    playwright.expect(chat.get_by_text("and [A] is nearer")).to_have_count(1)
    playwright.expect(question).to_have_value("And how deep is (0.109, 0.203)? <b>bold</b>")
    playwright.expect(page.locator("#ask_board .spoken")).to_have_count(0)
    press(page, "Restart")
    playwright.expect(chat.get_by_text("and [A] is nearer")).to_have_count(0)


def place_of(mark, figure):
    """Centre x, y, width and height of a mark as shares of its image; in one go, for it may be drawn anew."""
    return figure.evaluate(
        """(figure, mark) => {
            const image = figure.querySelector("img").getBoundingClientRect();
            const box = figure.querySelector(mark).getBoundingClientRect();
            return [(box.x + box.width / 2 - image.x) / image.width, (box.y + box.height / 2 - image.y) / image.height,
                    box.width / image.width, box.height / image.height];
        }""",
        mark,
    )


def test_an_example_is_asked_with_one_click(page, monkeypatch):
    asked = []

    def answer(images, messages, max_new_tokens=None):
        asked.append((images[0].size, messages))
        yield "From the point (0.250, 0.500) to the point (0.500, 0.750)."

    monkeypatch.setattr(models, "stream_answer", answer)
    open_tab(page, "Ask")
    example = page.locator("#ask_examples button").nth(4)
    text = example.inner_text().strip()
    example.click()
    playwright.expect(page.locator("#ask_chat").get_by_text("From the point")).to_have_count(1)
    playwright.expect(page.locator("#ask_board rect.spoken")).to_have_count(1)
    size, messages = asked[-1]
    assert size == (384, 384) and messages == marks.conversation(1, [], marks.on_grid(text, (32, 32)))
    keep(page, "examples")


def test_the_keyboard_marks_points_and_regions(new_page):
    page = new_page
    open_tab(page, "Ask")
    page.set_input_files("#ask_upload input[type=file]", str(EXAMPLE))
    figure = page.locator("#ask_board figure")
    figure.focus()
    for key in ("ArrowRight", "Enter", "r", "Shift+ArrowDown", "Shift+ArrowRight", "r"):
        figure.press(key)
    playwright.expect(page.get_by_label("Question", exact=True)).to_have_value("the point (0.516, 0.516) [A] ")
    playwright.expect(figure.locator("circle.point, rect.region")).to_have_count(2)
    assert "Region from (0.516, 0.516) to (0.609, 0.609)" in page.locator("#ask_board [role=status]").text_content()


def test_an_answer_can_be_stopped(new_page, monkeypatch):
    page = new_page
    closed = []

    def endless(images, messages, max_new_tokens=None):
        import time

        try:
            for count in range(600):
                time.sleep(0.1)
                yield f"word {count}"
        finally:
            closed.append(True)

    monkeypatch.setattr(models, "stream_answer", endless)
    open_tab(page, "Ask")
    page.set_input_files("#ask_upload input[type=file]", str(EXAMPLE))
    page.locator("#ask_board figure img").wait_for()
    page.get_by_label("Question", exact=True).fill("How deep?")
    press(page, "Ask")
    page.locator("#ask_chat").get_by_text("word").wait_for()
    press(page, "Stop")
    page.wait_for_timeout(1000)
    assert closed


def still(canvas):
    """A picture of the 3D view when it has come to rest."""
    now = canvas.screenshot()
    for _ in range(40):
        canvas.page.wait_for_timeout(300)
        before, now = now, canvas.screenshot()
        if before == now:
            return now
    raise AssertionError("the 3D view does not come to rest")


def test_the_scene_turns_and_measures(page):
    open_tab(page, "Scene")
    page.locator("#scene_examples button, #scene_examples tbody tr").first.click()
    playwright.expect(page.locator("#scene_board .region.spoken").first).to_be_visible()
    press(page, "Build the scene")
    canvas = page.locator("#scene_model canvas")
    canvas.wait_for()
    playwright.expect(page.locator("#scene_distances")).to_contain_text("red barrel")
    canvas.scroll_into_view_if_needed()
    playwright.expect(canvas).to_have_attribute("aria-label", re.compile("Arrow keys"))
    playwright.expect(canvas).to_have_attribute("tabindex", "0")
    before = still(canvas)
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 90, box["y"] + box["height"] / 2 + 30, steps=6)
    page.mouse.up()
    after = still(canvas)
    assert after != before
    canvas.focus()
    for keys in ("ArrowRight", "Alt+ArrowUp"):  # rotate, zoom
        canvas.press(keys, delay=300)
        before, after = after, still(canvas)
        assert after != before, keys
    keep(page, "scene")
    figure = page.locator("#scene_board figure")
    figure.click(position={"x": 60, "y": 60})
    playwright.expect(page.locator("#scene_objects")).to_contain_text("point 1")


def test_features_and_alpha(page):
    open_tab(page, "Features")
    page.set_input_files("#features_image input[type=file]", str(EXAMPLE))
    playwright.expect(page.locator("#features_maps img")).to_have_count(2)
    press(page, "Read alpha")
    playwright.expect(page.locator("#alpha_table")).to_contain_text("0.5")
    page.locator("#alpha_plot svg, #alpha_plot canvas").first.wait_for()
    keep(page, "features")


def test_rows_and_their_turns(page):
    open_tab(page, "Data")
    press(page, "Show")
    playwright.expect(page.locator("#data_chat")).to_contain_text("Image coordinates are written")
    every = page.locator("#data_board .spoken").count()
    page.locator("#data_turn").get_by_text("turn 1", exact=True).click()
    playwright.expect(page.locator("#data_board .point.spoken")).to_have_count(1)
    assert every > 1
    press(page, "Next")
    playwright.expect(page.get_by_label("This row")).to_have_value(re.compile("row 1 of"))
    keep(page, "data")


def test_a_tab_tells_what_it_lacks(browser, url, monkeypatch):
    monkeypatch.setattr(models, "part", lambda name: None)
    page = open_page(browser, url, "desk")
    for name, what in (
        ("Depth", "depth model of the base encoder"),
        ("Ask", "vision-language model"),
        ("Data", "data set"),
    ):
        open_tab(page, name)
        playwright.expect(page.locator(".prose.missing:visible")).to_contain_text(f"This Space has no {what}")
    page.context.close()


def test_dark_mode_and_labels(browser, url):
    page = open_page(browser, f"{url}?__theme=dark", "desk", color_scheme="dark")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(int(part) for part in background.strip("rgba()").split(",")[:3]) < 200
    for name in ("Depth", "Ask", "Scene", "Features", "Data"):
        open_tab(page, name)
        unnamed = page.evaluate(
            """() => [...document.querySelectorAll('button, input, textarea, [role=slider], img')]
                .filter(node => node.offsetParent && node.type !== 'file' && node.type !== 'hidden')
                .filter(node => !(node.innerText || node.ariaLabel || node.title || node.alt !== undefined
                    && node.tagName === 'IMG' && node.hasAttribute('alt') || (node.labels && node.labels.length)
                    || node.getAttribute('aria-labelledby') || node.placeholder))
                .map(node => node.outerHTML.slice(0, 160))"""
        )
        assert not unnamed, unnamed
    page.context.close()
