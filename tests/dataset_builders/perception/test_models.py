"""Loading by id or folder, its errors, and the life of a model in a build; the stand-ins too."""

import json
import shutil
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub import errors

from benchmarks import perception as benchmark
from dataset_builders.perception import MODELS, Models, PerceptionOptions, loading, open_model
from dataset_builders.perception.loading import batches, choose_device, choose_dtype
from dataset_builders.perception.vocabulary import VOCABULARY
from dataset_builders.scene import InputError

KINDS = {"depth": "depth_pro", "detector": "owlv2", "segmenter": "sam2", "namer": "florence2"}


def loaded_of(model):
    return getattr(model, "_segmenter", model)._loaded


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_released_after_its_phase_and_loaded_anew(kind, tiny):
    models = Models(PerceptionOptions(**{kind: tiny(KINDS[kind])}))
    assert models.has(kind)
    with models.use(kind) as model:
        dead = weakref.ref(loaded_of(model).model)
        del model
    assert dead() is None
    with models.use(kind) as model:
        assert model is not None


def test_kept_models_stay_and_are_the_same(tiny):
    models = Models(PerceptionOptions(depth=tiny("depth_pro"), keep_models=True))
    with models.use("depth") as first:
        pass
    with models.use("depth") as second:
        assert first is second
    models.release()
    with models.use("depth") as third:
        assert third is not first


@pytest.mark.parametrize(("kind", "tiny_kind"), KINDS.items())
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_are_held_in_the_dtype_that_was_asked_for(kind, tiny_kind, dtype, tiny):
    model = open_model(kind, PerceptionOptions(**{kind: tiny(tiny_kind)}, dtype=dtype))
    loaded = loaded_of(model)
    assert {one.dtype for one in loaded.model.parameters()} == {getattr(torch, dtype)}
    assert not loaded.model.training


@pytest.mark.parametrize(("kind", "wrong"), [("depth", "sam2"), ("detector", "depth_pro"), ("segmenter", "owlv2")])
def test_a_model_of_another_kind_is_refused_with_the_list(kind, wrong, tiny):
    with pytest.raises(InputError, match=rf"{kind} model .* is of architecture '{wrong}'; pass one of [\w-]+, "):
        open_model(kind, PerceptionOptions(**{kind: tiny(wrong)}))


def refused(name, **options):
    with pytest.raises(InputError) as caught:
        open_model("depth", PerceptionOptions(depth=str(name), **options))
    assert repr(str(name)) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_that_is_not_there():
    assert "neither a folder that exists nor an id" in refused("./nowhere/at/all")


def test_an_id_when_the_hub_cannot_be_reached():
    assert "the Hub cannot be reached" in refused("apple/DepthPro-hf@main")


def test_an_empty_folder(tmp_path):
    assert "pass a folder written by save_pretrained" in refused(tmp_path)


def test_a_folder_without_weights(tiny, tmp_path):
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(Path(tiny("depth_pro"), name), tmp_path)
    assert "save_pretrained" in refused(tmp_path)


def test_damaged_weights(tiny, tmp_path):
    shutil.copytree(tiny("depth_pro"), tmp_path / "copy")
    weights = tmp_path / "copy/model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    assert "save_pretrained" in refused(tmp_path / "copy")


def test_a_damaged_config(tiny, tmp_path):
    shutil.copytree(tiny("depth_pro"), tmp_path / "copy")
    Path(tmp_path, "copy/config.json").write_text("{")
    assert "save_pretrained" in refused(tmp_path / "copy")


def test_weights_of_only_a_part_of_the_model_are_not_filled_up_at_random(tiny, tmp_path):
    model = transformers.DepthProForDepthEstimation.from_pretrained(tiny("depth_pro"))
    shutil.copytree(tiny("depth_pro"), tmp_path / "copy")
    state = {key: value for key, value in model.state_dict().items() if not key.startswith("head.")}
    model.save_pretrained(tmp_path / "copy", state_dict=state)
    assert "lacks" in refused(tmp_path / "copy")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.GatedRepoError, "accept its licence at https://huggingface.co/org/name and set HF_TOKEN"),
        (errors.RevisionNotFoundError, "there is no such revision"),
        (errors.RepositoryNotFoundError, "neither a folder nor an id on the Hub"),
    ],
)
def test_what_the_hub_refuses_is_told_with_its_remedy(error, expected, monkeypatch):
    response = SimpleNamespace(headers={}, request=None)

    def refuse(*arguments, **options):
        raise OSError("told at length") from error("no", response=response)

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", refuse)
    assert expected in refused("org/name@main")


