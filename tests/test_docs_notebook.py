"""The notebook's cells run one after the other, on a tiny stand-in for what the quickstart leaves."""

import json
import sys
from types import ModuleType

import pytest
from transformers import AutoTokenizer

import modeling_spatialboost as sb
from dataset_builders import build
from experiments.tiny_models import save_tiny_encoder, save_tiny_language_model
from tests.test_architecture import ROOT

NOTEBOOK = json.loads((ROOT / "docs" / "quickstart.ipynb").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """Folders as `spatialboost quickstart` names them."""
    root = tmp_path_factory.mktemp("reader") / "outputs" / "quickstart"
    rooms = ["--source", "synthetic", "--num-scenes", "2", "--resolution", "64", "--configs", "single_view"]
    assert build.main([*rooms, "--output", str(root / "data")]) == 0
    encoder = save_tiny_encoder(root / "encoder", image_size=64, hidden_size=32, num_layers=2)
    language_model = save_tiny_language_model(root / "language_model", ["The depth is 1.234 m."] * 4, hidden_size=32)
    image_processor = sb.SpatialBoostImageProcessor.from_encoder(str(encoder))
    sb.SpatialBoostModel.from_encoder(str(encoder)).save_pretrained(root / "stage3" / "encoder")
    image_processor.save_pretrained(root / "stage3" / "encoder")
    tokenizer = AutoTokenizer.from_pretrained(language_model)
    processor = sb.SpatialBoostProcessor.from_components(image_processor, tokenizer, patch_size=8)
    model = sb.SpatialBoostForConditionalGeneration.from_components(str(encoder), str(language_model), processor)
    for part in (model, processor):
        part.save_pretrained(root / "stage3")
    return root


def run(cells, monkeypatch):
    """What the cells display; IPython, which Jupyter brings, is not needed for that."""
    shown = []
    module = ModuleType("IPython.display")
    module.display = shown.append
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    names = {"__name__": "__main__"}
    for number, source in enumerate(cells):
        exec(compile(source, f"cell {number}", "exec"), names)
    return shown


def code_cells():
    return ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_all_cells_run_from_any_folder_below(quickstart, monkeypatch, capsys):
    below = quickstart.parents[1] / "docs"
    below.mkdir()
    monkeypatch.chdir(below)  # as Jupyter does
    picture, components = run(code_cells(), monkeypatch)
    printed = capsys.readouterr().out
    assert picture.size == (256, 256) and components.size == (520, 256)
    assert len(components.getcolors(1 << 20)) > 20  # and not one colour
    assert "tokens (1, 69, 32) of SpatialBoostModel" in printed
    assert "layer 1: alpha 0.500" in printed and "the base channel is untouched: True" in printed
    assert "user: " in printed and "assistant: " in printed


def test_without_the_quickstart_it_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match="make quickstart"):
        run(code_cells()[:1], monkeypatch)


def test_what_is_committed_was_run_to_its_end():
    numbers = [cell["execution_count"] for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert numbers == list(range(1, len(numbers) + 1))
    kinds = {output["output_type"] for cell in NOTEBOOK["cells"] for output in cell.get("outputs", ())}
    assert kinds <= {"stream", "display_data"}  # no error
    assert str(NOTEBOOK).count("image/png") >= 2 and "/root" not in str(NOTEBOOK) and "/tmp" not in str(NOTEBOOK)
