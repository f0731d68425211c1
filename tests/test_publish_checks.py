"""What is refused before anything is sent, each with file and remedy; and what is mended on the way."""

import json
import pickle
import shutil
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

import publishing.publish
from publishing.kinds import KINDS
from publishing.staging import local_path_pattern, stage
from tests.commands import publish
from tests.hub.clients import local_hub, make_space
from tests.hub.store import Repository
from tests.test_architecture import ROOT

TOKEN = "hf_" + "aB3" * 12
DINOV3 = "facebook/dinov3-vitl16-pretrain-lvd1689m"
REMOTE_CODE = ("configuration_spatialboost.py", "modeling_spatialboost.py", "adapter.py")


@pytest.fixture
def model(tmp_path):
    """Looks like a model to all checks but the one that loads it."""
    folder = tmp_path / "model"
    folder.mkdir()
    backbone = {"model_type": "dinov3_vit", "hidden_size": 64, "num_hidden_layers": 4, "_name_or_path": str(tmp_path)}
    config = {"model_type": "spatialboost", "base_encoder": str(tmp_path / "base"), "backbone_config": backbone}
    write_config(folder, config)
    (folder / "README.md").write_text("---\ntags: [spatialboost]\n---\n# A model\n")
    save_file({"weights": np.zeros(4)}, folder / "model.safetensors")
    for name in REMOTE_CODE:
        shutil.copy(ROOT / "modeling_spatialboost" / name, folder)
    return folder


def write_config(folder, config):
    (folder / "config.json").write_text(json.dumps(config))


def change_config(folder, **changes):
    write_config(folder, json.loads((folder / "config.json").read_text()) | changes)


@pytest.fixture
def refused(capsys, monkeypatch):
    """The reasons why a folder is refused; it must be, and without anything being loaded."""
    monkeypatch.setattr(publishing.publish, "load_in_isolation", None)

    def reasons(kind, folder, *more):
        assert publish([kind, str(folder), "--repo-id", "org/x", "--dry-run", *more]) == 2
        error = capsys.readouterr().err
        assert "nothing was sent" in error and "Traceback" not in error
        return error

    return reasons


@pytest.fixture
def accepted(capsys, monkeypatch):
    monkeypatch.setattr(publishing.publish, "load_in_isolation", lambda *arguments: "not loaded here")

    def listing(kind, folder, *more):
        assert publish([kind, str(folder), "--repo-id", "org/x", "--dry-run", *more]) == 0
        return capsys.readouterr().out

    return listing


def write_zip_of_a_pickle(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))


