"""Pictures of the Space for the documentation, taken in a real browser from one that is being served.

spatialboost demo &
python -m experiments.demo_pictures                # docs/images/space_*.png; needs playwright and chromium
"""

import argparse
import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Page

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WEBGL = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
DESK: Any = {"width": 1280, "height": 900}
SECONDS = 120


def make_parser() -> argparse.ArgumentParser:
    """Arguments of `python -m experiments.demo_pictures`."""
    parser = argparse.ArgumentParser(prog="python -m experiments.demo_pictures", description=__doc__.split("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:7860", help="where the Space is served")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder of the pictures")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Take the pictures.

    Raises:
        ValueError: there is no browser.
    """
    from playwright.sync_api import sync_playwright

    arguments = make_parser().parse_args(argv)
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser_path is None:
        raise ValueError("No browser was found: on Debian, apt install chromium.")
    with sync_playwright() as runner:
        browser = runner.chromium.launch(executable_path=browser_path, args=WEBGL)
        for name, take in PICTURES.items():
            page = browser.new_context(viewport=DESK, color_scheme="light").new_page()
            page.set_default_timeout(1000 * SECONDS)
            page.goto(f"{arguments.url}?__theme=light", wait_until="domcontentloaded")
            take(page)
            page.wait_for_timeout(2000)  # until nothing moves
            page.evaluate("window.scrollTo(0, 0)")
            with Image.open(io.BytesIO(page.screenshot())) as picture:
                picture.convert("RGB").save(arguments.output / f"space_{name}.png", optimize=True)
            page.context.close()
        browser.close()
    return 0


def depth(page: "Page") -> None:
    """Depth of an example, with a point that was clicked."""
    page.locator("#depth_examples button").nth(3).click()
    page.locator("#depth_view .frame").click(position={"x": 150, "y": 420})


def ask(page: "Page") -> None:
    """An example's question about two points, in steps."""
    page.get_by_role("tab", name="Ask").click()
    page.locator("#ask_steps input").check()
    page.locator("#ask_examples button").nth(10).click()
    page.locator("#ask_chat [data-testid=bot]").nth(2).get_by_text("m").wait_for()  # a unit: the last answer is there
    page.wait_for_timeout(3000)


def scene(page: "Page") -> None:
    """The point cloud of an example, turned a little."""
    page.get_by_role("tab", name="Scene").click()
    page.locator("#scene_examples button").nth(3).click()
    page.locator("#scene_board .spoken").first.wait_for()
    page.get_by_role("button", name="Build the scene").click()
    page.locator("#scene_distances").get_by_text("orange chair").first.wait_for()
    canvas = page.locator("#scene_model canvas[tabindex]")
    canvas.focus()
    page.wait_for_timeout(3000)
    canvas.press("ArrowRight", delay=300)
    canvas.press("Alt+ArrowUp", delay=600)


PICTURES = {"depth": depth, "ask": ask, "scene": scene}


if __name__ == "__main__":
    raise SystemExit(main())
