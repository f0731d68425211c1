"""LPIPS: the package's own numbers, by way of features computed once, with weights from a folder or none at all."""

import sys
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dataset_builders.perception import PerceptionOptions, open_model
from dataset_builders.scene import InputError
from dataset_builders.sources import SourceOptions, open_source

lpips = pytest.importorskip("lpips", reason="the package lpips is not installed")
REALDATA = Path(__file__).parents[4] / "shared" / "realdata"
SQUEEZENET = REALDATA / "weights" / "squeezenet"


def open_distance(name, batch_size=2):
    return open_model("distance", PerceptionOptions(distance=name, device="cpu", batch_size=batch_size))


@pytest.fixture(scope="module")
def random_trunk(tmp_path_factory):
    """A folder with random weights by torchvision's names, and the model of the package that has them."""
    torch.manual_seed(0)
    model = lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False)
    folder = tmp_path_factory.mktemp("squeeze")
    weights = {"features." + name.partition(".")[2]: value for name, value in model.net.state_dict().items()}
    save_file({**weights, "classifier.1.weight": torch.zeros(2)}, folder / "model.safetensors")
    return folder, model


def pictures(count=5):
    random = np.random.default_rng(0)
    base = random.integers(0, 255, (6, 8, 3))
    changed = [np.clip(base + k * random.integers(-40, 40, base.shape), 0, 255) for k in range(count)]
    return [np.kron(one, np.ones((10, 10, 1))).astype(np.uint8) for one in changed]


def reference(model, images):
    resized = [np.asarray(Image.fromarray(one).resize((256, 256), Image.Resampling.BICUBIC)) for one in images]
    tensors = [torch.tensor(one).permute(2, 0, 1)[None] / 127.5 - 1 for one in resized]
    with torch.no_grad():
        return np.array([[float(model(one, other)) for other in tensors] for one in tensors])


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_the_distances_are_those_of_the_package(random_trunk, batch_size):
    folder, model = random_trunk
    images = pictures()
    found = open_distance(f"squeeze:{folder}", batch_size).distances(images)
    assert np.allclose(found, reference(model, images), atol=1e-6)
    assert np.array_equal(found, found.T) and np.array_equal(np.diag(found), np.zeros(5))
    assert found[0, 4] > found[0, 1] > 0


def test_images_of_several_sizes_and_one_image(random_trunk):
    distance = open_distance(f"squeeze:{random_trunk[0]}")
    image = pictures(1)[0]
    assert distance.distances([image, image[:40, :30]]).shape == (2, 2)
    assert np.array_equal(distance.distances([image]), [[0.0]])


def test_weights_of_torch_are_read_too(random_trunk, tmp_path):
    weights = {"features." + name.partition(".")[2]: value for name, value in random_trunk[1].net.state_dict().items()}
    torch.save(weights, tmp_path / "squeezenet.pth")
    images = pictures(2)
    expected = open_distance(f"squeeze:{random_trunk[0]}").distances(images)
    assert np.array_equal(open_distance(f"squeeze:{tmp_path}").distances(images), expected)


@pytest.mark.skipif(not SQUEEZENET.is_dir(), reason=f"{SQUEEZENET} is absent")
@pytest.mark.skipif(not (REALDATA / "hololens_office").is_dir(), reason="shared/realdata/hololens_office is absent")
def test_with_trained_weights_near_frames_are_nearer_than_far_ones():
    source = open_source("rgbd", SourceOptions(input_dir=REALDATA / "hololens_office", views=8))
    scenes = [[view.image for view in source.load(item).views] for item in source.list_items()]
    distances = open_distance(f"squeeze:{SQUEEZENET}").distances([*scenes[1], scenes[2][0]])
    frames = distances[:8, :8]
    neighbours = np.diag(frames, 1)
    assert neighbours.max() < frames[0, 7]
    assert np.median(neighbours) < np.median(np.diag(frames, 3)) < np.median(distances[8, :8])
    assert neighbours.min() > 0 and distances.max() < 1


def test_without_a_connection_the_error_says_which_file_goes_where(monkeypatch, tmp_path):
    def no_connection(*_, **__):
        raise urllib.error.URLError("no connection")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_connection)
    for trunk, file in (("alex", "alexnet-owt-7be5be79.pth"), ("squeeze", "squeezenet1_1-b8a52dc0.pth")):
        with pytest.raises(InputError, match=file) as caught:
            open_distance(trunk)
        assert str(tmp_path / "hub" / "checkpoints" / file) in str(caught.value)


def test_weights_in_the_cache_of_torch_are_used(monkeypatch, random_trunk, tmp_path):
    torch_home = tmp_path / "hub" / "checkpoints"
    torch_home.mkdir(parents=True)
    from torchvision.models import squeezenet1_1

    network = squeezenet1_1()
    network.features.load_state_dict(
        {name.partition(".")[2]: value for name, value in random_trunk[1].net.state_dict().items()}
    )
    torch.save(network.state_dict(), torch_home / "squeezenet1_1-b8a52dc0.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    images = pictures(2)
    expected = open_distance(f"squeeze:{random_trunk[0]}").distances(images)
    assert np.array_equal(open_distance("squeeze").distances(images), expected)


def test_bad_names_and_folders_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="'resnet' is unknown"):
        open_distance("resnet")
    with pytest.raises(InputError, match="0 weight files"):
        open_distance(f"squeeze:{tmp_path}")
    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    with pytest.raises(InputError, match=r"wrong.safetensors holds no squeezenet1_1"):
        open_distance(f"squeeze:{tmp_path}")
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(InputError, match="pip install lpips"):
        open_distance("alex")
