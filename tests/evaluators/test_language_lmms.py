"""The model that lmms-eval finds; only where lmms_eval is installed, which nothing here needs."""

import pytest
from PIL import Image

from tests.evaluators.language_models import save_tiny_vlm

pytest.importorskip("lmms_eval", reason="lmms_eval is no dependency of ours")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from evaluators.lmms_plugin import SpatialBoostVLM, manifests

    (manifest,) = manifests()
    assert manifest.chat_class_path == "evaluators.lmms_plugin.SpatialBoostVLM" and not SpatialBoostVLM.is_simple
    folder = save_tiny_vlm(tmp_path_factory.mktemp("vlm"))
    more = {"batch_size": 2, "max_batch_size": None, "device": "cpu"}
    return SpatialBoostVLM.create_from_arg_string(f"pretrained={folder},dtype=float32,max_frames=3", more)


def request(number, messages, **settings):
    from lmms_eval.api.instance import Instance

    arguments = ("context", messages, settings, number, "colours", "test")
    return Instance("generate_until", arguments, 0, {"task": "colours", "doc_id": number, "repeats": 1})


def test_requests_become_prompts_and_answers_keep_their_order(model, tmp_path, monkeypatch):
    frames = tmp_path / "scene"
    frames.mkdir()
    for number in range(4):
        Image.new("RGB", (16, 16)).save(frames / f"{number}.png")
    model.task_dict["colours"] = {"test": [Image.new("RGB", (40, 30), "red"), str(frames), None]}

    def messages(shown):
        kind = "video" if isinstance(shown, str) else "image"
        parts = [{"type": kind, "url": shown}] if shown is not None else []
        return [{"role": "user", "content": [*parts, {"type": "text", "text": f"{kind}?"}]}]

    requests = [request(0, messages, max_new_tokens=3), request(1, messages, max_new_tokens=5)]
    assert len(model.generate_until(requests)) == 2
    seen = []

    def answer(_self, prompts, max_new_tokens):
        seen.extend((prompt, max_new_tokens) for prompt in prompts)
        return [f"{len(prompt.images)} images\n\nmore" for prompt in prompts]

    monkeypatch.setattr(type(model.vlm), "answer_batch", answer)
    requests = [request(0, messages, max_new_tokens=3), request(1, messages, until=["\n\n", "more"])]
    requests.append(request(2, messages, max_new_tokens=3))
    assert model.generate_until(requests) == ["1 images\n\nmore", "3 images", "0 images\n\nmore"]
    assert [limit for _, limit in seen] == [3, 3, 256]
    assert seen[-1][0].messages[0]["content"] == [{"type": "image"}] * 3 + [{"type": "text", "text": "video?"}]


def test_other_requests_are_refused(model):
    for ask in (model.loglikelihood, model.generate_until_multi_round):
        with pytest.raises(NotImplementedError, match="choose tasks of output_type generate_until"):
            ask([])
