"""`spatialboost publish --results`: a report on the card, and which reports are refused."""

import json

import pytest
import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, eval_result_entries_to_yaml
from huggingface_hub.repocard_data import eval_results_to_model_index
from PIL import Image

from experiments.tiny_models import save_tiny_encoder
from model_cards import weights_digest
from modeling_spatialboost import SpatialBoostImageProcessor, SpatialBoostModel
from publishing.publish import make_parser, prepared
from publishing.results import read_report
from publishing.staging import write_adapter_card
from tests.commands import evaluate, publish
from tests.hub.clients import local_hub
from tests.test_publish_cards import RECORD
from trainers.cards import write_encoder_card

RMSE = {
    "label": "RMSE (m)", "higher_is_better": False, "base": {"mean": 0.5}, "boosted": {"mean": 0.4321},
    "difference": {"mean": -0.0679, "interval": [-0.08, -0.05]},
}  # fmt: skip
UNKNOWN = RMSE | {"label": "SILog", "boosted": {"mean": None}}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    root = tmp_path_factory.mktemp("encoder")
    base = save_tiny_encoder(root / "base", image_size=32, hidden_size=32, num_layers=2)
    model = SpatialBoostModel.from_encoder(str(base))
    model.save_pretrained(root / "boosted")
    SpatialBoostImageProcessor.from_encoder(str(base)).save_pretrained(root / "boosted")
    write_encoder_card(root / "boosted", RECORD, model.config)
    return root / "boosted"


@pytest.fixture
def report(encoder, tmp_path):
    """What a full run writes for the card (evaluators/card_results.py)."""
    folder = tmp_path / "report"
    (folder / ".eval_results").mkdir(parents=True)
    task = {
        "metrics": {"rmse_m": RMSE, "silog": UNKNOWN}, "seeds": [0, 1], "protocol": {"id": "depth-linear/1"},
        "boosted": {"weights_files": weights_digest(encoder)}, "warnings": ["The base is weak."],
    }  # fmt: skip
    write(
        folder,
        {"preset": "full", "limit": None, "partial": False, "changed": [], "tasks": {"depth_linear/nyud": task}},
    )
    entry = EvalResult("depth-estimation", "org/nyud", "NYUd", "rmse_m", 0.4321, metric_name="RMSE (m)")
    index = {"model-index": eval_results_to_model_index("encoder", [entry])}
    (folder / "model-index.yaml").write_text(yaml.safe_dump(index))
    entries = eval_result_entries_to_yaml([EvalResultEntry("org/nyud", "depth_linear_rmse_m", 0.4321)])
    (folder / ".eval_results" / "nyud.yaml").write_text(yaml.safe_dump(entries))
    return folder


def write(folder, results):
    (folder / "results.json").write_text(json.dumps(results))


def sent(kind, folder, report):
    """The folder with what would be sent."""
    return prepared(make_parser().parse_args([kind, str(folder), "--repo-id", "org/x", "--results", str(report)]))


def change(folder, **changes):
    write(folder, json.loads((folder / "results.json").read_text()) | changes)


def test_the_figures_arrive_on_the_card_and_beside_it(encoder, report, monkeypatch):
    before = (encoder / "README.md").read_bytes()
    with local_hub(monkeypatch) as hub:
        assert publish(["model", str(encoder), "--repo-id", "org/rooms-encoder", "--results", str(report)]) == 0
        files = hub.repository("model", "org/rooms-encoder").files("main")
        ModelCard(files["README.md"].decode()).validate()
    assert (encoder / "README.md").read_bytes() == before
    card = ModelCard(files["README.md"].decode())
    (result,) = card.data.eval_results
    assert (card.data.model_name, result.metric_value) == ("rooms-encoder", 0.4321)
    assert "| depth_linear | nyud | RMSE (m) ↓ | 0.5 | 0.4321 | -0.0679 | -0.08 to -0.05 |" in card.text
    assert "Seeds per task: 2." in card.text and "The base is weak." in card.text
    assert "Not measured" not in card.text and "SILog" not in card.text
    assert files[".eval_results/nyud.yaml"] == (report / ".eval_results" / "nyud.yaml").read_bytes()


def test_an_adapter_takes_the_figures_of_the_encoder_that_it_comes_from(encoder, report):
    with sent("adapter", encoder, report) as staged:
        assert "| depth_linear | nyud |" in (staged / "README.md").read_text()
        assert (staged / ".eval_results" / "nyud.yaml").is_file()


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"preset": "cpu"}, "--preset cpu"), ({"partial": True, "limit": 8}, "--limit 8"),
     ({"changed": ["--set depth_linear.steps=1"]}, "--set depth_linear.steps=1")],
)  # fmt: skip
def test_small_and_changed_runs_are_no_results(encoder, report, changes, told, capsys):
    change(report, **changes)
    assert publish(["model", str(encoder), "--repo-id", "org/x", "--dry-run", "--results", str(report)]) == 2
    assert f"{told}, and such figures are not the protocol's" in capsys.readouterr().err


def test_a_report_about_other_weights_is_refused(encoder, report, tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="depth_linear/nyud was not measured with the weights in"):
        read_report(report, tmp_path / "other")
    change(report, tasks={})
    (tmp_path / "other" / "model.safetensors").write_bytes(b"0")
    with pytest.raises(ValueError, match="it holds no scores"):
        read_report(report, encoder)


def test_what_is_no_report_and_what_takes_none(encoder, report, tmp_path, capsys):
    arguments = [str(encoder), "--repo-id", "org/x", "--dry-run", "--results"]
    assert publish(["model", *arguments, str(tmp_path)]) == 2
    assert "no report of `spatialboost evaluate`" in capsys.readouterr().err
    assert publish(["dataset", *arguments, str(report)]) == 2
    assert "is for a model or an adapter, not for a dataset" in capsys.readouterr().err
    (report / "model-index.yaml").unlink()
    assert publish(["model", *arguments, str(report)]) == 2
    assert "it has no model-index.yaml" in capsys.readouterr().err


def test_a_card_of_an_adapter_has_a_place_for_them(tmp_path):
    (tmp_path / "spatialboost_adapter.json").write_text('{"model_type": "dinov2"}')
    write_adapter_card(tmp_path)
    assert "\n## Results\n" in (tmp_path / "README.md").read_text()


def test_what_the_evaluator_writes_is_what_publish_reads(encoder, tmp_path):
    for name, colour in {"red": (200, 30, 30), "blue": (30, 30, 200)}.items():
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(10):
            picture = Image.new("RGB", (40, 40), tuple(value + number for value in colour))
            picture.save(tmp_path / "pictures" / name / f"{number}.png")
    sides = ["--base", str(encoder.parent / "base"), "--boosted", str(encoder)]
    data = ["--tasks", "knn_classification", "--data", f"folder={tmp_path / 'pictures'}"]
    assert evaluate([*sides, *data, "--output", str(tmp_path / "full")]) == 0
    with sent("model", encoder, tmp_path / "full") as staged:
        card = ModelCard((staged / "README.md").read_text())
    assert "| knn_classification | folder | " in card.text and card.data.eval_results[0].metric_value is not None
    assert evaluate([*sides, *data, "--limit", "8", "--output", str(tmp_path / "part")]) == 0
    with pytest.raises(ValueError, match="--limit 8, and such figures"), sent("model", encoder, tmp_path / "part"):
        pass
