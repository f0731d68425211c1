"""Every command of the documentation is one that its parser takes, every Python snippet compiles and imports what
exists, every link and picture is there; what is cheap is run."""

import argparse
import ast
import dataclasses
import importlib
import importlib.util
import re
import shlex
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import spatialboost_cli
from dataset_builders import build
from experiments.tiny_models import save_tiny_encoder
from modeling_spatialboost import SpatialBoostImageProcessor, SpatialBoostModel
from trainers.baselines.arguments import BaselineArguments

ROOT = Path(__file__).parent.parent
PLACES = ("*.md", "docs/*.md", "benchmarks/*.md", "space_app/*.md")
PAGES = sorted(path for pattern in PLACES for path in ROOT.glob(pattern))
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
INLINE = re.compile(r"`((?:spatialboost|python -m) [^`]+)`")
# What stands for something of the reader's own: no word of these is looked up
PLACEHOLDER = re.compile(r"\.\.\.|\[|<|\||\$|^VERB$")
OPTIONS_OF_OTHERS = {"--shutdown_timeout", "--signal"}  # of torchrun and Slurm
OURS = ("benchmarks", "dataset_builders", "evaluators", "experiments", "model_cards", "publishing", "trainers")


def blocks(language):
    """(page, text) of every fenced block in a language."""
    return [
        (page, text) for page, content in TEXTS.items() for found, text in BLOCK.findall(content) if found == language
    ]


def command_lines():
    """(page, words) of every command of ours, in blocks and in running text."""
    for page, content in TEXTS.items():
        lines = [line for language, text in BLOCK.findall(content) if language in ("", "bash", "sh")
                 for line in text.replace("\\\n", " ").splitlines()]  # fmt: skip
        lines += [" ".join(found.split()) for found in INLINE.findall(BLOCK.sub("", content))]
        for line in lines:
            if "spatialboost" not in line and "python -m" not in line:
                continue
            try:
                words = shlex.split(line, comments=True)
            except ValueError:  # an apostrophe: prose in a block without language
                continue
            if found := own_command(words):
                yield pytest.param(*found, id=f"{page}: {' '.join(words)[:70]}")


def own_command(words):
    """(module, arguments) of a command line of ours; None for others'. A launcher before it is skipped."""
    if "spatialboost_cli" in words:
        words = ["spatialboost", *words[words.index("spatialboost_cli") + 1 :]]
    while words and re.fullmatch(r"\w+=\S*|time|timeout|\d+", words[0]):
        words = words[1:]
    if len(words) > 1 and words[0] == "spatialboost" and not PLACEHOLDER.search(words[1]):
        if words[1].startswith("-"):
            return None
        assert words[1] in spatialboost_cli.VERBS, f"no verb {words[1]!r}"
        return spatialboost_cli.VERBS[words[1]][0], words[2:]
    if words[:2] == ["python", "-m"] and words[2].split(".")[0] in OURS and not PLACEHOLDER.search(words[2]):
        return words[2], words[3:]
    return None


def options_of(parser):
    return {option: action for action in parser._actions for option in action.option_strings}


@pytest.mark.parametrize(("module", "arguments"), command_lines())
def test_a_command_is_one_that_its_parser_takes(module, arguments):
    parser = importlib.import_module(module).make_parser()
    known = options_of(parser)
    for word in (word.split("=")[0] for word in arguments if word.startswith("--")):
        assert word in known, f"{module} knows no {word}"
    for option, value in pairwise(arguments):
        if option in known and known[option].choices and not PLACEHOLDER.search(value):
            assert value in known[option].choices, f"{option} {value}"
        if option == "--config" and not PLACEHOLDER.search(value) and value.split("/")[0] in OURS:
            assert (ROOT / value).is_file()
    whole = not any(PLACEHOLDER.search(word) for word in arguments)
    if whole and type(parser) is argparse.ArgumentParser and len(arguments) > 1:
        parser.exit_on_error = False
        missing = any(action.required for action in parser._actions)
        try:
            parser.parse_args(arguments)
        except SystemExit:  # of running text, which may leave out what is required
            assert missing, " ".join(arguments)
        except argparse.ArgumentError as error:
            pytest.fail(f"{' '.join(arguments)}: {error}")


def test_every_option_in_running_text_is_one_of_ours():
    named = re.findall(rf"python -m ((?:{'|'.join(OURS)})\.\w+)", " ".join(TEXTS.values()))
    modules = {*named, *(module for module, _ in spatialboost_cli.VERBS.values())}
    known = {option for name in modules for option in options_of(importlib.import_module(name).make_parser())}
    known |= {f"--{field.name}" for field in dataclasses.fields(BaselineArguments)} | OPTIONS_OF_OTHERS
    for page, text in TEXTS.items():
        unknown = set(re.findall(r"`(--[\w-]+)", BLOCK.sub("", text))) - known
        assert not unknown, f"{page}: {unknown}"


def test_targets_of_make_are_there():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for text in TEXTS.values() for name in re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE)}
    assert named and named <= targets


