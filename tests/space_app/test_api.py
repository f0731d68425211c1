"""The Space as programs and strangers see it: through gradio_client and plain HTTP, served in this process."""

import dataclasses
import itertools
import json
import re
from pathlib import Path

import httpx
import numpy as np
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from spatialboost_space import models
from tests.space_app.conftest import EXAMPLE, SPACE

IMAGE = handle_file(str(EXAMPLE))


def refused(client, **arguments):
    with pytest.raises(AppError) as error:
        client.predict(**arguments)
    assert "Traceback" not in str(error.value) and 'File "' not in str(error.value)
    return str(error.value)


def test_the_names_of_the_functions_read_well(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert sorted(endpoints) == [
        "/alpha", "/ask", "/data_row", "/depth", "/depth_at_point", "/features", "/scene",
    ]  # fmt: skip
    parameters = {name: [one["parameter_name"] for one in value["parameters"]] for name, value in endpoints.items()}
    assert parameters["/ask"] == ["images", "question", "earlier_turns"]
    assert parameters["/scene"] == ["image", "encoder", "field_of_view_degrees", "things"]
    choices = [one.get("type", {}).get("enum") for one in endpoints["/data_row"]["parameters"]]
    assert not any(choices) and [] not in choices  # an agent may name any configuration
    described = httpx.get(f"{client.src}gradio_api/openapi.json").json()
    assert "Metric depth" in json.dumps(described)


@pytest.mark.parametrize("page", ["README.md", "docs/space.md", "space_app/README.md"])
def test_the_examples_of_the_documentation_run(client, page):
    text = (SPACE.parent / page).read_text(encoding="utf-8")
    (snippet,) = [found for found in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "gradio_client" in found]
    names = {}
    address = re.sub(r'Client\(".*?"\)', f'Client("{client.src}")', snippet).replace("room.png", str(EXAMPLE))
    exec(address, names)
    assert sorted(names["numbers"]) and Path(names["base_png"]).is_file()


def test_depth_of_an_image_and_of_a_point(client):
    numbers, files = client.predict(image=IMAGE, api_name="/depth")
    assert sorted(numbers) == ["base", "boosted"] and len(files) == 2
    metres = np.asarray(Image.open(files[1])) / 1000
    assert metres.shape == (360, 480)
    assert numbers["boosted"]["nearest_m"] == pytest.approx(metres.min(), abs=2e-3)
    point = client.predict(image=IMAGE, x=0.25, y=0.5, api_name="/depth_at_point")
    assert point["boosted"] == pytest.approx(metres[180, 120], abs=2e-3)
    assert "outside the image" in refused(client, image=IMAGE, x=1.5, y=0.5, api_name="/depth_at_point")
    assert "Give an image first" in refused(client, image=None, api_name="/depth")


def test_an_answer_is_streamed_and_what_is_too_much_is_refused(client, settings):
    question = "How deep is the scene at the point (0.500, 0.500)?"
    pieces = list(client.submit(images=[IMAGE, IMAGE], question=question, api_name="/ask"))
    assert pieces and all(later.startswith(earlier) for earlier, later in itertools.pairwise(pieces))
    turns = [["How deep?", "1 m."]] * settings.turns
    ask = {"images": [IMAGE], "question": question, "api_name": "/ask"}
    client.predict(**ask, earlier_turns=turns[1:])
    assert "turns" in refused(client, **ask, earlier_turns=turns)
    assert "pairs" in refused(client, **ask, earlier_turns=[["only a question"]])
    assert "characters" in refused(client, **{**ask, "question": "x" * 301})
    assert "Write a question" in refused(client, **{**ask, "question": "  "})
    assert "are the limit" in refused(client, **{**ask, "images": [IMAGE] * 4})
    for word in ("<image>", "<|im_end|>", "<|im_start|>user"):
        assert "control words" in refused(client, **{**ask, "question": f"How deep? {word}"})
    assert "tokens" in refused(client, **ask, earlier_turns=[["1 " * 4000, "1 m."]])


def test_a_scene_has_its_things_and_distances(client):
    things = [{"name": "chair", "region": [0.1, 0.6, 0.4, 1.0]}, {"name": "spot", "point": [0.5, 0.5]}]
    file, numbers = client.predict(image=IMAGE, field_of_view_degrees=80, things=things, api_name="/scene")
    assert Path(file).read_bytes()[:4] == b"glTF"
    assert [thing["name"] for thing in numbers["things"]] == ["chair", "spot"] and len(numbers["distances_m"]) == 1
    scene = {"image": IMAGE, "api_name": "/scene"}
    assert "from 0 to 1" in refused(client, **scene, things=[{"region": [0, 0, 2, 1]}])
    assert "from 0 to 1" in refused(client, **scene, things=[3])
    assert "at most" in refused(client, **scene, things=things * 11)


def test_features_alpha_and_rows(client):
    base, boosted = client.predict(image=IMAGE, api_name="/features")
    assert Image.open(base).size == Image.open(boosted).size == (480, 360)
    assert client.predict(api_name="/alpha") == [
        {"layer": layer, "mean": 0.5, "min": 0.5, "max": 0.5} for layer in (0, 1)
    ]
    row = client.predict(source="", choice="multi_view / train", index=0, api_name="/data_row")
    assert row["rows"] >= 1 and row["turns"][0]["answer"] and row["turns"][0]["marks"]
    assert "not there" in refused(client, source="", choice="single_view / train", index=99, api_name="/data_row")
    assert "no data set" in refused(client, source="/etc", choice="", index=0, api_name="/data_row")


def test_our_own_failures_show_no_details(client, monkeypatch):
    def fails(*arguments):
        raise RuntimeError("secret path /root/key")

    monkeypatch.setattr(models, "depth_m", fails)
    assert "our side" in (told := refused(client, image=IMAGE, api_name="/depth")) and "secret" not in told


def test_a_part_that_is_not_set_says_so(client, monkeypatch):
    monkeypatch.setattr(models, "part", lambda name: None)
    monkeypatch.setattr(models, "_LOADED", {})
    assert "SPATIALBOOST_DEPTH_BOOSTED" in refused(client, image=IMAGE, api_name="/depth")
    assert "SPATIALBOOST_MODEL" in refused(client, images=[IMAGE], question="How deep?", api_name="/ask")


def test_a_model_whose_head_was_never_trained_is_not_shown(bundle, settings, monkeypatch):
    monkeypatch.setattr(models, "part", lambda name: str(bundle / "encoder"))
    monkeypatch.setattr(models, "_LOADED", {})
    with pytest.raises(models.Unavailable, match="could not be loaded|lacks weights"):
        models.load("depth_boosted")


def test_no_file_of_the_host_can_be_read(client, bundle):
    for path in ("/etc/passwd", str(bundle / "vlm" / "config.json"), str(SPACE / "app.py")):
        assert httpx.get(f"{client.src}gradio_api/file={path}").status_code in (403, 404)
        payload = {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "a.png"}
        call = httpx.post(f"{client.src}gradio_api/call/depth", json={"data": [payload]}).json()
        told = httpx.get(f"{client.src}gradio_api/call/depth/{call['event_id']}", timeout=30).text
        assert "error" in told and "nearest_m" not in told and "root:" not in told


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/a.png", "https://example.org/a.png", "file:///etc/passwd"])
def test_no_address_is_fetched(client, monkeypatch, address):
    from gradio import processing_utils

    fetched = []
    monkeypatch.setattr(processing_utils, "async_ssrf_protected_get", lambda url: fetched.append(url))
    image = {"path": address, "meta": {"_type": "gradio.FileData"}}
    for name, data in (("depth", [image]), ("ask", [[image], "How deep?", []])):
        call = httpx.post(f"{client.src}gradio_api/call/{name}", json={"data": data}).json()
        told = httpx.get(f"{client.src}gradio_api/call/{name}/{call['event_id']}", timeout=30).text
        assert "event: error" in told and "upload the file itself" in told
    assert not fetched


def test_an_upload_that_is_no_image_is_refused_and_is_not_shown_as_a_page(client, tmp_path):
    page = tmp_path / "page.svg"
    page.write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    assert "not a PNG" in refused(client, image=handle_file(str(page)), api_name="/depth")
    (tmp_path / "page.png").write_text("<html>")
    assert "not a PNG" in refused(client, image=handle_file(str(tmp_path / "page.png")), api_name="/depth")
    with page.open("rb") as stream:
        stored = httpx.post(f"{client.src}gradio_api/upload", files={"files": stream}).json()[0]
    answer = httpx.get(f"{client.src}gradio_api/file={stored}")
    assert answer.headers.get("content-disposition", "").startswith("attachment") or answer.status_code == 403


def test_a_request_that_is_too_large_is_refused(client, settings):
    text = "x" * (settings.request_bytes + 1)
    answer = httpx.post(f"{client.src}gradio_api/call/ask", json={"data": [[], text, []]})
    assert answer.status_code == 413 and "limit" in answer.text
    body = json.dumps({"data": [[], text, []]}).encode()
    pieces = (body[start : start + 65536] for start in range(0, len(body), 65536))  # no length in the header
    assert httpx.post(f"{client.src}gradio_api/call/ask", content=pieces).status_code >= 400
    large = b"\x89PNG" + bytes(settings.upload_bytes + 1)
    assert httpx.post(f"{client.src}gradio_api/upload", files={"files": ("a.png", large)}).status_code == 413


def test_uploads_do_not_stay(served, settings):
    from gradio.route_utils import delete_files_created_by_app

    page, address = served
    assert page.delete_cache == (settings.cache_seconds // 4, settings.cache_seconds)
    with EXAMPLE.open("rb") as stream:
        stored = Path(httpx.post(f"{address}gradio_api/upload", files={"files": stream}).json()[0])
    delete_files_created_by_app(page, settings.cache_seconds)
    assert stored.is_file()
    delete_files_created_by_app(page, 0)  # as gradio does it on its schedule, as if all were old
    assert not stored.exists()
    image = {"path": str(stored), "meta": {"_type": "gradio.FileData"}, "orig_name": "room.png"}
    for name, data in (("depth", [image]), ("ask", [[image], "How deep?", []])):
        call = httpx.post(f"{address}gradio_api/call/{name}", json={"data": data}).json()
        told = httpx.get(f"{address}gradio_api/call/{name}/{call['event_id']}", timeout=30).text
        assert "Images are deleted 15 minutes after" in told


def test_what_a_visitor_writes_is_never_more_than_text(client, settings, monkeypatch):
    question = "{{ 7 * 7 }} {% for x in y %} $(touch hurt) `id` ../../etc/passwd %s {0} <script>"
    seen = []
    template = type(models.load("vlm").processor).apply_chat_template
    monkeypatch.setattr(
        type(models.load("vlm").processor),
        "apply_chat_template",
        lambda *given, **options: seen.append(template(*given, **options)) or seen[-1],
    )
    client.predict(images=[IMAGE], question=question, earlier_turns=[[question, question]], api_name="/ask")
    assert seen[0].count(question) == 3


def test_closing_an_answer_stops_the_model(settings, monkeypatch):
    model, produced = models.load("vlm").model, []
    generate = model.generate
    monkeypatch.setattr(model, "generate", lambda **given: produced.append(generate(**given)))
    monkeypatch.setattr(models, "limits", lambda: dataclasses.replace(settings, answer_tokens=2000))
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How deep?"}]}]
    with Image.open(EXAMPLE) as image:
        stream = models.stream_answer([image.convert("RGB")], messages)
        next(stream)
        stream.close()
    assert produced[0].shape[1] < 2000
