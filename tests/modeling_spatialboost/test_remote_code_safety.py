"""`trust_remote_code=True` is a promise: what the code that travels may import and do; what configs may ask for."""

import ast
import json
import shutil
import tracemalloc

import pytest
from transformers import AutoConfig

from modeling_spatialboost import (
    SpatialBoostConfig,
    SpatialBoostImageProcessor,
    SpatialBoostModel,
    SpatialBoostVLMConfig,
)
from tests.isolated import run_isolated
from tests.modeling_spatialboost.encoders import tiny_encoder
from tests.test_architecture import ROOT

CODE = sorted(path for path in (ROOT / "modeling_spatialboost").glob("*.py"))
LIBRARIES = {"torch", "transformers"}
SAFE_STANDARD = {
    "bisect", "collections", "copy", "dataclasses", "functools", "hashlib", "inspect", "json", "math", "pathlib", "re",
    "typing",
}  # fmt: skip
# The only functions that touch files, when a user calls them; safetensors is what they read and write with
MAY_USE_FILES = {("adapter.py", "save_adapter"), ("adapter.py", "read_adapter")}
FILES = {"read_text", "write_text", "read_bytes", "write_bytes", "mkdir", "unlink", "rmdir", "rename", "touch",
         "rglob", "glob", "iterdir", "save_file", "load_file", "symlink_to", "chmod"}  # fmt: skip
TORCH = {"load", "save", "hub", "ops", "package", "serialization"}
NEVER = {"eval", "exec", "compile", "open", "input", "__import__", "globals", "breakpoint", "load_library",
         "system", "popen", "import_module", "urlopen", "load_state_dict_from_url", "__subclasses__", "__globals__",
         "__builtins__", "__code__", "__loader__", "trust_remote_code", "weights_only"}  # fmt: skip


def problems_of(name, text):
    """What a file of remote code must not hold; empty for a good one."""
    tree, found = ast.parse(text), []
    functions = {}  # node -> the function that it stands in
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            functions |= {inner: function.name for inner in ast.walk(function)}
    for node in ast.walk(tree):
        for module in imported(node):
            root = module.split(".")[0]
            is_adapters = name == "adapter.py" and root == "safetensors"
            if root not in LIBRARIES | SAFE_STANDARD and not is_adapters:
                found.append(f"imports {module}")
        words = {ast.Name: "id", ast.Attribute: "attr", ast.keyword: "arg"}
        word = getattr(node, words[type(node)]) if type(node) in words else None
        if word in NEVER:
            found.append(f"says {word}")
        if word in FILES and (name, functions.get(node)) not in MAY_USE_FILES and not isinstance(node, ast.keyword):
            found.append(f"uses files: {word}")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
            found += [f"torch.{node.attr}"] if node.attr in TORCH else []
    return found


def imported(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.name)
def test_the_code_that_travels_imports_two_libraries_and_touches_nothing_else(path):
    assert problems_of(path.name, path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    ["import os", "import socket", "from subprocess import run", "import requests", "open('x')", "eval('1')",
     "from pathlib import Path; Path('x').read_text()", "import torch; torch.load('x')", "torch.hub.load('a', 'b')",
     "AutoModel.from_pretrained('x', trust_remote_code=True)", "().__class__.__base__.__subclasses__()",
     "__import__('os')", "import importlib", "import pickle", "import ctypes", "from .. import x; exec('x')"],
)  # fmt: skip
def test_the_test_finds_what_it_looks_for(line):
    assert problems_of("patch_tokens.py", line)


