import io
import json
import math
import pickle

import av
import numpy as np
import pytest
from PIL import Image

from dataset_builders.scene import DropItem, InputError
from dataset_builders.sources import SourceOptions, open_source
from dataset_builders.sources.ego4d import Ego4dSource, read_frames
from tests.dataset_builders.miniatures_views import video


def source(folder, **options):
    return Ego4dSource(SourceOptions(input_dir=folder, **options))


def load(folder, **options):
    one = source(folder, **options)
    return one.load(one.list_items()[0])


def dropped(folder, **options):
    with pytest.raises(DropItem) as caught:
        load(folder, **options)
    return caught.value.reason


def grey(pixels):
    """Which frame of the miniature it is."""
    return float(np.median(pixels)) / 2


def write_metadata(folder, **videos):
    listed = [{"video_uid": name, "s3_path": "s3://x"} | fields for name, fields in videos.items()]
    (folder / "ego4d.json").write_text(json.dumps({"date": "220101", "videos": listed, "clips": []}))


def test_a_video_becomes_a_scene(tmp_path):
    video(tmp_path / "v2" / "full_scale" / "uid1.mp4")
    scene = load(tmp_path, frame_step=0.5)
    assert (scene.id, scene.source, scene.split, scene.posed) == ("uid1_0_6v", "ego4d", "train", False)
    for number, view in enumerate(scene.views):
        assert grey(view.image) == pytest.approx(15 * number, abs=1.5)
        assert not view.has_depth and not view.intrinsics.known and view.depth_m.shape == (48, 64)
        stored = Image.open(io.BytesIO(view.image_bytes))
        np.testing.assert_array_equal(view.image, np.asarray(stored))
        assert stored.format == "JPEG" and max(stored.quantization[0]) < 15  # quality 95; of 90 it is 24
    assert isinstance(open_source("ego4d", SourceOptions(input_dir=tmp_path)), Ego4dSource)


def test_every_frame_is_found_by_its_time_stamp(tmp_path):
    """Whether frames lie in one group of pictures or the reader jumps, they are those that decoding in order gives."""
    path = video(tmp_path / "a.mp4")
    with av.open(str(path)) as container:
        frames = [
            (frame.pts * frame.time_base, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)
        ]
    for gap in (1 / 30, 0.1, 0.4, 1.1):
        for start in np.arange(0, 2.9 - 2 * gap, 0.13):
            moments = [start, start + gap, start + 2 * gap]
            for moment, found in zip(moments, read_frames(path, moments)):
                expected = next(pixels for time, pixels in frames if time >= moment - 1e-4)
                np.testing.assert_array_equal(found, expected)


def test_a_frame_rate_that_varies_moves_nothing(tmp_path):
    times = np.cumsum(np.random.default_rng(0).integers(10, 120, 90))
    times -= times[0]
    path = video(tmp_path / "a.mp4", milliseconds=times.tolist())
    moments = [0.0, 0.5, 1.7, 3.0]
    for moment, found in zip(moments, read_frames(path, moments)):
        assert grey(found) == pytest.approx(np.searchsorted(times, 1000 * moment), abs=1.0)


@pytest.mark.parametrize(("rotation", "corner"), [(0, (0, 0)), (90, (-1, 0)), (180, (-1, -1)), (-90, (0, -1))])
def test_a_rotated_video_becomes_upright(tmp_path, rotation, corner):
    view = read_frames(video(tmp_path / "a.mp4", count=10, rotation=rotation), [0.0])[0]
    assert view.shape == ((64, 48, 3) if rotation % 180 else (48, 64, 3))
    red = [place for place in ((0, 0), (0, -1), (-1, 0), (-1, -1)) if view[place][0] > 200]
    assert red == [corner]  # counter-clockwise, as FFmpeg counts


def test_pixels_become_square(tmp_path):
    assert read_frames(video(tmp_path / "a.mp4", count=5, aspect=2), [0.0])[0].shape == (48, 128, 3)


def test_a_long_video_becomes_several_scenes(tmp_path):
    video(tmp_path / "b.mp4")
    video(tmp_path / "a.mp4", count=30)
    assert source(tmp_path).list_items() == ["a@0", "b@0"]  # at 0 s, and at 0 and 2 s
    pairs = source(tmp_path, views=2, frame_step=0.4)
    assert pairs.list_items() == ["a@0", "b@0", "b@2", "b@4", "b@6"]
    assert [grey(view.image) for view in pairs.load("b@4").views] == pytest.approx([48, 60], abs=1.5)
    assert pairs.load("b@4").id == "b_4_2v"
    assert source(tmp_path, num_scenes=1).list_items() == ["a@0"]


