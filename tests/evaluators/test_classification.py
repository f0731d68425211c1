"""Classification: the vote of neighbours, heads trained together, the part held out, the command on real pictures."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from torch import nn
from torch.nn import functional
from torchvision.transforms import v2

from evaluators import knn_classification, linear_classification
from evaluators.classification import Course, hold_out
from evaluators.encoders import load_encoder
from evaluators.framing import Framing
from evaluators.image_features import EncoderDescriber, HistogramDescriber, picture_vectors, prepared_batches
from evaluators.joint_heads import LEARNING_RATES, JointHeads, LinearFit, fit_joint_heads
from evaluators.knn_classification import vote
from evaluators.linear_classification import augmented_batches, best_head, cached_batches
from evaluators.nearest import nearest
from tests.commands import evaluate
from tests.evaluators.whole_images import write_classes

REAL = Path(__file__).parents[3] / "shared" / "realdata"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_classes(tmp_path_factory.mktemp("classes") / "shapes", per_class=16)


@pytest.fixture(scope="module")
def encoder(encoder_folders):
    return load_encoder(encoder_folders("dinov3"))


def config_of(module, folder, tmp_path, **settings):
    common = {"data_set": "folder", "data": str(folder), "cache_dir": tmp_path, "preset": "cpu", "seeds": (0,)}
    return module.Config(**common | settings)


def noisy_classes(count, width=8, classes=3, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    centres = np.random.default_rng(100).normal(size=(classes, width))
    return torch.from_numpy(centres[labels] + random.normal(size=(count, width))).float(), labels


def test_neighbours_are_those_of_scikit_learn_in_any_chunks(monkeypatch):
    monkeypatch.setattr("evaluators.nearest.CHUNK_ROWS", 7)
    monkeypatch.setattr("evaluators.nearest.QUERY_ROWS", 5)
    (train, labels), (test, _) = noisy_classes(60), noisy_classes(23, seed=1)
    cosines, rows = nearest(test, train, 9)
    theirs = KNeighborsClassifier(
        9, metric="cosine", algorithm="brute", weights=lambda distances: np.exp((1 - distances) / 0.07)
    ).fit(train.numpy(), labels)
    distances, indices = theirs.kneighbors(test.numpy())
    assert (rows.numpy() == indices).all()
    assert np.allclose(cosines.numpy(), 1 - distances, atol=1e-6)
    assert (vote(cosines, torch.from_numpy(labels)[rows], 0.07) == theirs.predict(test.numpy())).all()
    assert nearest(test, train, 100)[1].shape == (23, 60)


def test_a_close_neighbour_outvotes_two_distant_ones():
    cosines, labels = torch.tensor([[0.9, 0.7, 0.7]]), torch.tensor([[4, 2, 2]])
    assert vote(cosines, labels, 0.07).tolist() == [4]  # exp(0.2 / 0.07) = 17 against 2
    assert vote(cosines, labels, 1.0).tolist() == [2]


def test_heads_trained_together_equal_heads_trained_one_by_one():
    (features, labels), fit = noisy_classes(40), LinearFit(30, 16)
    rows = np.arange(40)
    together = fit_joint_heads(cached_batches(features, labels, rows, fit, 3), 8, 3, fit, seed=3)
    for number, rate in enumerate(LEARNING_RATES):
        torch.manual_seed(3)
        first = JointHeads(8, 3, 1)
        alone = nn.Linear(8, 3)
        with torch.no_grad():
            alone.weight.copy_(first.weight[0])
            alone.bias.zero_()
        optimizer = torch.optim.SGD(alone.parameters(), rate * 16 / 256, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)
        for batch, truth in cached_batches(features, labels, rows, fit, 3):
            optimizer.zero_grad()
            functional.cross_entropy(alone(batch), truth).backward()
            optimizer.step()
            schedule.step()
        assert torch.allclose(together.weight[number], alone.weight, atol=1e-6)
        assert torch.allclose(together.bias[number], alone.bias, atol=1e-6)
    assert not torch.allclose(together.weight[0], together.weight[-1])


def test_the_best_head_is_right_most_often_and_of_equals_the_slowest():
    heads = JointHeads(2, 2, 3)
    with torch.no_grad():
        heads.weight.copy_(torch.stack([torch.eye(2).flip(0), torch.eye(2), torch.eye(2)]))
    assert best_head(heads, torch.eye(2), np.array([0, 1])) == 1


def test_a_part_is_held_out_whatever_is_asked_first():
    kept, held = hold_out(np.zeros(50))
    assert len(held) == 10 and sorted([*kept, *held]) == list(range(50))
    assert len(hold_out(np.zeros(200_000))[1]) == 10_000
    assert (hold_out(np.zeros(50))[1] == held).all()


def test_framings_keep_what_they_promise():
    picture = Image.new("RGB", (100, 50), (200, 10, 10))
    assert Framing("crop", (32, 32), 8)(picture).size == (32, 32)
    boxed = np.asarray(Framing("letterbox", (32, 32), 8)(picture))
    assert boxed.shape == (32, 32, 3) and (boxed[:8] == 0).all() and (boxed[-8:] == 0).all()
    assert (boxed[8:24] == (200, 10, 10)).all()
    assert Framing("native", (32, 32), 16)(picture).size == (96, 48)
    assert Framing("squash", (16, 24), 8)(picture).size == (24, 16)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 131, 3), np.uint8))
    theirs = v2.Compose([v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(224)])(noise)
    assert (np.asarray(Framing("crop", (224, 224), 16)(noise)) == np.asarray(theirs)).all()
    with pytest.raises(ValueError, match="framing 'crops' is none: pass one of crop, letterbox, native, squash"):
        Framing("crops", (32, 32), 8)


def test_class_token_and_mean_patch_token_stand_side_by_side(encoder, encoder_folders):
    pixels = torch.rand(2, 3, 32, 48)
    both = encoder.pooled_features(pixels)
    assert torch.equal(both[:, 0], encoder.image_features(pixels))
    assert torch.allclose(both[:, 1], encoder.patch_features(pixels).mean((2, 3)), atol=1e-6)
    without = load_encoder(encoder_folders("siglip"))
    assert without.pooled_features(torch.rand(2, 3, 32, 32)).shape == (2, 1, 32)


def test_vectors_of_pictures_of_any_size_are_those_of_each_alone(encoder, folder, tmp_path):
    config = config_of(knn_classification, folder, tmp_path, limit=5)
    pictures = Course.start(encoder, config).data.train.pictures
    describer = EncoderDescriber(encoder, Framing("native", (32, 32), 8))
    vectors = picture_vectors(describer, pictures, tmp_path)
    for index in range(5):
        alone = describer.describe(describer.prepare(pictures[index])[None])[0]
        assert torch.allclose(vectors[index], alone, atol=1e-5)
    assert len({pictures[index].size for index in range(5)}) > 1


def test_worker_processes_beside_a_gpu_prepare_what_this_process_would(encoder, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("evaluators.image_features.MAX_WORKERS", 2)
    course = Course.start(encoder, config_of(knn_classification, folder, tmp_path, limit=5))
    describer = EncoderDescriber(encoder, Framing("native", (32, 32), 8))
    here, there = (
        list(
            prepared_batches(
                lambda index: describer.prepare(course.data.train.pictures[index]),
                [range(3), range(3, 5)],
                torch.device(device),
            )
        )
        for device in ("cpu", "cuda")
    )
    for ours, theirs in zip(here, there):
        assert [members for members, _ in ours] == [members for members, _ in theirs]
        assert all(torch.equal(one, other) for (_, one), (_, other) in zip(ours, theirs))
    assert sorted(place for members, _ in here[0] for place in members) == [0, 1, 2] and len(here) == 2


def test_a_histogram_sees_colours_only():
    describer, noise = HistogramDescriber(), np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    shuffled = np.random.default_rng(1).permutation(noise.reshape(-1, 3)).reshape(noise.shape)
    ours, theirs, other = (
        describer.prepare(Image.fromarray(pixels)) for pixels in (noise, shuffled, 255 - noise // 4)
    )
    assert torch.equal(ours, theirs) and not torch.equal(ours, other)
    assert float(ours @ ours) == pytest.approx(8**3)


def test_crops_depend_on_the_seed_and_not_on_the_encoder(encoder, encoder_folders, folder, tmp_path):
    config = config_of(linear_classification, folder, tmp_path, augment=True)
    course, fit = Course.start(encoder, config), LinearFit(2, 6)
    first, again = (list(augmented_batches(course, course.data.train, fit, 0)) for _ in range(2))
    assert [len(labels) for _, labels in first] == [6, 6]
    assert all(
        torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1]) for ours, theirs in zip(first, again)
    )
    other = next(augmented_batches(course, course.data.train, fit, 1))
    assert not torch.equal(first[0][0], other[0])
    boosted = dataclasses.replace(course, encoder=load_encoder(encoder_folders("dinov3", 1)))
    assert torch.equal(next(augmented_batches(boosted, course.data.train, fit, 0))[1], first[0][1])


def test_the_rate_is_chosen_on_the_test_only_if_told_so(encoder, folder, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(linear_classification, "best_head", lambda _heads, _vectors, labels: seen.append(labels) or 0)
    config = config_of(linear_classification, folder, tmp_path, steps=1)
    for upstream_compat in (False, True):
        linear_classification.evaluate(encoder, dataclasses.replace(config, upstream_compat=upstream_compat))
    test = Course.start(encoder, config).data.test.labels
    assert len(seen) == 6 and len(seen[0]) == 10  # a fifth of the training pictures; then two controls
    assert seen[3] is test


@pytest.mark.parametrize("augment", [True, False])
def test_a_linear_probe_chooses_its_rate_on_held_out_training_pictures(encoder, folder, tmp_path, augment):
    config = config_of(linear_classification, folder, tmp_path, augment=augment, steps=8, batch_size=8)
    result = linear_classification.evaluate(encoder, config)
    assert result["protocol"]["id"] == "classification-linear/1" + ("" if augment else "+cached")
    assert "held out is reported" in result["protocol"]["notes"][0]
    assert result["items"][0].shape == (result["data"]["splits"]["test"]["items"], 1)
    assert "learning rate chosen" in result["encoder"]["notes"][1]
    compat = linear_classification.evaluate(encoder, dataclasses.replace(config, upstream_compat=True))
    assert "optimistic" in compat["protocol"]["notes"][0] and compat["items"][0].sum() >= result["items"][0].sum()


def test_the_number_of_neighbours_is_chosen_on_the_test_only_if_told_so(encoder, folder, tmp_path):
    config = config_of(knn_classification, folder, tmp_path)
    result = knn_classification.evaluate(encoder, config)
    assert result["protocol"]["settings"]["neighbours"] == 20 and len(result["items"]) == 1
    assert result["encoder"]["feature"] == "class token"
    compat = knn_classification.evaluate(encoder, dataclasses.replace(config, upstream_compat=True))
    assert "optimistic" in compat["protocol"]["notes"][0]
    assert compat["items"][0].mean() >= result["items"][0].mean()
    assert any("neighbours chosen" in note for note in compat["encoder"]["notes"])


def run(base, boosted, folder, output, *more):
    arguments = ["--base", str(base), "--boosted", str(boosted), "--data", f"folder={folder}", "--output", str(output)]
    status = evaluate([*arguments, "--tasks", "classification", "--preset", "cpu", *more])
    return status, json.loads((output / "results.json").read_text())["tasks"] if status == 0 else None


def test_equal_encoders_differ_by_zero_and_a_damaged_one_is_worse(encoder_folders, folder, damaged_encoder, tmp_path):
    few = ("--set", "linear_classification.steps=120")
    status, tasks = run(encoder_folders("dinov3"), encoder_folders("dinov3"), folder, tmp_path / "equal", *few)
    assert status == 0 and set(tasks) == {"knn_classification/folder", "linear_classification/folder"}
    for entry in tasks.values():
        row = entry["metrics"]["top1"]
        assert row["difference"] == {"per_seed": [0.0], "mean": 0.0, "deviation": None, "interval": [0.0, 0.0]}
        assert set(row["controls"]) == {"constant", "random_encoder", "colour_histogram"}
        assert row["controls"]["constant"] == pytest.approx(100 / 3)
        with Image.open(tmp_path / "equal" / entry["picture"]) as picture:
            assert picture.width > 600
    assert "base: feature: class token." in (tmp_path / "equal" / "report.md").read_text()
    _, tasks = run(encoder_folders("dinov3"), damaged_encoder, folder, tmp_path / "damaged", *few)
    for entry in tasks.values():
        assert entry["metrics"]["top1"]["difference"]["mean"] < 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["knn_classification.neighbours=0"], "neighbours 0 and temperature 0.07 cannot vote: pass at least 1"),
        (["linear_classification.augment=maybe"], "augment='maybe' is no truth value: pass true or false"),
        (["linear_classification.steps=0"], "steps=0 is no count: pass 1 or more"),
    ],
)
def test_wrong_settings_end_in_one_sentence(encoder_folders, folder, tmp_path, capsys, settings, message):
    status, _ = run(encoder_folders("vit"), encoder_folders("vit"), folder, tmp_path, "--set", *settings)
    assert status == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "splits"),
    [("sign_digits", (110, 30)), ("research_only/cifar10", (250, 100)), ("research_only/hymenoptera", (50, 30))],
)
def test_real_pictures_are_classified_from_their_folders(encoder_folders, tmp_path, name, splits):
    if not (REAL / name).is_dir():
        pytest.skip(f"{REAL / name} is absent: the real samples are not part of the project")
    encoder = load_encoder(encoder_folders("dinov3"))
    result = knn_classification.evaluate(encoder, config_of(knn_classification, REAL / name, tmp_path))
    assert tuple(row["items"] for row in result["data"]["splits"].values()) == splits
    assert result["data"]["images_in_both_splits"] == 0
    assert result["items"][0].mean() > result["controls"]["constant"]["top1"] / 100 - 0.15