WATCHED = """
import sys, sysconfig
import torch, transformers
from pathlib import Path
from PIL import Image
from transformers import AutoBackbone, AutoConfig, AutoImageProcessor, AutoModel

own, events, watching = "transformers_modules", [], False
# where imported code lies: the libraries, and the copy that transformers makes of the remote code
code = tuple({sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), str(Path.home() / "hf" / "modules")})
# they write the methods of namedtuples and dataclasses, and read annotations
makers = ("collections/__init__.py", "dataclasses.py", "typing.py")
sys.dont_write_bytecode = True
NEVER = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "ctypes.", "shutil.",
         "os.remove", "os.rename", "os.mkdir", "os.putenv", "os.listdir", "os.scandir", "urllib.", "webbrowser.",
         "pickle.find_class")

def hook(event, arguments):
    if not watching or not (event in ("open", "exec", "compile") or event.startswith(NEVER)):
        return
    frame, names = sys._getframe(1), []
    while frame is not None:
        names.append(frame.f_code.co_filename)
        frame = frame.f_back
    if not any(own in name for name in names):
        return  # transformers itself reads the folder's files
    between = names[: next(i for i, name in enumerate(names) if own in name)]
    importing = any("importlib" in name for name in between)
    inspecting = bool(between) and between[0].endswith("tokenize.py")  # inspect.getsource, by transformers
    reading = event == "open" and arguments[1] in ("r", "rb", None)
    if reading and (importing or inspecting) and str(arguments[0]).startswith(code):
        return
    if event in ("exec", "compile", "os.listdir", "os.scandir") and importing:
        return
    if event in ("exec", "compile") and between and between[0].endswith(makers):
        return
    events.append(f"{event} {str(arguments)[:80]} in {between[:1]}")

sys.addaudithook(hook)

def use(folder, wholly):
    global watching
    events.clear()
    watching = True
    try:
        model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
        if wholly:
            processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
            with torch.no_grad():
                model(**processor(Image.new("RGB", (32, 32)), return_tensors="pt"))
            config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
            AutoBackbone.from_config(config, trust_remote_code=True)
    except Exception as error:
        events.append(f"failed: {error!r}")
    watching = False
    return list(events)

found = use(sys.argv[1], wholly=True)
assert not found, found
for folder in sys.argv[2:]:
    assert use(folder, wholly=False), f"the hook missed what {folder} does"
print("watched", len(sys.argv) - 1)
"""
EVIL = {
    "reads": "open('/etc/hostname').read()",
    "writes": "import pathlib; pathlib.Path('note').write_text('x')",
    "connects": "import socket; socket.socket().connect_ex(('127.0.0.1', 9))",
    "runs": "import os; os.system('true')",
    "executes": "exec('x = 1')",
}


def test_loading_and_using_it_opens_nothing_and_calls_nobody(tmp_path):
    """An audit hook in a process that has the folder alone; and the hook sees what evil twins of the code do."""
    good = tmp_path / "good"
    model = SpatialBoostModel.from_encoder(tiny_encoder("dinov3"))
    model.save_pretrained(good)
    SpatialBoostImageProcessor(size={"height": 32, "width": 32}).save_pretrained(good)
    for name, line in EVIL.items():
        shutil.copytree(good, tmp_path / name)
        with (tmp_path / name / "patch_tokens.py").open("a") as file:
            file.write(f"\n\n{line}\n")
    folders = [str(tmp_path / name) for name in ("good", *EVIL)]
    assert run_isolated(WATCHED, tmp_path / "home", *folders).split() == ["watched", str(len(folders))]


