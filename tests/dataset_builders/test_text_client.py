"""The chat client against servers that misbehave, and against `transformers serve` with a tiny model."""

import json
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from dataset_builders import text_client
from dataset_builders.budget import Budget, Usage, image_tokens
from dataset_builders.chat_endpoint import ChatOptions, find_endpoint
from dataset_builders.chat_messages import PROMPTS, photograph
from dataset_builders.scene import DropItem, InputError
from dataset_builders.text_client import ChatClient
from tests.dataset_builders.misbehaving_server import GONE, ChatServer, completion, in_turn, slow

KEY = "sk-secret-0123456789abcdef"
NAME = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # it forbids local servers, too
    monkeypatch.setattr(text_client, "FIRST_WAIT_S", 0.01)
    for name in ("SPATIALBOOST_CHAT_API_KEY", "OPENAI_API_KEY", "HF_TOKEN", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)


@pytest.fixture
def serve(tmp_path):
    """Start a server with a script; gives it and a client for it."""
    running = []

    def start(script, **options):
        server = ChatServer(script)
        context = server.running()
        context.__enter__()
        running.append(context)
        return server, ChatClient(ChatOptions("test", server.url, cache_dir=tmp_path / "cache", **options))

    yield start
    for context in running:
        context.__exit__(None, None, None)


def reason_of(call):
    with pytest.raises(DropItem) as error:
        call()
    return error.value.reason


def test_text_and_images_arrive(serve):
    server, chat = serve(in_turn("A table."))
    picture = photograph(np.zeros((20, 3000, 3), dtype=np.uint8))
    assert chat.ask("caption", "What is it?", [picture, picture]) == "A table."
    (request,) = server.requests
    assert (request["model"], request["temperature"], request["seed"]) == ("test", 0.0, 0)
    parts = request["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url", "text", "image_url", "text"]
    assert [part["text"] for part in parts[::2]] == ["Image 1:", "Image 2:", "What is it?"]
    assert parts[1]["image_url"]["url"].startswith("data:image/jpeg;base64,")