@pytest.mark.parametrize("page", TEXTS)
def test_links_and_pictures_lead_somewhere(page):
    for target in LINK.findall(BLOCK.sub("", TEXTS[page])):
        if not re.match(r"[a-z]+:", target):
            assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", ["README.md", "docs/publishing.md", "docs/faq.md"])
def test_code_is_seen_without_scrolling(page):
    """GitHub and the Hub show about 107 columns."""
    wide = [line for _, text in BLOCK.findall(TEXTS[page]) for line in text.splitlines() if len(line) > 105]
    assert not wide


def check_imports(source):
    """Compile a snippet; every module that it imports is installed, and holds the names."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                assert importlib.util.find_spec(alias.name.split(".")[0]), alias.name
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


def unpinned(source):
    """Calls of a snippet that run code from the Hub, or read an adapter or rows from there, and name no revision."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            names, text = {keyword.arg for keyword in node.keywords}, ast.unparse(node)
            loads = "trust_remote_code" in names or re.match(r"(\w+\.from_adapter|load_dataset)\(", text)
            if loads and not names & {"revision", "base"}:  # an adapter whose base is given comes from a folder
                yield text


@pytest.mark.parametrize(("page", "source"), blocks("python"))
def test_python_compiles_imports_what_exists_and_pins_what_it_loads(page, source):
    check_imports(source)
    assert not list(unpinned(source))


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Where a reader of the README stands after the quickstart: an encoder, a boosted one, data."""
    root = tmp_path_factory.mktemp("reader")
    base = save_tiny_encoder(root / "base", image_size=32, hidden_size=32, num_layers=2)
    folder = root / "outputs" / "quickstart" / "stage3" / "encoder"
    SpatialBoostModel.from_encoder(str(base)).save_pretrained(folder)
    SpatialBoostImageProcessor.from_encoder(str(base)).save_pretrained(folder)
    rooms = ["--source", "synthetic", "--num-scenes", "2", "--resolution", "32", "--configs", "single_view,alignment"]
    assert build.main([*rooms, "--allow-partial", "--output", str(root / "outputs" / "data")]) == 0
    return SimpleNamespace(root=root, base=str(base), image=Image.open(root / pick(root)).convert("RGB"))


def pick(root):
    """A picture of the data."""
    return next((root / "outputs" / "data").glob("*.png"))


def test_the_readmes_python_runs(reader, monkeypatch):
    monkeypatch.chdir(reader.root)
    readme = (source for page, source in blocks("python") if page == "README.md")
    sources = [source for source in readme if "gradio_client" not in source]  # that one is tests/space_app's
    assert len(sources) == 3
    names = {"image": reader.image}
    for source in sources:
        exec(compile(source.replace("facebook/dinov3-vitl16-pretrain-lvd1689m", reader.base), "README", "exec"), names)
    assert names["tokens"].shape == (1, 5 + 16, 32)
    assert names["rows"].num_rows > 0 and (reader.root / "out" / "modeling_spatialboost.py").is_file()
    assert torch.equal(
        SpatialBoostModel.from_pretrained("out")(torch.ones(1, 3, 32, 32)).last_hidden_state,
        SpatialBoostModel.from_encoder(reader.base)(torch.ones(1, 3, 32, 32)).last_hidden_state,
    )  # after the round trip through fuse_channels, "equals the encoder's to the last bit"


def test_cheap_commands_run(reader, monkeypatch, capsys):
    monkeypatch.chdir(reader.root)
    for command in (
        "--help",
        "experiment list",
        "inspect outputs/data",
        f"boost {reader.base} --output outputs/untrained",
    ):
        assert spatialboost_cli.main(shlex.split(command)) == 0, capsys.readouterr().err
    assert "quickstart" in capsys.readouterr().out
    arguments = ["publish", "adapter", "outputs/quickstart/stage3/encoder", "--repo-id", "ORG/NAME", "--dry-run"]
    assert spatialboost_cli.main(arguments) == 0, capsys.readouterr().err


def test_every_verb_is_in_the_readme():
    for verb in spatialboost_cli.VERBS:
        assert f"`{verb}`" in TEXTS["README.md"] or f"spatialboost {verb}" in TEXTS["README.md"]


def test_every_page_of_docs_is_in_the_readmes_table():
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.*")}
    assert pages <= set(LINK.findall(TEXTS["README.md"]))


def test_the_checks_can_fail():
    with pytest.raises(AssertionError, match="no verb"):
        own_command(["spatialboost", "polish", "DIR"])
    with pytest.raises(AssertionError, match="has no nothing_of_the_kind"):
        check_imports("from trainers.config import nothing_of_the_kind")
    assert list(unpinned("AutoModel.from_pretrained('a/b', trust_remote_code=True)\nload_dataset('a/b')"))
    with pytest.raises(AssertionError, match="knows no --colour"):
        test_a_command_is_one_that_its_parser_takes("trainers.boost", ["BASE", "--colour", "red"])