def test_the_revision_reaches_the_hub(monkeypatch):
    seen = {}

    def refuse(identifier, **options):
        seen.update(options, identifier=identifier)
        raise OSError("enough")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", refuse)
    refused("org/name@v2")
    assert (seen["identifier"], seen["revision"]) == ("org/name", "v2")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_here(device):
    with pytest.raises(InputError, match=f"--device '{device}' is .*pass auto"):
        choose_device(device)


def test_devices_and_dtypes(monkeypatch):
    assert choose_device("cpu").type == "cpu"
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32
    assert choose_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert choose_dtype("float16", torch.device("cpu")) == torch.float16
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"
    with pytest.raises(InputError, match="--dtype 'int8' is unknown; pass auto"):
        choose_dtype("int8", torch.device("cpu"))


def test_batches_hold_every_image_once_and_only_equal_shapes_where_asked(images):
    assert list(batches(images, 2, equal_shape=False)) == [[0, 1], [2]]
    assert list(batches(images, 2, equal_shape=True)) == [[0, 2], [1]]
    assert list(batches([], 2, equal_shape=True)) == []


def test_pixels_are_prepared_whatever_the_memory_layout_of_the_image(tiny, images):
    loaded = loading.load("depth", tiny("depth_pro"), PerceptionOptions(), {"depth_pro": DEPTH_PRO})
    mirrored = loaded.prepare([images[0][:, ::-1]])["pixel_values"]
    assert torch.equal(mirrored, loaded.prepare([images[0][:, ::-1].copy()])["pixel_values"])
    assert mirrored.shape == (1, 3, 32, 32)


DEPTH_PRO = ("DepthProForDepthEstimation", "DepthProImageProcessor")


def stub(kind):
    return open_model(kind, PerceptionOptions(**{kind: "stub"}))


def test_a_stub_stands_for_each_kind_that_has_one():
    assert {kind for kind, names in MODELS.items() if "stub" in names} >= set(KINDS)


def test_stub_depth_is_in_proportion_to_a_known_focal_length(images):
    unknown, known = stub("depth").estimate(images, [None] * 3), stub("depth").estimate(images, [108.0, None, None])
    assert [one.focal_length_px for one in unknown] == [0.9 * image.shape[1] for image in images]
    np.testing.assert_allclose(known[0].depth_m, 2 * unknown[0].depth_m, rtol=1e-6)
    for estimate, image in zip(unknown, images):
        assert (estimate.depth_m.shape, estimate.depth_m.dtype) == (image.shape[:2], np.float32)
        assert estimate.depth_m.min() >= 1 and estimate.depth_m.max() < 8.5
        assert estimate.depth_m[0].mean() > estimate.depth_m[-1].mean(), "the horizon is farther than the floor"


def test_stub_regions_are_few_compact_and_apart(images):
    for regions, image in zip(stub("segmenter").segment(images, None, ()), images):
        assert 4 <= len(regions) <= 6
        stacked = np.stack([one.mask for one in regions])
        assert stacked.shape[1:] == image.shape[:2]
        assert stacked.sum(0).max() == 1
        assert (stacked.sum((1, 2)) > 20).all()


def test_stub_detections_are_segmented_box_by_box(images):
    detections = stub("detector").detect(images, ("cup", "box", "sofa", "lamp", "hat", "cup"))
    boxes = [[one.box for one in found] for found in detections]
    for found, regions in zip(detections, stub("segmenter").segment(images, boxes, ())):
        assert 4 <= len(found) <= 5
        assert len({one.name for one in found}) == len(found)
        for one, region in zip(found, regions):
            rows, columns = np.nonzero(region.mask)
            edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            np.testing.assert_allclose(edges, one.box, atol=2)


def test_stub_names_differ_within_an_image(images):
    names = stub("namer").name(images, [[(0, 0, 5, 5)] * 6, [], [(0, 0, 5, 5)]])
    assert [len(set(one)) for one in names] == [6, 0, 1]
    assert set(names[0]) <= set(VOCABULARY)


def test_stubs_depend_on_the_image_alone(images):
    for ask in (
        lambda some: stub("detector").detect(some, ()),
        lambda some: [[one.mask.sum() for one in of] for of in stub("segmenter").segment(some, None, ())],
        lambda some: stub("namer").name(some, [[(0, 0, 5, 5)] * 6] * len(some)),
    ):
        together = ask(images)
        assert together == [ask([image])[0] for image in images]
        assert together[0] != together[2]


def test_the_checkpoints_hold_the_real_processors(tiny):
    config = json.loads(Path(tiny("owlv2"), "processor_config.json").read_text())
    assert config["processor_class"] == "Owlv2Processor"


def test_the_benchmark_runs_on_a_cpu(capsys):
    assert benchmark.main(["--smallest", "--images", "2", "--batch-sizes", "2", "--device", "cpu"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| Depth Pro |")]
    assert len(lines) == 1
    assert float(lines[0].split("|")[4]) > 0
