"""This process as a client of the local Hub, and folders to publish."""

import time
import types
from contextlib import contextmanager

import numpy as np
from huggingface_hub import constants
from huggingface_hub.utils import _http, close_session
from PIL import Image
from safetensors.numpy import save_file

from tests.commands import publish
from tests.hub.server import LocalHub

SPACE = "org/rooms"
SPACE_CARD = """---
title: Rooms
sdk: gradio
app_file: app.py
colorFrom: blue
colorTo: green
license: apache-2.0
tags: [spatialboost]
---
# Rooms
"""


@contextmanager
def local_hub(monkeypatch, token="hf_writer"):
    """A local Hub that huggingface_hub in this process takes for the Hub; its pauses between tries are skipped."""
    with LocalHub() as hub:
        for name, value in (("ENDPOINT", hub.url), ("HF_HUB_OFFLINE", False), ("HF_HUB_DISABLE_XET", True)):
            monkeypatch.setattr(constants, name, value)
        for name, value in (("HF_ENDPOINT", hub.url), ("HF_HUB_DISABLE_XET", "1"), ("HF_TOKEN", token)):
            monkeypatch.setenv(name, value)
        no_pauses = types.SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
        monkeypatch.setattr(_http, "time", no_pauses)
        yield hub
        close_session()


def make_space(folder):
    """A Space with text, a large object and a picture."""
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(SPACE_CARD)
    (folder / "app.py").write_text("import gradio\n\ngradio.Interface(str, 'text', 'text').launch()\n")
    (folder / "requirements.txt").write_text("gradio\n")
    (folder / "assets").mkdir()
    save_file({"weights": np.random.default_rng(0).random(5000)}, folder / "assets" / "tiny.safetensors")
    Image.new("RGB", (8, 8)).save(folder / "assets" / "room.png")
    return folder


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def push(folder, *more):
    """Exit code of publishing a Space."""
    return publish(["space", str(folder), "--repo-id", SPACE, *more])
