"""From a rendered room to a page on the Hub, with the commands that users run, against a Hub on this machine.

build -> push the data -> train three stages from its id -> push encoder, model and Space -> a fresh process that has
nothing but the ids loads all of it; the Space, downloaded from there, starts and answers with that model and data.
"""

import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest

from tests.hub.server import LocalHub
from tests.test_architecture import ROOT

LIFE = """
import sys
from pathlib import Path

import torch

import spatialboost_cli
from experiments.tiny_models import save_tiny_encoder, save_tiny_language_model

torch.set_num_threads(1)
root = Path(sys.argv[1])


def run(*arguments):
    code = spatialboost_cli.main([str(one) for one in arguments])
    assert code == 0, f"spatialboost {arguments[0]} ended with {code}"


rooms = ["--source", "synthetic", "--num-scenes", 3, "--resolution", 64, "--allow-partial"]
run("build", *rooms, "--output", root / "data")
together = ["--collection", "SpatialBoost in a test"]
run("publish", "dataset", root / "data", "--repo-id", "org/rooms", *together)
save_tiny_encoder(root / "base", image_size=32, hidden_size=32, num_layers=2)
texts = ["What is the depth value at coordinate (0.31, 0.52)? 1.23 m.", "user assistant"]
save_tiny_language_model(root / "language_model", texts, 400, hidden_size=32, num_layers=2)
common = ["--max_steps", 2, "--report_to", "none", "--save_strategy", "no", "--disable_tqdm", "true"]
common += ["--per_device_train_batch_size", 2, "--dataloader_pin_memory", "false", "--datasets"]
start = ["--encoder", root / "base", "--language_model", root / "language_model"]
for stage, config in ((1, "alignment"), (2, "multi_view_vqa"), (3, "single_view")):
    folder = root / f"stage{stage}"
    run("train", "--stage", stage, *start, "--output_dir", folder, *common, f"org/rooms:{config}:train")
    start = ["--model", folder]
run("publish", "model", root / "stage3" / "encoder", "--repo-id", "org/encoder", *together)
run("publish", "model", root / "stage3", "--repo-id", "org/vlm", *together)
run("publish", "space", sys.argv[2], "--repo-id", "org/demo", *together)
"""
STRANGER = """
import sys
sys.modules["modeling_spatialboost"] = None  # an installed clone must not help
import re, torch
from datasets import load_dataset
from huggingface_hub import HfApi, hf_hub_download
from transformers import AutoBackbone, AutoImageProcessor, AutoModel, pipeline

rows = load_dataset("org/rooms", "single_view", split="train", revision="v1")
streamed = load_dataset("org/rooms", "single_view", split="train", revision="v1", streaming=True)
assert [row["id"] for row in streamed] == rows["id"] and rows.num_rows > 0
image = rows[0]["images"][0]
pinned = {"revision": "v1", "trust_remote_code": True}
model = AutoModel.from_pretrained("org/encoder", **pinned).eval()
inputs = AutoImageProcessor.from_pretrained("org/encoder", **pinned)(image, return_tensors="pt")
with torch.no_grad():
    tokens = model(**inputs).last_hidden_state
    backbone = AutoBackbone.from_pretrained("org/encoder", out_indices=[1, 2], **pinned).eval()
    maps = backbone(**inputs).feature_maps
assert len(maps) == 2 and tokens.shape[-1] == maps[0].shape[1] == 32, (tokens.shape, maps[0].shape)
features = pipeline("image-feature-extraction", model="org/encoder", **pinned)(image)
assert len(features[0]) == tokens.shape[1]
assert torch.allclose(torch.tensor(features), tokens, atol=1e-5)
ask = pipeline("image-text-to-text", model="org/vlm", **pinned)
question = [{"type": "image", "image": image}, {"type": "text", "text": "What is the depth?"}]
answer = ask(text=[{"role": "user", "content": question}], max_new_tokens=2, return_full_text=False)
assert isinstance(answer[0]["generated_text"], str)
for name in ("org/encoder", "org/rooms"):  # the code of the cards, as they stand on the Hub
    kind = "dataset" if name == "org/rooms" else "model"
    card = open(hf_hub_download(name, "README.md", repo_type=kind, revision="v1")).read()
    code = re.search(r"```python\\n(.*?)```", card, re.DOTALL)[1]
    assert f'"{name}", "v1"' in code, code
    scope = {"image": image}
    exec(code, scope)
assert scope["rows"].features is not None
hub = HfApi()
assert hub.space_info("org/demo", revision="v1").card_data.sdk == "gradio"
(collection,) = sys.argv[1:]
items = {(item.item_type, item.item_id) for item in hub.get_collection(collection).items}
assert items == {("dataset", "org/rooms"), ("model", "org/encoder"), ("model", "org/vlm"), ("space", "org/demo")}
print("all of it", len(rows))
"""