def test_schema_is_sent_as_openai_defines_it(serve):
    server, chat = serve(in_turn('```json\n{"name": "mug"}\n```'))
    assert chat.ask("name", "Name it.", schema=NAME) == {"name": "mug"}
    form = server.requests[0]["response_format"]
    assert form == {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": NAME}}
    assert '"required": ["name"]' in server.requests[0]["messages"][0]["content"]


def test_a_server_without_response_format_is_asked_without(serve):
    def script(number, body):
        if "response_format" in body:
            return 422, {}, {"detail": "Unexpected fields in the request: {'response_format'}"}
        return '{"name": "mug"}'

    server, chat = serve(script)
    assert chat.ask("name", "Name it.", schema=NAME) == {"name": "mug"}
    assert chat.ask("name", "Name this.", schema=NAME) == {"name": "mug"}
    assert ["response_format" in one for one in server.requests] == [True, False, False]


@pytest.mark.parametrize(
    "trouble",
    [
        (429, {"Retry-After": "0"}, {"error": "slow down"}),
        (500, {}, {"error": "oops"}),
        (503, {}, b"<html>"),
        GONE,
        (200, {}, b"not json"),
        (200, {}, {"choices": []}),
        {"error": "overloaded"},
    ],
)
def test_passing_troubles_are_retried(serve, trouble):
    server, chat = serve(in_turn(trouble, trouble, "fine"))
    assert chat.ask("caption", "Say something.") == "fine"
    assert len(server.requests) == 3
    assert chat.spent().requests == 1


def test_retry_after_is_honoured(serve, monkeypatch):
    _, chat = serve(in_turn((429, {"Retry-After": "17"}, {}), "fine"))
    waits = []
    monkeypatch.setattr(text_client.time, "sleep", waits.append)
    assert chat.ask("caption", "Say something.") == "fine"
    assert waits == [17.0]
    when = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert text_client._retry_after_s({"Retry-After": when}) == 0.0
    assert text_client._retry_after_s({"Retry-After": when.replace("2015", "2115")}) > 1e9
    assert text_client._retry_after_s({"Retry-After": "soon"}) == 0.0


def test_waits_grow_and_differ(serve, monkeypatch):
    _, chat = serve(in_turn((500, {}, {})))
    waits = []
    monkeypatch.setattr(text_client, "FIRST_WAIT_S", 1.0)
    monkeypatch.setattr(text_client.time, "sleep", waits.append)
    assert reason_of(lambda: chat.ask("caption", "Say something.")) == "chat_failed"
    assert len(waits) == text_client.MAX_TRIES - 1
    assert all(0.5 * 2**n <= wait <= 2**n for n, wait in enumerate(waits))
    assert len(set(waits)) == len(waits)


def test_an_endless_retry_after_is_not_waited_for(serve):
    server, chat = serve(in_turn((429, {"Retry-After": "86400"}, {})))
    assert reason_of(lambda: chat.ask("caption", "Say something.")) == "chat_failed"
    assert len(server.requests) == 1


def test_a_slow_server_is_a_failure_not_a_hang(serve):
    server, chat = serve(slow(0.6, "late"), timeout_s=0.1)
    started = time.monotonic()
    assert reason_of(lambda: chat.ask("caption", "Say something.")) == "chat_failed"
    assert len(server.requests) == text_client.MAX_TRIES
    assert time.monotonic() - started < 5


def test_an_invalid_answer_is_asked_for_once_more(serve):
    server, chat = serve(in_turn('{"nome": "mug"}', '{"name": "mug"}'))
    assert chat.ask("name", "Name it.", schema=NAME) == {"name": "mug"}
    first, again = server.requests
    assert [one["role"] for one in again["messages"]] == ["user", "assistant", "user"]
    assert "'name' is a required property" in again["messages"][2]["content"]
    assert again["messages"][0] == first["messages"][0]


@pytest.mark.parametrize("text", ["I am not sure.", "{", '{"name": 3}', '["mug"]', "", '{"name": "mug", "more": 1}'])
def test_an_answer_that_stays_invalid_is_dropped(serve, text):
    server, chat = serve(in_turn(text))
    assert reason_of(lambda: chat.ask("name", "Name it.", schema=NAME)) == "chat_invalid"
    assert len(server.requests) == 2


def test_own_checks_are_told(serve):
    server, chat = serve(in_turn("three mugs", "mugs"))
    problems = lambda text: ["it counts"] if "three" in text else []  # noqa: E731
    assert chat.ask("caption", "Describe it.", check=problems) == "mugs"
    assert "it counts" in server.requests[1]["messages"][2]["content"]


@pytest.mark.parametrize(
    "answer",
    [
        completion(None, refusal="I cannot help with that."),
        completion("", finish_reason="content_filter"),
        (400, {}, {"error": {"code": "content_filter", "message": "policy"}}),
    ],
)
def test_refusals_are_told_apart_and_not_paid_twice(serve, answer):
    server, chat = serve(in_turn(answer))
    for _ in range(2):
        assert reason_of(lambda: chat.ask("caption", "Describe it.")) == "chat_refused"
    assert len(server.requests) == 1


def test_other_bad_requests_are_not_repeated(serve):
    server, chat = serve(in_turn((400, {}, {"error": "image too large"})))
    assert reason_of(lambda: chat.ask("caption", "Describe it.")) == "chat_failed"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, {"error": f"Incorrect API key provided: {KEY}"}, "set SPATIALBOOST_CHAT_API_KEY"),
        (403, {}, "refuses the key"),
        (404, {}, "--chat-model 'test' is unknown"),
        (429, {"error": {"code": "insufficient_quota"}}, "no credit left"),
    ],
)
def test_what_concerns_every_item_ends_the_build(serve, monkeypatch, status, body, words):
    monkeypatch.setenv("SPATIALBOOST_CHAT_API_KEY", KEY)
    _, chat = serve(in_turn((status, {}, body)))
    with pytest.raises(InputError, match=words) as error:
        chat.ask("caption", "Describe it.")
    assert KEY not in str(error.value)
    assert error.value.__cause__ is None