HUGE = 10**9
ENCODERS = {
    "width": ({"hidden_size": HUGE}, "hidden_size=1000000000"),
    "layers": ({"num_hidden_layers": HUGE}, "num_hidden_layers"),
    "negative layers": ({"num_hidden_layers": -1}, "num_hidden_layers=-1"),
    "no patches": ({"patch_size": 0}, "patch_size=0"),
    "text for a number": ({"hidden_size": "64"}, "hidden_size='64'"),
    "not a number": ({"hidden_size": float("nan")}, "hidden_size=nan"),
    "image": ({"image_size": [64, HUGE]}, "image_size"),
    "patches": ({"image_size": 60_000, "patch_size": 1}, "3,600,000,000 patches"),
    "all a bit": ({"hidden_size": 65_536, "num_hidden_layers": 1024}, "parameters"),
}
OWN = {
    "labels": ({"num_labels": HUGE}, "num_labels"),
    "layers": ({"num_hidden_layers": HUGE}, "num_hidden_layers"),
    "bins": ({"depth_bins": 10**12}, "depth_bins"),
    "no alpha": ({"alpha_logit_init": float("nan")}, "alpha_logit_init=nan"),
    "endless alpha": ({"alpha_logit_init": float("inf")}, "alpha_logit_init=inf"),
    "dropout": ({"head_dropout": 2.0}, "head_dropout=2.0"),
    "depth": ({"max_depth_m": float("inf")}, "max_depth_m=inf"),
    "no depth": ({"min_depth_m": float("nan")}, "min_depth_m=nan"),
    "many layers boosted": ({"boosted_layers": [0] * 10**5}, "boosted_layers has 100,000 entries"),
}
VLMS = {
    "words": ({"text_config": {"model_type": "qwen2", "vocab_size": 10**12}}, "vocab_size"),
    "text layers": ({"text_config": {"model_type": "qwen2", "num_hidden_layers": HUGE}}, "text_config"),
    "experts": ({"text_config": {"model_type": "qwen3_moe", "num_experts": HUGE}}, "num_experts"),
    "encoder": ({"vision_config": {"backbone_config": {"hidden_size": HUGE}}}, "hidden_size"),
    "shuffle": ({"projector_shuffle": HUGE}, "projector_shuffle"),
}
CASES = [(SpatialBoostConfig, {"backbone_config": {"model_type": "dinov3_vit"} | change}, told)
         for change, told in ENCODERS.values()]  # fmt: skip
CASES += [(SpatialBoostConfig, change, told) for change, told in OWN.values()]
CASES += [(SpatialBoostVLMConfig, change, told) for change, told in VLMS.values()]


@pytest.mark.parametrize(("config_class", "settings", "told"), CASES, ids=[*ENCODERS, *OWN, *VLMS])
def test_a_config_from_a_stranger_takes_no_memory(config_class, settings, told, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": config_class.model_type, **settings}))
    for make in (lambda: config_class(**settings), lambda: AutoConfig.from_pretrained(tmp_path)):
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match="damaged|give") as error:
                make()
            assert told in str(error.value) and len(str(error.value)) < 300
            assert tracemalloc.get_traced_memory()[1] < 20_000_000
        finally:
            tracemalloc.stop()


def test_configs_of_the_largest_published_models_pass():
    seven_b = {"model_type": "dinov3_vit", "hidden_size": 4096, "num_hidden_layers": 40, "intermediate_size": 8192,
               "num_attention_heads": 32, "patch_size": 16, "image_size": 768}  # fmt: skip
    text = {"model_type": "qwen2", "hidden_size": 8192, "num_hidden_layers": 80, "intermediate_size": 29_568,
            "vocab_size": 152_064}  # fmt: skip
    config = SpatialBoostVLMConfig(vision_config={"backbone_config": seven_b}, text_config=text)
    assert config.vision_config.num_hidden_layers == 40


@pytest.mark.parametrize("side", [HUGE, 0, -5, float("nan"), "wide"])
def test_an_image_processor_from_a_stranger(side):
    with pytest.raises((ValueError, TypeError), match="size"):
        SpatialBoostImageProcessor(size={"height": side, "width": 32})


def test_weights_that_do_not_fit_the_config_are_told(tmp_path):
    """A config that asks for more than the weights hold gives an error, not a model with made-up weights."""
    SpatialBoostModel.from_encoder(tiny_encoder("dinov3")).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["backbone_config"]["intermediate_size"] *= 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises((RuntimeError, ValueError), match="mismatch|size"):
        SpatialBoostModel.from_pretrained(tmp_path)