SPACE = """
import os, sys
sys.modules["modeling_spatialboost"] = None
from huggingface_hub import snapshot_download

space = snapshot_download("org/demo", repo_type="space", revision="v1")
os.environ |= {"SPATIALBOOST_MODEL": "org/vlm@v1", "SPATIALBOOST_DATA": "org/rooms@v1"}
sys.path.insert(0, space)
import app
from gradio_client import Client, handle_file

_, url, _ = app.launch(app.build(), prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
client = Client(url, verbose=False)
row = client.predict(source="", choice="single_view / train", index=0, api_name="/data_row")
picture = handle_file(space + "/" + sys.argv[1])
answer = client.predict(images=[picture], question="What is the depth?", api_name="/ask")
layers = client.predict(api_name="/alpha")
os.write(1, f"served {isinstance(answer, str)} {len(layers)} {len(row['turns']) > 0}".encode())
os._exit(0)  # the server's threads need not end in order
"""


def run(arguments, **keywords):
    result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=500, **keywords)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    """Hub, work folder and what the commands printed, after all was published."""
    root = tmp_path_factory.mktemp("life")
    with LocalHub() as hub:
        at_work = hub.environment(root / "home") | {"PYTHONPATH": str(ROOT)}
        printed = run(["-c", LIFE, str(root), str(ROOT / "space_app")], env=at_work, cwd=root)
        yield SimpleNamespace(hub=hub, root=root, printed=printed)


def as_a_stranger(life, script, *arguments):
    """What a process prints that has a new home, no token and the ids alone."""
    home = life.root / "stranger"
    home.mkdir(exist_ok=True)
    environment = life.hub.environment(home, token=None)
    return run(["-I", "-c", textwrap.dedent(script), *arguments], env=environment, cwd=home)


def test_a_fresh_process_loads_all_of_it_by_id(life):
    (collection,) = life.hub.store.collections
    assert as_a_stranger(life, STRANGER, collection).splitlines()[-1].startswith("all of it")


def test_the_space_starts_against_it(life):
    pytest.importorskip("gradio", reason="the Space needs gradio: pip install 'spatialboost[space]'")
    files = life.hub.repository("space", "org/demo").files("v1")
    picture = next(name for name in sorted(files) if name.endswith(".png"))
    assert as_a_stranger(life, SPACE, picture).endswith("served True 2 True")


def test_what_was_published_is_what_we_have(life):
    files = life.hub.repository("space", "org/demo").files("v1")
    assert files["app.py"] == (ROOT / "space_app" / "app.py").read_bytes()
    for name in ("encoder", "vlm"):
        files = life.hub.repository("model", f"org/{name}").files("v1")
        code = {path: content for path, content in files.items() if path.endswith(".py")}
        assert code and all((ROOT / "modeling_spatialboost" / path).read_bytes() == code[path] for path in code)
        assert str(life.root).encode() not in b"".join(data for path, data in files.items())
        assert "run.json" in files  # to which the card points
        commit = life.hub.repository("model", f"org/{name}").tags["v1"].oid
        assert f'"org/{name}", revision="{commit}"' in life.printed