WRITERS = {
    "pytorch_model.bin": lambda path: path.write_bytes(b"anything"),
    "training_args.pt": lambda path: path.write_bytes(b"anything"),
    "notes.txt": lambda path: path.write_bytes(pickle.dumps({"a": 1})),
    "weights-2.safetensors": write_zip_of_a_pickle,
    "weights-3.safetensors": lambda path: path.write_bytes(pickle.dumps([1], protocol=2)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_pickles_whatever_they_are_called(model, refused, name):
    WRITERS[name](model / name)
    assert f"{name} is a pickle" in refused("model", model)


def test_safetensors_whose_head_begins_like_a_pickle_are_none(model, accepted):
    for length in range(480, 640, 4):  # among them heads of 0x80 0x02 .. bytes
        save_file({"weights": np.zeros(1)}, model / "model.safetensors", metadata={"note": "x" * length})
        if (model / "model.safetensors").read_bytes()[:2] == b"\x80\x02":
            break
    else:
        raise AssertionError("no such head")
    accepted("model", model)


SECRETS = {
    "README.md": f"---\ntags: [spatialboost]\n---\nuse_auth_token='{TOKEN}'\n",
    "run.json": json.dumps({"hub_token": TOKEN}),
    "notes.txt": "-----BEGIN RSA PRIVATE KEY-----",
    "settings.yaml": "key: sk-" + "a1" * 20,
}


@pytest.mark.parametrize("name", SECRETS)
def test_tokens_are_found_and_not_repeated(model, refused, name):
    (model / name).write_text(SECRETS[name])
    error = refused("model", model)
    assert f"{name}, line " in error and "revoke it" in error and TOKEN not in error


def test_a_token_in_the_head_of_safetensors(model, refused):
    save_file({"weights": np.zeros(1)}, model / "model.safetensors", metadata={"command": f"HF_TOKEN={TOKEN} train"})
    assert "model.safetensors holds a token" in refused("model", model)


def test_paths_of_this_machine(model, refused, tmp_path):
    (model / "notes.txt").write_text(f"see {tmp_path}/runs/1\n")
    (model / "more.txt").write_text(r"see C:\Users\me\runs")
    error = refused("model", model)
    assert f"notes.txt, line 1, holds a path of this machine, '{tmp_path}/runs/1'" in error and "more.txt" in error


@pytest.mark.parametrize(
    "text", ["https://example.org/home/me/x", "GET /api/models/x", "a/home/b/c", "</home/x>", "~/home/me", "/home"]
)
def test_what_only_looks_like_a_path(text, tmp_path):
    assert not local_path_pattern(tmp_path).search(text)


def test_our_own_records_lose_their_paths_and_the_folder_keeps_them(model, tmp_path):
    (model / "run.json").write_text(json.dumps({"datasets": [f"{tmp_path}/data:single_view:train"]}))
    (model / "README.md").write_text('Data: `/home/me/data:rooms` (9 rows)\n\nx, revision = ".", None  # here\n')
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    (tmp_path / "staged").mkdir()
    assert stage(model, KINDS["model"], tmp_path / "staged", "org/x", "v3") == []
    staged = tmp_path / "staged"
    assert json.loads((staged / "run.json").read_text()) == {"datasets": ["data:single_view:train"]}
    assert (staged / "README.md").read_text() == 'Data: `data:rooms` (9 rows)\n\nx, revision = "org/x", "v3"\n'
    config = json.loads((staged / "config.json").read_text())
    assert config["base_encoder"] is None and config["backbone_config"]["_name_or_path"] == ""
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


def test_ids_of_the_hub_stay_in_the_config(model, tmp_path):
    change_config(model, base_encoder="somebody/encoder")
    (tmp_path / "staged").mkdir()
    stage(model, KINDS["model"], tmp_path / "staged", "org/x", "v1")
    assert json.loads((tmp_path / "staged" / "config.json").read_text())["base_encoder"] == "somebody/encoder"


def test_a_link_that_leads_out_of_the_folder(model, capsys, tmp_path):
    (tmp_path / "private.txt").write_text("mine")
    (model / "notes.txt").symlink_to(tmp_path / "private.txt")
    assert publish(["model", str(model), "--repo-id", "org/x", "--dry-run"]) == 2
    assert "leads out of" in capsys.readouterr().err


def test_remote_code_is_this_projects_byte_for_byte(model, refused):
    with (model / "adapter.py").open("a") as file:
        file.write("\n")
    (model / "extra.py").write_text("import os\n")
    error = refused("model", model)
    assert "adapter.py differs from modeling_spatialboost/adapter.py" in error
    assert "extra.py is no file of modeling_spatialboost" in error


def test_files_that_are_missing_unknown_or_damaged(model, refused):
    (model / "README.md").unlink()
    (model / "model.safetensors").write_bytes(b"not a head")
    (model / "setup.sh").write_text("true")
    (model / "config.json").write_text("{")
    (model / "latin.txt").write_bytes(b"caf\xe9")
    error = refused("model", model)
    for told in (
        "README.md is missing",
        "model.safetensors is damaged",
        "setup.sh is no file",
        "config.json is no JSON",
    ):
        assert told in error
    assert "latin.txt is no UTF-8" in error


def test_leftovers_of_training_stay_at_home(model, accepted):
    (model / "checkpoint-4").mkdir()
    (model / "checkpoint-4" / "optimizer.pt").write_bytes(pickle.dumps({}))
    (model / ".env").write_text(TOKEN)
    printed = accepted("model", model)
    assert "left at home: .env, checkpoint-4/optimizer.pt" in printed


def test_gated_weights_are_refused_whole_by_name_and_by_shape(model, refused, accepted):
    change_config(model, base_encoder=DINOV3)
    error = refused("model", model, "--own-weights")
    assert DINOV3 in error and "DINOv3 License" in error and "publish adapter" in error
    released = {"model_type": "dinov3_vit", "hidden_size": 1024, "num_hidden_layers": 24}
    change_config(model, base_encoder=None, backbone_config=released)
    assert "has this shape" in refused("model", model)
    accepted("model", model, "--own-weights")
    (model / "README.md").write_text(f"---\ntags: [spatialboost]\nbase_model: {DINOV3}\n---\n")
    assert DINOV3 in refused("model", model)
    language = {"vision_config": {"base_encoder": None}, "text_config": {"_name_or_path": "meta-llama/Llama-3-8B"}}
    write_config(model, language)
    (model / "README.md").write_text("---\ntags: [spatialboost]\n---\n")
    assert "meta-llama/Llama-3-8B" in refused("model", model)


@pytest.mark.parametrize("gated", ["manual", "auto"])
def test_a_gate_on_the_hub_is_found(model, capsys, monkeypatch, gated):
    monkeypatch.setattr(publishing.publish, "load_in_isolation", None)
    change_config(model, base_encoder="somebody/encoder")
    with local_hub(monkeypatch) as hub:
        hub.store.repositories["model", "somebody/encoder"] = Repository("model", "somebody/encoder")
        hub.repository("model", "somebody/encoder").gated = gated
        assert publish(["model", str(model), "--repo-id", "org/x"]) == 2
        assert ("model", "org/x") not in hub.store.repositories
    error = capsys.readouterr().err
    assert "somebody/encoder, which is behind a gate" in error and "publish adapter" in error


def make_adapter(folder, **record):
    folder.mkdir()
    save_file({"layers.0.alpha_logit": np.zeros(4, np.float32)}, folder / "spatialboost_adapter.safetensors")
    told = {"base_encoder": DINOV3, "model_type": "dinov3_vit", "hidden_size": 1024, "num_parameters": 4} | record
    (folder / "spatialboost_adapter.json").write_text(json.dumps(told))
    return folder


def test_an_adapter_of_gated_weights_brings_their_licence(tmp_path, refused, accepted):
    folder = make_adapter(tmp_path / "adapter")
    assert "LICENSE.md is missing" in refused("adapter", folder)
    (folder / "LICENSE.md").write_text("DINOv3 License\n")
    assert "README.md" in accepted("adapter", folder)  # a card was written, with the notice
    (folder / "README.md").write_text("---\ntags: [spatialboost]\n---\n# Mine\n")
    assert "'Built with DINOv3'" in refused("adapter", folder)


def test_an_adapter_of_other_weights_needs_none(tmp_path, accepted):
    folder = make_adapter(tmp_path / "adapter", base_encoder=None, hidden_size=64)
    assert "LICENSE.md" not in accepted("adapter", folder)  # nothing is asked for, and none is put there


def make_data(folder, licences):
    folder.mkdir()
    (folder / "README.md").write_text("---\ntags: [spatialboost]\n---\n# Data\n")
    columns = {"id": [str(number) for number in range(len(licences))], "licence": licences}
    pq.write_table(pa.table(columns), folder / "train.parquet")
    return folder


@pytest.mark.parametrize(
    "licence", ["ScanNet Terms of Use", "Ego4D License Agreement", "SA-1B research licence", "MVImgNet Terms of Use"]
)
def test_samples_whose_licence_forbids_it(tmp_path, refused, licence):
    folder = make_data(tmp_path / "data", ["CC0-1.0", licence, licence])
    error = refused("dataset", folder, "--cleared", licence)
    assert f"2 rows are under '{licence}', which forbids" in error and "CC0" not in error


def test_samples_of_which_the_licence_is_not_known(tmp_path, refused, accepted):
    folder = make_data(tmp_path / "data", ["CC0-1.0", "unknown", None])
    error = refused("dataset", folder)
    assert "1 rows are under 'unknown'" in error and "--cleared 'unknown'" in error and "'no licence'" in error
    folder = make_data(tmp_path / "mine", ["CC-BY-4.0", "unknown"])
    accepted("dataset", folder, "--cleared", "unknown")


def test_tokens_and_paths_in_the_texts_of_rows(tmp_path, refused, accepted):
    folder = make_data(tmp_path / "data", ["CC0-1.0"] * 3000)
    table = pq.read_table(folder / "train.parquet")
    turns = [[{"content": [{"type": "text", "text": f"Room {number}?"}]}] for number in range(3000)]
    deep, views = list(turns), [[{"bytes": b"\x89PNG", "path": "room.png"}]] * 3000
    pq.write_table(table.append_column("messages", [turns]).append_column("images", [views]), folder / "train.parquet")
    accepted("dataset", folder)
    deep[2999] = [{"content": [{"type": "text", "text": f"Use {TOKEN}"}]}]
    views[7] = [{"bytes": b"hf_", "path": "/home/me/photos/1.png"}]
    wrong = table.append_column("messages", [deep]).append_column("images", [views])
    pq.write_table(wrong.replace_schema_metadata({"from": r"C:\Users\me\rooms"}), folder / "train.parquet")
    error = refused("dataset", folder)
    assert "train.parquet, column messages, holds a token of the Hub: remove it" in error and TOKEN not in error
    assert "column images, holds a path of this machine, '/home/me/photos/1.png': write a relative one" in error
    assert "column metadata, holds a path of this machine" in error and error.count("holds") == 3


def test_samples_that_say_no_licence_and_a_broken_file(tmp_path, refused):
    folder = make_data(tmp_path / "data", ["CC0-1.0"])
    pq.write_table(pa.table({"id": ["1"]}), folder / "train.parquet")
    assert "No Parquet file has the column `licence`" in refused("dataset", folder)
    (folder / "train.parquet").write_bytes(b"PAR1")
    assert "cannot be read" in refused("dataset", folder)


def test_a_space_whose_code_or_card_cannot_run(tmp_path, refused):
    folder = make_space(tmp_path / "space")
    (folder / "README.md").write_text("---\nsdk: flask\napp_file: main.py\n---\n")
    (folder / "app.py").write_text("def broken(:\n")
    error = refused("space", folder)
    for told in ("sdk='flask'", "app_file='main.py' is not in the folder", "app.py is no Python that runs"):
        assert told in error
    (folder / "README.md").write_text("---\nsdk: [\n---\n")
    assert "its metadata cannot be read" in refused("space", folder)
    (folder / "README.md").write_text("---\nsdk: gradio\n---\n")
    assert "no tag 'spatialboost'" in refused("space", folder)


def test_what_cannot_be_loaded_is_not_sent(model, capsys):
    """Weights and configuration do not fit; only the process that loads it can know."""
    assert publish(["model", str(model), "--repo-id", "org/x", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert "cannot be loaded, so nothing was sent" in error and "Traceback" not in error
