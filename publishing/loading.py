"""Loading what is published in a process that cannot see the clone, before it is sent and again from the Hub."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from publishing.kinds import RECORD

ROOT = Path(__file__).resolve().parent.parent
# The clone, also an installed one, must not help; adapters are the exception, they are read by our package
BLOCKED = "import sys; sys.modules['modeling_spatialboost'] = None\n"
ENCODER = """
name, revision = sys.argv[1], sys.argv[2] or None
import torch
from transformers import AutoBackbone, AutoImageProcessor, AutoModel
from PIL import Image
model = AutoModel.from_pretrained(name, revision=revision, trust_remote_code=True).eval()
processor = AutoImageProcessor.from_pretrained(name, revision=revision, trust_remote_code=True)
inputs = processor(Image.new("RGB", (64, 64)), return_tensors="pt").to(dtype=model.dtype)
with torch.no_grad():
    tokens = model(**inputs).last_hidden_state
assert tokens.isfinite().all(), "its features are not finite"
if revision:  # AutoBackbone of transformers 5.23 takes ids of the Hub only
    AutoBackbone.from_pretrained(name, revision=revision, trust_remote_code=True)
print(f"AutoModel gives tokens {tuple(tokens.shape)}")
"""
VLM = """
name, revision = sys.argv[1], sys.argv[2] or None
from transformers import AutoModelForImageTextToText, AutoProcessor
model = AutoModelForImageTextToText.from_pretrained(name, revision=revision, trust_remote_code=True, dtype="auto")
AutoProcessor.from_pretrained(name, revision=revision, trust_remote_code=True)
print(f"AutoModelForImageTextToText has {model.num_parameters():,} parameters")
"""
ADAPTER = """
sys.path.insert(0, sys.argv[3])
name, revision = sys.argv[1], sys.argv[2] or None
from modeling_spatialboost.adapter import read_adapter
record, weights = read_adapter(name, revision)
assert all(tensor.isfinite().all() for tensor in weights.values()), "its weights are not finite"
assert sum(tensor.numel() for tensor in weights.values()) == record.num_parameters, "weights and record differ"
print(f"the adapter has {record.num_parameters:,} numbers for {record.base_encoder or 'a base from a folder'}")
"""
DATASET = """
name, revision = sys.argv[1], sys.argv[2] or None
from datasets import get_dataset_config_names, get_dataset_split_names, load_dataset
told = []
for config in get_dataset_config_names(name, revision=revision):
    for split in get_dataset_split_names(name, config, revision=revision):
        row = next(iter(load_dataset(name, config, split=split, streaming=True, revision=revision)))
        told.append(f"{config}/{split} ({len(row)} columns)")
assert told, "it has no configuration"
print("load_dataset reads " + ", ".join(told))
"""
SPACE = """
name, revision = sys.argv[1], sys.argv[2] or None
from pathlib import Path
if revision:
    from huggingface_hub import snapshot_download
    name = snapshot_download(name, repo_type="space", revision=revision)
files = sorted(Path(name).rglob("*.py"))
for path in files:
    compile(path.read_bytes(), path.name, "exec", dont_inherit=True)
print(f"Python compiles: {', '.join(path.name for path in files)}")
"""
TIMEOUT_SECONDS = 3600


class LoadingError(Exception):
    """What was to be published, or has been, cannot be loaded; holds the last line of the reason."""


def script_for(kind_name: str, staged: Path) -> str:
    """The program that loads it as its users will."""
    if kind_name != "model":
        return {"adapter": "import sys\n" + ADAPTER, "dataset": BLOCKED + DATASET, "space": BLOCKED + SPACE}[kind_name]
    return BLOCKED + (VLM if is_vlm(staged) else ENCODER)


def is_vlm(staged: Path) -> bool:
    """Whether a model's folder holds a vision-language model and not an encoder alone."""
    return "text_config" in json.loads((staged / "config.json").read_text(encoding="utf-8"))


def load_in_isolation(script: str, name: str, revision: str = "", token: str | None = None) -> str:
    """Run a script of this module where nothing but the installed libraries and `name` can be seen.

    Args:
        script: from `script_for`.
        name: a folder, read offline; or an id of the Hub, with `revision`.
        revision: a commit; "" = `name` is a folder.
        token: for the Hub.

    Returns:
        What the script says about what it has loaded.

    Raises:
        LoadingError: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="spatialboost-") as home:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HF_", "HUGGING"))}
        kept |= {key: os.environ[key] for key in ("HF_ENDPOINT", "HF_HUB_DISABLE_XET") if key in os.environ}
        own = {"HOME": home, "HF_HOME": home, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        own |= {"HF_TOKEN": token} if token and revision else {}
        own |= {} if revision else {"HF_HUB_OFFLINE": "1"}
        result = subprocess.run(
            [sys.executable, "-I", "-c", script, name, revision, str(ROOT)],
            env=kept | own,
            cwd=home,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
    if result.returncode:
        raise LoadingError((result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1])
    return result.stdout.strip().splitlines()[-1]


def make_adapter(model_folder: Path, folder: Path) -> None:
    """Write the second channel of a boosted encoder's folder, where that folder holds the whole model."""
    from modeling_spatialboost import SpatialBoostModel

    SpatialBoostModel.from_pretrained(model_folder).save_adapter(folder)


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter already."""
    return (folder / RECORD).is_file()
