import json
import pickle

import pytest

from dataset_builders.scene import DropItem, InputError
from dataset_builders.sources import SourceOptions, open_source
from dataset_builders.sources.llava import LlavaSource
from tests.dataset_builders.miniatures_images import llava_record, write_image

ASK, TELL = "What is it?\n<image>", "A dog."
LAYOUT_665K = (
    "coco/train2017/000000033471.jpg",
    "gqa/images/2354786.jpg",
    "ocr_vqa/images/1437717772.jpg",
    "textvqa/train_images/a8ce3d7f81a5f6a4.jpg",
    "vg/VG_100K/2.jpg",
    "vg/VG_100K_2/3.jpg",
)


def write(path, records, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records, **options), encoding="utf-8")
    return path


def source(path, **options):
    return LlavaSource(SourceOptions(input_dir=path, **options))


def reason(tmp_path, record):
    write_image(tmp_path / "a.jpg")
    one = source(write(tmp_path / "set.json", [record]))
    (item,) = one.list_items()
    with pytest.raises(DropItem, match="0000000") as caught:
        one.load(item)
    return caught.value.reason


def test_the_pretraining_set(tmp_path):
    names = ["00453/004539375.jpg", "00223/002239345.jpg"]
    contents = [write_image(tmp_path / "images" / name, seed) for seed, name in enumerate(names)]
    records = [llava_record(name, "Describe it.\n<image>", f"caption {name}", name=name[6:-4]) for name in names]
    write(tmp_path / "blip_laion_cc_sbu_558k.json", records, indent=2)
    write(tmp_path / "blip_laion_cc_sbu_558k_meta.json", [])
    one = source(tmp_path)
    scenes = [one.load(item) for item in one.list_items()]
    assert [scene.id for scene in scenes] == ["0000000-004539375", "0000001-002239345"]
    assert [scene.views[0].image_bytes for scene in scenes] == contents
    assert scenes[1].conversation == (("Describe it.", f"caption {names[1]}"),)
    assert scenes[0].source == "llava" and scenes[0].split == "train" and not scenes[0].views[0].has_depth
    assert isinstance(open_source("llava", SourceOptions(input_dir=tmp_path)), LlavaSource)
    assert LlavaSource.how_to_get.endswith(".")


def test_the_instruction_set(tmp_path):
    records = []
    for seed, name in enumerate(LAYOUT_665K):
        write_image(tmp_path / name, seed)
        records.append(llava_record(name, "<image>\nWhat is it?", "A dog.", "Really?", "Yes.", name="same"))
    records.append(llava_record(None, "What is 2 + 2?", "4."))
    path = write(tmp_path / "llava_v1_5_mix665k.json", records)
    one = source(path)
    items = list(one.list_items())
    assert items == sorted(items) and len(set(items)) == 7
    scenes = [one.load(item) for item in items[:6]]
    assert len({scene.id for scene in scenes}) == 6
    assert all(scene.conversation == (("What is it?", "A dog."), ("Really?", "Yes.")) for scene in scenes)
    with pytest.raises(DropItem, match="text only") as caught:
        one.load(items[6])
    assert caught.value.reason == "no_image"
    assert list(source(path, num_scenes=2).list_items()) == items[:2]


@pytest.mark.parametrize("options", [{}, {"indent": 2}, {"ensure_ascii": False}, {"separators": (",", ":")}])
def test_texts_that_look_like_json_are_found_whole(tmp_path, options):
    write_image(tmp_path / "a.jpg")
    texts = ['{"a": [}', 'a \\" {', "\\", 'é "{" \\\\', "\u2028{\n}", "}}}]", '"', "plain", "{", "}"]
    records = [llava_record("a.jpg", texts[k], texts[k + 1], name=str(k)) for k in range(0, len(texts), 2)]
    one = source(write(tmp_path / "set.json", records, **options))
    scenes = [one.load(item) for item in one.list_items()]
    found = [text for scene in scenes for pair in scene.conversation for text in pair]
    assert found == [text.strip() for text in texts]


def test_json_lines_and_a_byte_order_mark(tmp_path):
    write_image(tmp_path / "a.jpg")
    lines = "\n".join(json.dumps(llava_record("a.jpg", ASK, TELL)) for _ in range(3))
    (tmp_path / "set.json").write_text(lines, encoding="utf-8-sig")
    assert len(source(tmp_path).list_items()) == 3


def test_loading_is_pure_and_survives_pickling(tmp_path):
    write_image(tmp_path / "a.jpg")
    one = source(write(tmp_path / "set.json", [llava_record("a.jpg", ASK, TELL)]))
    (item,) = one.list_items()
    assert pickle.loads(pickle.dumps(one)).load(item).conversation == one.load(item).conversation


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (llava_record(None, "Hello", "Hi"), "no_image"),
        (llava_record("", "Hello", "Hi"), "no_image"),
        (llava_record("b.jpg", ASK, TELL), "missing_file"),
        (llava_record(["a.jpg", "a.jpg"], ASK, TELL), "several_images"),
        (llava_record("a.jpg", "<image>\n<image>\nSame?", TELL), "several_images"),
        (llava_record("a.jpg"), "empty_conversation"),
        (llava_record("a.jpg", ASK), "not_alternating"),
        (llava_record("a.jpg", ASK, TELL, "And?"), "not_alternating"),
        (llava_record("a.jpg", "<image>", TELL), "empty_turn"),
        (llava_record("a.jpg", ASK, "  "), "empty_turn"),
        (llava_record("a.jpg", ASK, None), "bad_record"),
        ({"id": "0", "image": "a.jpg"}, "bad_record"),
        ({"id": "0", "image": "a.jpg", "conversations": [{"value": "x"}]}, "bad_record"),
        ({"id": "0", "image": "a.jpg", "conversations": ["x"]}, "bad_record"),
        (
            {
                "id": "0",
                "image": "a.jpg",
                "conversations": [{"from": "gpt", "value": TELL}, {"from": "human", "value": ASK}],
            },
            "not_alternating",
        ),
    ],
)
def test_records_that_cannot_be_used(tmp_path, record, why):
    assert reason(tmp_path, record) == why


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no record"),
        ("[]", "holds no record"),
        ("[1, 2]", "breaks off at byte 1"),
        ('[{"id": "0"}, {"id": "1', "breaks off at byte 14"),
        ('{"a": {"b": {"c": 1}}}', "breaks off at byte 0"),
    ],
)
def test_files_that_hold_no_records(tmp_path, content, message):
    (tmp_path / "set.json").write_text(content)
    with pytest.raises(InputError, match=message):
        source(tmp_path).list_items()


def test_which_file(tmp_path):
    with pytest.raises(InputError, match="holds none; give the file itself"):
        source(tmp_path)
    for name in ("a.json", "b.json"):
        write(tmp_path / name, [])
    with pytest.raises(InputError, match="holds a.json, b.json; give the file itself"):
        source(tmp_path)
    for nothing in (None, tmp_path / "c.json"):
        with pytest.raises(InputError, match="does not exist"):
            source(nothing)
    with pytest.raises(InputError, match="--views 2 is of no use to --source llava"):
        source(tmp_path / "a.json", views=2)
