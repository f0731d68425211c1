"""The base encoder: what it learns from, what it never sees, and that a finished one is reused."""

import json

import pytest
import torch
from transformers import AutoImageProcessor, AutoModel

from experiments import base_encoder
from experiments.base_encoder import PictureRows, main, read_pictures, train_base_encoder
from experiments.encoder_objectives import OBJECTIVES, Pass, Pictures, Places, SelfDistilled
from experiments.fitting import command
from tests.experiments.starting_models import IMAGE_SIZE_PX, SHAPE
from trainers.models import provenance


def train(rooms, folder, objective="masked_images+attributes+places", steps=3, seed=0):
    return train_base_encoder(rooms, folder, SHAPE, steps, 4, seed, objective)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_gives_an_encoder_of_the_real_class_and_its_record(rooms, tmp_path, objective):
    folder = train(rooms, tmp_path / "encoder", objective, steps=1)
    model, processor = AutoModel.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    assert type(model).__name__ == "DINOv3ViTModel" and processor.size["height"] == IMAGE_SIZE_PX
    record = json.loads((folder / "run.json").read_text())
    assert record["recipe"]["objective"] == objective and record["recipe"]["seed"] == 0
    assert record["weights_sha256"] == provenance(str(folder)) and record["hardware"]
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_it_learns(rooms, tmp_path):
    losses = json.loads((train(rooms, tmp_path, steps=40) / "run.json").read_text())["losses"]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


def test_depth_is_never_read_unless_it_is_the_objective(rooms, tmp_path, monkeypatch):
    def forbidden(self):
        raise AssertionError("depth was read")

    monkeypatch.setattr(PictureRows, "depth", forbidden)
    train(rooms, tmp_path / "encoder", "attributes+masked_images+places", steps=1)
    with pytest.raises(AssertionError, match="depth was read"):
        train(rooms, tmp_path / "other", "depth")


def test_a_finished_encoder_is_reused_and_another_one_never_replaced(rooms, tmp_path, capsys):
    folder = train(rooms, tmp_path)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert train(rooms, tmp_path) == folder and "Reusing" in capsys.readouterr().out
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(ValueError, match=r"differs in seed, steps: pass another folder"):
        train(rooms, tmp_path, steps=4, seed=1)


def test_training_goes_on_from_another_encoder_of_the_same_shape(rooms, tmp_path):
    start = train(rooms, tmp_path / "start")
    more = ["--objective", "depth", "--steps", "2", "--batch_size", "4", "--image_size", str(IMAGE_SIZE_PX)]
    more += ["--patch_size", str(SHAPE.patch_size_px), "--width", str(SHAPE.width), "--layers", str(SHAPE.num_layers)]
    argv = ["--data", str(rooms), "--output", str(tmp_path / "more"), "--start", str(start), *more]
    assert main(argv) == 0
    before, after = (AutoModel.from_pretrained(folder).state_dict() for folder in (start, tmp_path / "more"))
    moved = [(after[name] - before[name]).abs().max() for name in before]
    assert 0 < max(moved) < 5 * base_encoder.LEARNING_RATE  # a step: at the first the rate is 0
    assert json.loads((tmp_path / "more/run.json").read_text())["recipe"]["start"] == provenance(str(start))
    argv[3], argv[-1] = str(tmp_path / "other"), str(SHAPE.num_layers + 1)
    with pytest.raises(ValueError, match="has the shape EncoderShape.* pass the same"):
        main(argv)


def test_the_same_seed_gives_the_same_weights(rooms, tmp_path):
    one, same, other = (provenance(str(train(rooms, tmp_path / f"{n}", seed=n // 2))) for n in range(3))
    assert one == same != other


def test_mistakes_are_told_in_a_sentence(rooms, tmp_path, capsys):
    with pytest.raises(ValueError, match="'colours' is none of self_distillation, masked_images"):
        train(rooms, tmp_path, "attributes+colours")
    empty = ["--data", str(tmp_path), "--output", str(tmp_path / "encoder"), "--steps", "1"]
    assert command(lambda: main(empty)) == 2
    assert "has no configuration dense" in capsys.readouterr().err
    monkey = read_pictures(rooms, IMAGE_SIZE_PX)
    nameless = PictureRows(monkey.pixels, monkey.dense, [[] for _ in monkey.names])
    with pytest.raises(ValueError, match="no word names something"):
        OBJECTIVES["attributes"](base_encoder.DINOv3ViTModel(SHAPE.config()), nameless.targets("attributes"))


def test_names_are_those_of_what_the_picture_shows(rooms):
    rows = read_pictures(rooms, IMAGE_SIZE_PX)
    words = rows.vocabulary()
    truth = rows.words(words)
    shown = next(index for index, names in enumerate(rows.names) if names)
    assert {word for word, there in zip(words, truth[shown]) if there} == {
        word for name in rows.names[shown] for word in name.split()
    } & set(words)
    assert "table" not in {name for names in rows.names for name in names}  # a support, which need not be seen


def test_maps_are_mirrored_with_their_pictures():
    pixels = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
    targets = {"depth": pixels[:, 0].float(), "attributes": torch.eye(2)}
    processor = type("Processor", (), {"image_mean": [0.0] * 3, "image_std": [1.0] * 3})
    pictures = Pictures(pixels, targets, processor)
    mirrored = set()
    for _ in range(20):
        images, found = pictures(torch.tensor([0, 1]))
        assert torch.allclose(images[:, 0] * 255, found["depth"], atol=1e-3)
        assert torch.equal(found["attributes"], targets["attributes"])
        mirrored.add(bool((found["depth"] != targets["depth"]).any()))
    assert mirrored == {False, True}


def test_places_are_x_and_y_of_the_patches():
    encoder = base_encoder.DINOv3ViTModel(SHAPE.config())
    places = Places(encoder, None)
    places.place = torch.nn.Identity()
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 4)] * 2, indexing="ij")
    told = torch.stack([x, y], -1).view(1, 16, 2)
    one = Pass(torch.zeros(1, 3, IMAGE_SIZE_PX, IMAGE_SIZE_PX), {}, None, torch.zeros(1, 32), told)
    assert places(one) == 0
    assert places(one._replace(patches=told.flip(-1))) > 0.1


def test_the_teacher_has_weights_of_its_own_and_follows():
    encoder = base_encoder.DINOv3ViTModel(SHAPE.config())
    distillation = SelfDistilled(encoder, None).distillation
    own = dict(distillation.teacher_encoder.backbone.named_parameters())
    with torch.no_grad():
        encoder.norm.weight += 1
    assert torch.equal(own["norm.weight"], torch.ones(32)) and not own["norm.weight"].requires_grad
    distillation.update_teacher(0.5)
    assert (own["norm.weight"] > 1).all() and (own["norm.weight"] < 1.1).all()