def test_the_last_moment_has_a_frame(tmp_path):
    for count in (60, 61, 62, 75):
        video(tmp_path / f"{count}.mp4", count=count)
    one = source(tmp_path, frame_step=0.5)
    assert [len(one.load(item).views) for item in one.list_items()] == [4, 4, 4, 5]


def test_metadata_tells_length_redaction_and_split(tmp_path):
    for name in ("a", "b", "c"):
        video(tmp_path / "v2" / "full_scale" / f"{name}.mp4")
    write_metadata(
        tmp_path / "v2",
        a={"duration_sec": 1.2, "split_em": "train", "split_av": None, "split_fho": "multi", "redacted_intervals": []},
        b={"duration_sec": 3.0, "split_em": "test", "redacted_intervals": [{"start_sec": 0.9, "end_sec": 1.1}]},
    )
    one = source(tmp_path, views=2, frame_step=0.5)
    assert one.list_items() == ["a@0", "b@0", "b@2", "b@4", "c@0", "c@2", "c@4"]
    assert one.load("a@0").split == "train" and one.load("b@0").split == "test" and one.load("c@0").split == "train"
    with pytest.raises(DropItem, match="blacked out") as caught:
        one.load("b@2")
    assert caught.value.reason == "redacted"


def test_metadata_that_promises_too_much(tmp_path):
    video(tmp_path / "a.mp4")
    write_metadata(tmp_path, a={"duration_sec": 60.0})
    one = source(tmp_path, views=2, frame_step=2)
    with pytest.raises(DropItem) as caught:
        one.load("a@2")
    assert caught.value.reason == "past_the_end"


def test_it_travels_to_a_worker_and_loads_the_same(tmp_path):
    video(tmp_path / "a.mp4")
    here, there = load(tmp_path), pickle.loads(pickle.dumps(source(tmp_path))).load("a@0")
    assert here.views[1].image_bytes == there.views[1].image_bytes


# Bad input


@pytest.mark.parametrize(
    "damage", ["empty", "text", "cut", "flipped 0", "flipped 1", "flipped 2", "flipped 3", "audio"]
)
def test_a_corrupt_video_is_counted(tmp_path, damage):
    path = video(tmp_path / "a.mp4")
    content = bytearray(path.read_bytes())
    if damage == "audio":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=8000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 8000
            for packet in [*stream.encode(frame), *stream.encode()]:
                container.mux(packet)
    else:
        begin = content.find(b"mdat") + 100
        for place in np.random.default_rng(int(damage[-1]) if "flip" in damage else 0).integers(
            begin, begin + 1500, 30
        ):
            content[place] ^= 0xFF
        path.write_bytes({"empty": b"", "text": b"hello", "cut": content[:2000]}.get(damage, content))
    assert source(tmp_path, frame_step=1).list_items()[0] == "a@0"
    assert dropped(tmp_path, frame_step=1) == "unreadable_video"


def test_a_mirrored_video_is_left_out(tmp_path):
    video(tmp_path / "a.mp4", count=10, mirrored=True)
    assert dropped(tmp_path) == "mirrored_video"


def test_a_short_video_has_too_few_views(tmp_path):
    video(tmp_path / "a.mp4", count=30)
    assert dropped(tmp_path, views=2) == "too_few_views"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_dir": None}, r"--input None is not a folder; give one with v2/full_scale/\*.mp4"),
        ({"views": 0}, "--views 0 is out of range"),
        ({"frame_step": 0}, "--frame-step 0 is no time between frames"),
        ({"frame_step": math.inf}, "--frame-step inf is no time"),
    ],
)
def test_mistakes_about_the_options(tmp_path, options, message):
    video(tmp_path / "a.mp4", count=2)
    with pytest.raises(InputError, match=message):
        Ego4dSource(SourceOptions(**{"input_dir": tmp_path} | options))


def test_mistakes_about_the_whole_input(tmp_path):
    with pytest.raises(InputError, match=r"holds no video; it should hold v2/full_scale/\*.mp4"):
        source(tmp_path)
    video(tmp_path / "a.mp4", count=2)
    for garbled in ("{", "[]", '{"videos": [{"video_uid": "a"}]}'):
        (tmp_path / "ego4d.json").write_text(garbled)
        with pytest.raises(InputError, match="is no Ego4D metadata"):
            source(tmp_path)
