"""The Hub fails in every way that it can: one clear sentence, nothing half-published, and a second run completes."""

import pytest

from tests.commands import publish
from tests.hub.clients import SPACE, contents, push
from tests.hub.faults import CUT, DROP, FLIP, Fault

INTERRUPTED = "run the same command again"


def is_empty(hub):
    repository = hub.store.repositories.get(("space", SPACE))
    return repository is None or (set(repository.files()) == {".gitattributes"} and not repository.tags)


def is_complete(hub, folder):
    repository = hub.repository("space", SPACE)
    found = {name: content for name, content in repository.files("v1").items() if name != ".gitattributes"}
    return found == contents(folder)


def one_sentence(capsys):
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("spatialboost publish: error: ")]
    assert len(lines) == 1 and "Traceback" not in error and "hf_writer" not in error
    return lines[0]


FAULTS = {
    "no token any more": (Fault("POST", "repos/create", 401), "hf auth login"),
    "the plan": (Fault("POST", "repos/create", 402), "pricing"),
    "no right": (Fault("POST", "/commit/", 403), "write access to org"),
    "vanished": (Fault("POST", "/preupload/", 404), "check --repo-id"),
    "a conflict": (Fault("POST", "/commit/", 409), "Somebody else"),
    "too many requests": (Fault("POST", "/preupload/", 429, headers={"Retry-After": "7"}), "wait some minutes"),
    "trouble while creating": (Fault("POST", "repos/create", 500), "trouble of its own"),
    "trouble with large objects": (Fault("POST", "objects/batch", 503), "trouble of its own"),
    "trouble in the storage": (Fault("PUT", "/_objects/", 500), "trouble of its own"),
    "trouble while committing": (Fault("POST", "/commit/", 500), "trouble of its own"),
    "cut while sending": (Fault("PUT", "/_objects/", DROP), "connection broke"),
    "cut while committing": (Fault("POST", "/commit/", DROP), "connection broke"),
    "cut while being answered": (Fault("POST", "objects/batch", CUT), "connection broke"),
    "bytes that arrive wrong": (Fault("PUT", "/_objects/", FLIP), "SHA-256"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_half_published_and_a_second_run_completes(hub, space, capsys, name):
    fault, told = FAULTS[name]
    hub.faults = [Fault(**vars(fault))]
    assert push(space) == 2
    assert told in one_sentence(capsys) and is_empty(hub)
    hub.faults = []
    assert push(space) == 0 and is_complete(hub, space)


def test_what_has_arrived_is_not_sent_twice(hub, space):
    hub.faults = [Fault("POST", "/commit/", 500)]
    assert push(space) == 2
    sent = hub.asked("PUT", "/_objects/")
    hub.faults = []
    assert push(space) == 0 and hub.asked("PUT", "/_objects/") == sent == 2


@pytest.mark.parametrize(
    "fault", [("POST", "/preupload/", 429), ("PUT", "/_objects/", 500), ("PUT", "/_objects/", DROP)]
)
def test_trouble_that_passes_is_not_even_told(hub, space, fault):
    hub.faults = [Fault(*fault, times=2)]
    assert push(space) == 0 and is_complete(hub, space)


def test_an_answer_that_is_lost(hub, space, capsys):
    """The commit was made, but nobody heard of it: it is whole, and the second run finds it."""
    hub.faults = [Fault("POST", "/commit/", CUT)]
    assert push(space) == 2 and INTERRUPTED in one_sentence(capsys)
    hub.faults = []
    assert push(space) == 0 and is_complete(hub, space)
    assert len(hub.repository("space", SPACE).commits) == 2


def test_somebody_else_commits_in_between(hub, space, capsys):
    def theirs(body):
        hub.repository("space", SPACE).commit("main", "theirs", lambda files: {**files, "README.md": b"# Theirs"})
        return body

    hub.faults = [Fault("POST", "/commit/", theirs, times=1)]
    assert push(space) == 2 and "has changed org/rooms meanwhile" in one_sentence(capsys)
    assert set(hub.repository("space", SPACE).files()) == {".gitattributes", "README.md"}
    assert push(space) == 0 and is_complete(hub, space)


def test_a_hub_that_keeps_other_bytes_than_it_was_sent(hub, space, capsys):
    def keeps_other_bytes(body):
        repository = hub.repository("space", SPACE)
        name, content = next(iter(hub.store.objects.items()))
        hub.store.objects[name] = FLIP(content)
        assert repository.tags == {}
        return body

    hub.faults = [Fault("POST", "/commit/", keeps_other_bytes, times=1)]
    assert push(space) == 2
    told = one_sentence(capsys)
    assert "does not hold what was sent" in told and hub.repository("space", SPACE).tags == {}
    hub.store.objects.clear()
    assert push(space) == 0 and is_complete(hub, space)


def test_a_download_that_is_cut_is_taken_up_again(hub, space):
    hub.faults = [Fault("GET", "/_objects/", CUT, times=1)]
    assert push(space) == 0 and is_complete(hub, space)
    assert hub.asked("GET", "/_objects/") == 3  # weights and picture, one of them twice


def test_what_cannot_be_loaded_back_is_not_tagged(hub, space, capsys):
    hub.faults = [Fault("GET", "/resolve/.*app.py", 404)]
    assert push(space) == 2
    told = one_sentence(capsys)
    assert "Loading back" in told and INTERRUPTED in told and hub.repository("space", SPACE).tags == {}
    hub.faults = []
    assert push(space) == 0 and is_complete(hub, space)


@pytest.mark.parametrize(
    ("token", "told"), [("hf_unknown", "hf auth login"), ("hf_reader", "may only read"), ("", "hf auth login")]
)
def test_tokens_that_do_not_serve(hub, space, capsys, monkeypatch, token, told):
    monkeypatch.setenv("HF_TOKEN", token)
    assert push(space) == 2 and told in one_sentence(capsys) and is_empty(hub)


def test_a_place_that_is_somebody_elses(hub, space, capsys):
    assert publish(["space", str(space), "--repo-id", "strangers/rooms"]) == 2
    assert "write access to strangers" in one_sentence(capsys)


def test_a_pull_request_and_a_collection_that_do_not_exist(hub, space, capsys):
    assert push(space, "--revision", "refs/pr/9") == 2
    assert "check --repo-id and --revision" in one_sentence(capsys)
    assert push(space, "--collection", f"org/absent-{'0' * 24}") == 2
    assert "absent" in one_sentence(capsys) and is_complete(hub, space)


def test_offline(hub, space, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert push(space) == 2 and "unset it to publish" in one_sentence(capsys)


def test_no_hub_at_all(hub, space, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert push(space) == 2 and "connection broke" in one_sentence(capsys)
