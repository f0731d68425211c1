"""The Ray engine: same bytes as the local one, models in actors, errors in one sentence."""

import logging
from dataclasses import replace

import pytest
from PIL import Image

from dataset_builders import ray_engine
from dataset_builders.configs import DialogueOptions
from dataset_builders.executors import run_shards
from dataset_builders.perception import MODELS, PerceptionOptions
from dataset_builders.plans import BuildPlan
from dataset_builders.ray_engine import ModelActor, RemoteModel
from dataset_builders.scene import DropItem, InputError
from dataset_builders.sources import SourceOptions, open_source
from tests.dataset_builders.builds_for_tests import build, digests, rooms_plan

ray = pytest.importorskip("ray")

STUBS = PerceptionOptions(depth="stub", detector="stub", segmenter="stub")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One cluster for all tests: it takes ten seconds to start."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def test_same_bytes_as_one_process(tmp_path):
    build(rooms_plan(tmp_path / "local", num_scenes=8))
    build(rooms_plan(tmp_path / "ray", num_scenes=8), workers=2, engine="ray")
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")


def test_same_bytes_with_models_in_actors(tmp_path):
    source = open_source("synthetic", SourceOptions(num_scenes=6, image_size=(96, 128), views=1))
    images = {item: Image.fromarray(source.load(item).views[0].image) for item in source.list_items()}
    write_images(tmp_path / "photos", images)
    local, remote = (photo_plan(tmp_path / "photos", tmp_path / name) for name in ("local", "ray"))
    report = build(local)
    assert report["kept_items"] >= 3 and "single_view" in report["rows"]
    build(remote, workers=2, engine="ray")
    assert digests(remote.output_dir) == digests(local.output_dir)
    card = (remote.output_dir / "README.md").read_text()
    assert "| depth | stub |" in card


def write_images(folder, images):
    folder.mkdir()
    for name, image in images.items():
        image.save(folder / f"{name}.png")


def photo_plan(input_dir, output_dir):
    options = SourceOptions(input_dir=input_dir)
    return BuildPlan(
        source="images",
        source_options=options,
        dialogue=DialogueOptions(allow_partial=True),
        configs=("single_view", "dense"),
        items=tuple(open_source("images", options).list_items()),
        shard_size=2,
        input_fingerprint="",
        output_dir=output_dir,
        perception=STUBS,
    )


class Counting:
    """A model that remembers that it was asked, to see that it stays."""

    relative_noise = 0.25

    def __init__(self, name, options):
        if name == "impossible":
            raise InputError("--depth-model impossible cannot be read; pass another.")
        self.asked = 0

    def estimate(self, images, focal_lengths_px):
        self.asked += 1
        if not images:
            raise DropItem("no_image", "nothing to see")
        return [self.asked, *images, *focal_lengths_px]


@pytest.fixture
def counting(monkeypatch):
    monkeypatch.setitem(MODELS["depth"], "", f"{__name__}:Counting")
    return ModelActor("depth", PerceptionOptions(depth="any"))


class Direct:
    """An actor's handle without a cluster."""

    def __init__(self, method):
        self.remote = lambda *arguments: ray.put(method(*arguments))


def remote_model(actor):
    class Handle:
        look, ask = Direct(actor.look), Direct(actor.ask)

    return RemoteModel(Handle)


def test_a_remote_model_is_used_like_a_model(counting):
    model = remote_model(counting)
    assert model.relative_noise == 0.25
    assert model.estimate(["image"], focal_lengths_px=[3.0]) == [1, "image", 3.0]
    assert model.estimate(["image"], [None]) == [2, "image", None]
    with pytest.raises(DropItem) as drop:
        model.estimate([], [])
    assert (drop.value.reason, drop.value.detail) == ("no_image", "nothing to see")


def test_remote_models_say_what_there_is():
    models = ray_engine._start_models(STUBS)
    assert [kind for kind in MODELS if models.has(kind)] == ["depth", "detector", "segmenter"]
    assert {len(actors) for actors in models.actors.values()} == {1}
    with replace(models, shard=5).use("depth") as model:
        assert model.relative_noise == pytest.approx(0.05)


def test_a_model_that_cannot_be_opened_ends_the_build(tmp_path):
    write_images(tmp_path / "photos", {"a": Image.new("RGB", (64, 64))})
    plan = replace(
        photo_plan(tmp_path / "photos", tmp_path / "data"),
        perception=PerceptionOptions(depth=str(tmp_path / "no-model")),
    )
    with pytest.raises(InputError, match="no-model"):
        run_shards(plan, 1, "ray")


def test_no_cluster_there(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with (
        pytest.raises(InputError, match=r"--ray-address 127.0.0.1:1 is no Ray cluster"),
        ray_engine._connection("127.0.0.1:1"),
    ):
        pass


def test_ray_is_an_extra():
    import spatialboost_cli

    sentence = spatialboost_cli.users_mistake(ModuleNotFoundError("No module named 'ray'", name="ray"))
    assert "pip install 'spatialboost[ray]'" in sentence


def test_errors_of_tasks_are_unwrapped():
    @ray.remote
    def inner():
        raise OSError(28, "full")

    @ray.remote
    def outer():
        return ray.get(inner.remote())

    with pytest.raises(ray.exceptions.RayTaskError) as error:
        ray.get(outer.remote())
    cause = ray_engine._cause(error.value)
    assert type(cause) is OSError and cause.errno == 28
    assert "a Ray worker died" in str(ray_engine._cause(ray.exceptions.WorkerCrashedError()))
