"""`spatialboost publish` against a Hub on this machine: what arrives, under which names; what a second run does."""

import json
import re

import pytest
import torch

from modeling_spatialboost import SpatialBoostModel
from modeling_spatialboost.dual_channel_attention import boosted_modules
from tests.commands import publish
from tests.hub.clients import SPACE, contents, push
from tests.hub.store import Repository
from tests.model_cards.test_cards import RECORD
from tests.modeling_spatialboost.encoders import tiny_encoder


def files(hub, revision="main"):
    found = hub.repository("space", SPACE).files(revision)
    return {name: content for name, content in found.items() if name != ".gitattributes"}


def test_a_dry_run_checks_and_sends_nothing(hub, space, capsys):
    assert push(space, "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "5 files" in printed and "assets/tiny.safetensors" in printed and "Nothing was sent" in printed
    assert hub.requests == []


def test_what_arrives_is_the_folder_byte_for_byte_and_is_told_with_its_commit(hub, space, capsys):
    (space / ".env").write_text("SECRET=1")
    assert push(space) == 0
    printed = capsys.readouterr().out
    assert "left at home: .env" in printed
    (space / ".env").unlink()
    assert files(hub) == contents(space)
    repository = hub.repository("space", SPACE)
    assert repository.sdk == "gradio" and repository.tags["v1"] is repository.branches["main"]
    assert f"{hub.url}/spaces/{SPACE}" in printed and "Client(" in printed


def test_a_second_run_finds_all_there(hub, space, capsys):
    assert push(space) == push(space) == 0
    assert "(was there already)" in capsys.readouterr().out
    assert len(hub.repository("space", SPACE).commits) == 2  # the Hub's own first one, and ours
    assert hub.asked("PUT", "_objects") == 2  # weights and picture, once


def test_large_objects_are_sent_in_parts(hub, space):
    hub.part_bytes = 10_000
    assert push(space) == 0
    assert hub.asked("PUT", r"_objects/\w+/\d") == 5  # 40 kB
    assert files(hub) == contents(space)


def test_a_tag_keeps_its_content(hub, space, capsys):
    assert push(space) == 0
    (space / "app.py").write_text("print('changed')\n")
    (space / "requirements.txt").unlink()
    commits = hub.asked("POST", "/commit/")
    assert push(space) == 2
    assert "--tag v1" in capsys.readouterr().err and hub.asked("POST", "/commit/") == commits
    assert push(space, "--tag", "v2") == 0
    assert files(hub) == files(hub, "v2") == contents(space)  # what the folder no longer has is gone
    assert "requirements.txt" in files(hub, "v1")


def test_a_pull_request_changes_nothing_until_it_is_merged(hub, space, capsys):
    assert push(space, "--create-pr") == 0
    assert f"{hub.url}/spaces/{SPACE}/discussions/1" in capsys.readouterr().out
    assert files(hub) == {} and files(hub, "refs/pr/1") == contents(space)
    (space / "app.py").write_text("print('better')\n")
    assert push(space, "--revision", "refs/pr/1") == 0
    assert files(hub, "refs/pr/1") == contents(space)
    repository = hub.repository("space", SPACE)
    assert repository.tags == {}
    repository.merge(1)
    assert push(space) == 0 and files(hub, "v1") == contents(space)


def test_a_branch_is_made_and_main_stays(hub, space):
    assert push(space, "--revision", "trial", "--tag", "trial-1") == 0
    assert files(hub) == {} and files(hub, "trial") == files(hub, "trial-1") == contents(space)


def test_a_private_repository_is_seen_by_its_owner_only(hub, space, capsys):
    assert push(space, "--private") == 0  # and was loaded back, with the token
    assert hub.repository("space", SPACE).private


def test_a_collection_ties_repositories_together(hub, space, tmp_path, capsys):
    assert push(space, "--collection", "SpatialBoost rooms") == 0
    (slug,) = hub.store.collections
    assert f"{hub.url}/collections/{slug}" in capsys.readouterr().out
    second = ["space", str(space), "--repo-id", "org/rooms-2", "--collection", slug]
    assert publish(second) == publish(second) == 0
    assert [item["id"] for item in hub.store.collections[slug]["items"]] == [SPACE, "org/rooms-2"]


def test_a_repository_of_something_else_is_left_alone(hub, space, capsys):
    other = hub.store.repositories["space", SPACE] = Repository("space", SPACE, sdk="gradio")
    other.commit("main", "theirs", lambda files: {**files, "app.py": b"theirs", "README.md": b"# Theirs"})
    assert push(space) == 2
    assert "choose another name" in capsys.readouterr().err and files(hub)["app.py"] == b"theirs"


def test_metadata_that_the_hub_refuses_is_told_before_files_are_sent(hub, space, capsys):
    card = (space / "README.md").read_text().replace("colorFrom: blue", "colorFrom: mauve")
    (space / "README.md").write_text(card)
    assert push(space) == 2
    error = capsys.readouterr().err
    assert "colorFrom" in error and "Traceback" not in error and hub.asked("PUT", "_objects") == 0


def test_an_adapter_is_cut_out_of_a_boosted_model_and_fits_its_base_again(hub, tmp_path, capsys):
    model = SpatialBoostModel.from_encoder(tiny_encoder("dinov3"))
    with torch.no_grad():
        for attention in boosted_modules(model):
            attention.alpha_logit.fill_(0.7)
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "run.json").write_text(json.dumps(RECORD | {"output_dir": str(tmp_path)}))
    assert publish(["adapter", str(tmp_path / "model"), "--repo-id", "org/adapter"]) == 0
    assert 'from_adapter("org/adapter", revision="' in capsys.readouterr().out
    files = hub.repository("model", "org/adapter").files("v1")
    names = {"README.md", "spatialboost_adapter.json", "spatialboost_adapter.safetensors", ".gitattributes"}
    assert set(files) == names | {"run.json", "dual_channel.png", "alpha.png"}
    card = files["README.md"].decode()
    assert 'adapter, revision = "org/adapter", "v1"' in card and "400 steps" in card and "| 1 | 0.480 |" in card
    assert str(tmp_path).encode() not in b"".join(files.values())
    (tmp_path / "adapter").mkdir()
    for name, content in files.items():
        (tmp_path / "adapter" / name).write_bytes(content)
    again = SpatialBoostModel.from_adapter(tmp_path / "adapter", base=tiny_encoder("dinov3"))
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values()))


@pytest.mark.parametrize("arguments", [["--repo-id", "nameless"], ["--repo-id", "a/b/c"], ["--repo-id", "../x/y"]])
def test_ids_that_are_none(space, arguments, capsys):
    assert publish(["space", str(space), *arguments]) == 2
    assert "ORG/NAME" in capsys.readouterr().err


def test_arguments_that_exclude_each_other_and_a_folder_that_is_none(space, capsys):
    assert push(space, "--create-pr", "--revision", "trial") == 2
    assert push(space / "absent") == 2
    assert re.search("exclude each other.*is no folder", capsys.readouterr().err, re.DOTALL)