def test_a_server_that_goes_away_ends_the_build(serve):
    server, chat = serve(in_turn((503, {}, {})))
    for number in range(text_client.MAX_FAILED_IN_A_ROW - 1):
        assert reason_of(lambda number=number: chat.ask("caption", f"Describe {number}.")) == "chat_failed"
    with pytest.raises(InputError, match="has stopped answering"):
        chat.ask("caption", "Describe the last.")
    server.script = in_turn("fine")
    assert chat.ask("caption", "Describe another.") == "fine"
    server.script = in_turn((503, {}, {}))
    assert reason_of(lambda: chat.ask("caption", "Describe it again.")) == "chat_failed"  # it counts from one again


def test_check_finds_a_dead_server_and_a_model_without_eyes(serve, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(InputError, match=f"--chat-url {url} cannot be reached .* start the server"):
        ChatClient(ChatOptions("test", url, cache_dir=tmp_path)).check()
    _, blind = serve(in_turn((400, {}, {"error": "this model takes no images"})))
    with pytest.raises(InputError, match="takes no images"):
        blind.check()
    server, seeing = serve(in_turn("yes"))
    seeing.check()
    seeing.check()
    assert len(server.requests) == 1  # the second time the server is only knocked at


def test_offline_mode_is_named(serve, monkeypatch):
    _, chat = serve(in_turn("yes"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        chat.check()


def test_no_more_in_flight_than_allowed(serve):
    four = threading.Barrier(4, timeout=20)  # no answer before four are asked for

    def script(number, body):
        four.wait()
        time.sleep(0.05)  # time for a fifth to come
        return "fine"

    server, chat = serve(script, concurrency=4)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda number: chat.ask("caption", f"Describe {number}."), range(20)))
    assert answers == ["fine"] * 20
    assert server.most_in_flight == 4
    assert chat.spent() == Usage(20, 220, 140)


def test_the_same_question_is_paid_once(serve, tmp_path):
    server, chat = serve(in_turn('{"name": "mug"}'))
    picture = photograph(np.zeros((8, 8, 3), dtype=np.uint8))
    chat.ask("name", "Name it.", [picture], NAME)
    again = ChatClient(chat.options)
    assert again.ask("name", "Name it.", [picture], NAME) == {"name": "mug"}
    assert len(server.requests) == 1
    other = photograph(np.full((8, 8, 3), 200, dtype=np.uint8))
    for change in (
        lambda one: one.ask("name", "Name this.", [picture], NAME),
        lambda one: one.ask("name", "Name it.", [other], NAME),
        lambda one: one.ask("name", "Name it.", [picture, picture], NAME),
        lambda one: one.ask("name", "Name it.", [picture]),
        lambda one: ChatClient(replace(one.options, model="else")).ask("name", "Name it.", [picture], NAME),
        lambda one: ChatClient(replace(one.options, seed=1)).ask("name", "Name it.", [picture], NAME),
        lambda one: ChatClient(replace(one.options, temperature=0.5)).ask("name", "Name it.", [picture], NAME),
    ):
        before = len(server.requests)
        change(again)
        assert len(server.requests) == before + 1


def test_spoilt_cache_files_are_asked_again(serve, tmp_path):
    server, chat = serve(in_turn("fine"))
    chat.ask("caption", "Describe it.")
    (file,) = (tmp_path / "cache").glob("??/*.json")
    file.write_text('{"text": ')
    assert chat.ask("caption", "Describe it.") == "fine"
    assert len(server.requests) == 2
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_budget_of_requests(serve):
    server, chat = serve(in_turn("fine"), max_requests=3)
    for number in range(3):
        chat.ask("caption", f"Describe {number}.")
    assert reason_of(lambda: chat.ask("caption", "Describe another.")) == "chat_budget"
    assert chat.ask("caption", "Describe 1.") == "fine"  # what is known costs nothing
    assert len(server.requests) == 3
    assert ChatClient(replace(chat.options, account="other")).spent() == Usage()


def test_budget_of_tokens_is_never_overspent(serve):
    server, chat = serve(slow(0.01, "fine"), max_tokens=2000, max_answer_tokens=500, concurrency=8)

    def ask(number):
        try:
            return chat.ask("caption", f"Describe {number}.")
        except DropItem as drop:
            return drop.reason

    with ThreadPoolExecutor(8) as pool:
        results = set(pool.map(ask, range(200)))
    assert results == {"fine", "chat_budget"}
    assert 0 < chat.spent().tokens <= 2000
    while chat.spent().tokens + 520 < 2000:
        assert ask(chat.spent().tokens + 1000) == "fine"  # what was reserved and not used is given back
    assert len(server.requests) > 60


def _spend(folder, count):
    budget = Budget(Path(folder), "all", max_requests=30, max_tokens=None)
    kept = 0
    for _ in range(count):
        try:
            budget.reserve(Usage(1, 5, 5))
            budget.settle(Usage(1, 5, 5), Usage(1, 5, 2))
            kept += 1
        except DropItem:
            pass
    return kept


def test_processes_share_a_budget(tmp_path):
    with get_context("fork").Pool(3) as pool:
        kept = pool.starmap(_spend, [(str(tmp_path), 20)] * 3)
    assert sum(kept) == 30
    assert Budget(tmp_path, "all", None, None).spent() == Usage(30, 150, 60)


def test_keys_are_nowhere_but_in_the_header(serve, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("SPATIALBOOST_CHAT_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    server, chat = serve(in_turn((500, {}, {"error": f"bad {KEY}"}), f"the key is {KEY}", (400, {}, {"error": KEY})))
    answer = chat.ask("caption", "Describe it.")
    with pytest.raises(DropItem) as error:
        chat.ask("caption", "Describe more.")
    assert [one["authorization"] for one in server.headers] == [f"Bearer {KEY}"] * 3
    files = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    seen = [answer, str(error.value), repr(chat), repr(chat.options), repr(chat._endpoint), caplog.text, *files]
    assert not any(KEY in text for text in seen)
    assert KEY.encode() not in pickle.dumps(chat.options)


def test_keys_go_to_whom_they_belong(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "openai")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hub")
    own, openai = "http://localhost:8000/v1", "https://api.openai.com/v1"
    options = ChatOptions("gpt-4o", cache_dir=tmp_path)
    found = lambda **changes: find_endpoint(replace(options, **changes)).key  # noqa: E731
    assert found(base_url=own) == "no-key"
    assert found(base_url=openai) == "openai"
    assert found(base_url="https://api.openai.com.evil.example/v1") == "no-key"
    assert found(base_url="https://x.endpoints.huggingface.cloud/v1") == "hub"
    assert found(base_url="https://nothuggingface.co/v1") == "no-key"
    assert found() == found(provider="novita") == "hub"
    assert found(provider="openai") == "openai"
    monkeypatch.setenv("OPENAI_BASE_URL", own)
    assert (found(), find_endpoint(options).base_url) == ("openai", own)
    monkeypatch.setenv("SPATIALBOOST_CHAT_API_KEY", "mine\n")
    assert found(base_url=own) == found(base_url=openai) == found(provider="novita") == "mine"


def test_no_token_of_the_hub_reaches_a_server_of_ones_own(serve, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    server, chat = serve(in_turn("fine"))
    chat.check()
    assert "hf_secret" not in json.dumps(server.headers)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base_url": "localhost:8000"}, "is no address"),
        ({"base_url": "http://me:hunter2@host/v1"}, "carries a secret"),
        ({"base_url": "http://host/v1?key=hunter2"}, "carries a secret"),
        ({"base_url": "http://host/v1", "provider": "novita"}, "leave one of them out"),
        ({"concurrency": 0}, "--chat-concurrency 0 is too small"),
        ({"max_requests": 0}, "--max-requests 0 is too small"),
        ({"timeout_s": 0}, "timeout_s 0"),
    ],
)
def test_bad_options(changes, words):
    with pytest.raises(InputError, match=words) as error:
        ChatOptions("test", **changes)
    assert "hunter2" not in str(error.value)


def test_missing_and_impossible_keys(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="HF_TOKEN is not set"):
        ChatClient(ChatOptions("gpt-4o", cache_dir=tmp_path))
    with pytest.raises(InputError, match="OPENAI_API_KEY is not set"):
        ChatClient(ChatOptions("gpt-4o", "https://api.openai.com/v1", cache_dir=tmp_path))
    monkeypatch.setenv("SPATIALBOOST_CHAT_API_KEY", "line one\nline two")
    with pytest.raises(InputError, match="which no key has") as error:
        ChatClient(ChatOptions("gpt-4o", cache_dir=tmp_path))
    assert "line one" not in str(error.value)


@pytest.mark.parametrize(
    ("size", "tokens"), [((512, 512), 255), ((640, 480), 425), ((1024, 1024), 765), ((4096, 8192), 1105)]
)
def test_image_tokens_as_openai_documents_them(size, tokens):
    assert image_tokens(*size) == tokens


def test_prompts_are_frozen():
    """A changed prompt changes the data: raise GENERATOR_VERSION with it, and run with FREEZE_PROMPTS=1."""
    snapshot = Path(__file__).parent / "snapshots" / "prompts.txt"
    texts = "\n".join(f"==== {path.name}\n{path.read_text()}" for path in sorted(PROMPTS.glob("*.txt")))
    if os.environ.get("FREEZE_PROMPTS"):
        snapshot.write_text(texts)
    assert texts == snapshot.read_text()


ANSWER = '{"name": "red box"}'


def save_parrot(folder):
    """A Llama whose every answer is `ANSWER`: its layers add nothing, and its head follows the last token."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    specials = ["<|user|>", "<|assistant|>", "<|end|>", ANSWER]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({one: number for number, one in enumerate(letters + specials)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
    fast.add_tokens(specials[:2], special_tokens=True)
    fast.add_tokens(specials[3:])
    fast.chat_template = (
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    size = 320
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=size, intermediate_size=8, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=4096, eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    assistant, answer, end = (fast.convert_tokens_to_ids(one) for one in ("<|assistant|>", ANSWER, "<|end|>"))
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(len(fast), size))
        model.lm_head.weight.zero_()
        model.lm_head.weight[answer, assistant] = model.lm_head.weight[end, answer] = 1.0
    model.save_pretrained(folder)
    fast.save_pretrained(folder)


@pytest.fixture(scope="module")
def transformers_serve(tmp_path_factory):
    """Address of `transformers serve` with the parrot, and the parrot's folder."""
    pytest.importorskip("fastapi", reason="transformers serve needs transformers[serving]")
    pytest.importorskip("openai", reason="transformers serve needs transformers[serving]")
    folder = tmp_path_factory.mktemp("parrot")
    save_parrot(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", str(folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log.txt").read_text()
                assert time.monotonic() < deadline, "transformers serve did not start"
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", str(folder)
    finally:
        process.terminate()
        process.wait()


def test_transformers_serve(transformers_serve, tmp_path):
    url, model = transformers_serve
    chat = ChatClient(ChatOptions(model, url, cache_dir=tmp_path, max_answer_tokens=8))
    chat.check()
    picture = photograph(np.zeros((8, 8, 3), dtype=np.uint8))
    assert chat.ask("name", "Name it.", [picture], NAME) == {"name": "red box"}
    assert chat.ask("caption", "Describe it.") == ANSWER
    number = NAME | {"properties": {"name": {"type": "number"}}}
    assert reason_of(lambda: chat.ask("number", "How many?", schema=number)) == "chat_invalid"
    spent = chat.spent()
    assert spent.requests == 5
    assert spent.answer_tokens < 40  # as the server counts, not as reserved
    with pytest.raises(InputError, match="does not answer"):
        ChatClient(ChatOptions("no-such-model", url, cache_dir=tmp_path)).check()
