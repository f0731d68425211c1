"""The Space: depth, questions, scenes, features and data of SpatialBoost, in a browser.

SPATIALBOOST_BUNDLE=FOLDER python app.py            # FOLDER/vlm, depth_base, depth_boosted, data
SPATIALBOOST_MODEL=ORG/NAME python app.py           # one part by itself, a Hub id or a folder
"""

import importlib.util
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also where this file is imported as space_app.app
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr
from PIL import Image
from starlette.middleware import Middleware

from spatialboost_space import ask_tab, data_tab, depth_tab, features_tab, models, scene_tab
from spatialboost_space.body_limit import BodyLimit
from spatialboost_space.errors import Page
from spatialboost_space.settings import NOTE, limits

TITLE = "SpatialBoost"
# narrow pages get narrow margins; gradio leaves thumbnails and the 3D view without a name for screen readers
HEAD = """<style>
@media (max-width: 640px) { .gradio-container > .main { padding: 8px !important; } }
.gradio-container, .gradio-container > .main, .gradio-container .contain { min-width: 0 !important; max-width: 100vw; }
.missing:not(:has(p)) { display: none; }
</style><script>
new MutationObserver(() => {
  document.querySelectorAll(".gallery-item:not([aria-label])").forEach(item => {
    if (!item.innerText.trim())
      item.setAttribute("aria-label", "Example " + (1 + [...item.parentElement.children].indexOf(item)));
  });
  document.querySelectorAll("#scene_model canvas:not([aria-label])").forEach(canvas => {
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", "Point cloud. Arrow keys rotate it, with Alt up and down zoom.");
  });
  document.querySelectorAll("#scene_model canvas[tabindex='1']").forEach(canvas => canvas.tabIndex = 0);
}).observe(document, {childList: true, subtree: true, attributes: true, attributeFilter: ["tabindex"]});
</script>"""


def build() -> gr.Blocks:
    """The page with its tabs; models are loaded when they are first needed."""
    seconds = limits().cache_seconds
    Image.MAX_IMAGE_PIXELS = limits().image_pixels // 2  # Pillow refuses twice as many, wherever gradio decodes
    with Page(title=TITLE, delete_cache=(max(1, seconds // 4), seconds), analytics_enabled=False) as page:
        gr.Markdown(
            "# SpatialBoost\nA vision encoder that learned 3D space through language, beside the encoder it started "
            "from. An independent implementation of [the paper](https://arxiv.org/abs/2603.22057). "
            + os.environ.get(NOTE, "")
        )
        with gr.Tab("Depth", id="depth"):
            depth_tab.build()
        with gr.Tab("Ask", id="ask"):
            ask_tab.build()
        with gr.Tab("Scene", id="scene"):
            scene_tab.build()
        with gr.Tab("Features", id="features"):
            features_tab.build()
        with gr.Tab("Data", id="data"):
            data_tab.build()
    return page.queue(max_size=limits().queued, default_concurrency_limit=limits().concurrent, api_open=False)


def launch(page: gr.Blocks, **settings: object) -> object:
    """Serve the page with the limits of the settings; keyword arguments go to `Blocks.launch`."""
    common = {
        "show_error": False,
        "max_file_size": limits().upload_bytes,
        "ssr_mode": False,
        "run_history": False,
        "state_session_capacity": 1000,
        "app_kwargs": {"middleware": [Middleware(BodyLimit)]},
        "mcp_server": importlib.util.find_spec("mcp") is not None,
        "head": HEAD,
        "theme": gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        "footer_links": ["api", "settings"],
    }
    return page.launch(**{**common, **settings})  # type: ignore[arg-type]


def main() -> None:
    """Serve until stopped; the page is there first, then the models are loaded."""
    page = build()
    if os.environ.get("SPACES_ZERO_GPU"):
        models.warm_up()  # ZeroGPU wants models in the main process before anything is served
    launch(page, prevent_thread_lock=True)
    models.warm_up()
    page.block_thread()


if __name__ == "__main__":
    main()
