"""The dense configuration stores depth and classes without loss, and says so where it cannot."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dataset_builders.configs import dense_record
from dataset_builders.scene import DropItem
from dataset_builders.sources import SourceOptions
from dataset_builders.sources.synthetic import SyntheticSource


def test_dense_depth_that_does_not_fit_is_no_reading():
    scene = SyntheticSource(SourceOptions(num_scenes=2, views=1, image_size=(16, 16))).load("synthetic-0-test-000000")
    depth_m = np.full((16, 16), 2.0, dtype=np.float32)
    depth_m[0, :6] = (65.535, 65.54, 70, np.inf, np.nan, 0)
    changed = replace(scene, views=(replace(scene.views[0], depth_m=depth_m, segmentation=None),))
    record = dense_record(changed)
    stored = np.asarray(Image.open(io.BytesIO(record["depth"]["bytes"])))
    assert stored[0, :7].tolist() == [65535, 0, 0, 0, 0, 0, 2000]
    assert (np.asarray(Image.open(io.BytesIO(record["segmentation"]["bytes"]))) == 255).all()


@pytest.mark.parametrize(
    ("change", "reason"), [({"metric": False}, "not_metric"), ({"depth_m": 0.0}, "no_depth_readings")]
)
def test_dense_drops(change, reason):
    scene = SyntheticSource(SourceOptions(num_scenes=2, views=1, image_size=(16, 16))).load("synthetic-0-test-000000")
    if "depth_m" in change:
        scene = replace(scene, views=(replace(scene.views[0], depth_m=np.zeros((16, 16), dtype=np.float32)),))
    else:
        scene = replace(scene, **change)
    with pytest.raises(DropItem) as error:
        dense_record(scene)
    assert error.value.reason == reason
