"""The renderer against geometry worked out by hand."""

import math

import numpy as np
import pytest

from dataset_builders.scene import Intrinsics
from dataset_builders.sources.ray_caster import Camera, Primitive, Room, Texture
from dataset_builders.sources.synthetic_shading import Lighting, render

WHITE = Texture((0.7, 0.7, 0.7))
LAMP = Lighting((0.0, 0.0, 2.9), 0.2, (1.0, 1.0, 1.0), (0.5, 0.5, 0.5), 3.0)
SIZE = 65
CENTRE = SIZE // 2


def room(*primitives: Primitive) -> Room:
    return Room((8.0, 8.0, 3.0), WHITE, WHITE, WHITE, primitives)


def camera(position=(0.0, -3.0, 1.0), size=SIZE) -> Camera:
    """Looks along +y, level."""
    pose = np.eye(4)
    pose[:3] = np.column_stack([(1, 0, 0), (0, 0, -1), (0, 1, 0), position])
    middle = (size - 1) / 2
    return Camera(Intrinsics(60.0, 60.0, middle, middle), pose, size, size)


def test_empty_room_has_exact_depth_and_classes():
    frame = render(room(), camera(), LAMP)
    assert frame.depth_m[CENTRE, CENTRE] == pytest.approx(7.0, abs=1e-5)  # the wall at y = 4
    assert frame.depth_m[-1, CENTRE] == pytest.approx(1.0 * 60 / CENTRE, abs=1e-4)  # the floor, 1 m below
    assert frame.segmentation[CENTRE, CENTRE] == 1
    assert frame.segmentation[-1, CENTRE] == 0
    assert frame.segmentation[0, CENTRE] == 2
    assert not frame.instances.any()


@pytest.mark.parametrize(
    ("shape", "half_size", "taper", "front"),
    [
        ("ellipsoid", (0.5, 0.5, 0.5), 1.0, 0.5),
        ("ellipsoid", (0.3, 0.2, 0.6), 1.0, 0.2),
        ("box", (0.4, 0.3, 0.5), 1.0, 0.3),
        ("frustum", (0.5, 0.5, 0.5), 1.0, 0.5),
        ("frustum", (0.5, 0.5, 0.5), 0.5, 0.375),
        ("frustum", (0.5, 0.5, 0.5), 0.0, 0.25),
        ("frustum", (0.25, 0.25, 0.5), 2.0, 0.375),
    ],
)
def test_front_of_each_shape(shape, half_size, taper, front):
    thing = Primitive(shape, (0.0, 0.0, 1.0), half_size, WHITE, taper=taper, instance=7, class_id=9)
    frame = render(room(thing), camera(), LAMP)
    assert frame.depth_m[CENTRE, CENTRE] == pytest.approx(3.0 - front, abs=1e-5)
    assert frame.instances[CENTRE, CENTRE] == 7
    assert frame.segmentation[CENTRE, CENTRE] == 9


def test_sphere_silhouette_is_the_tangent_cone():
    frame = render(
        room(Primitive("ellipsoid", (0.0, 0.0, 1.0), (0.5,) * 3, WHITE, instance=1)), camera(size=257), LAMP
    )
    v, u = np.mgrid[:257, :257] - 128.0
    from_axis = np.hypot(u, v) / 60.0  # tangent of the angle to the optical axis
    expected = from_axis < 0.5 / math.sqrt(3.0**2 - 0.5**2)
    assert (frame.instances.astype(bool) == expected).mean() > 0.9999


def test_yawed_box_is_hit_on_its_corner():
    box = Primitive("box", (0.0, 0.0, 1.0), (0.4, 0.4, 0.4), WHITE, yaw_rad=math.pi / 4, instance=1)
    frame = render(room(box), camera(), LAMP)
    assert frame.depth_m[CENTRE, CENTRE] == pytest.approx(3.0 - 0.4 * math.sqrt(2), abs=1e-4)


@pytest.mark.parametrize("yaw", [0.0, 0.5, 1.0, 2.5])
def test_every_hit_lies_on_its_solid(yaw):
    """Unprojected points of a box, a frustum and an ellipsoid satisfy the solid's own equation."""
    shapes = [
        Primitive("box", (-1.2, 0.3, 0.6), (0.5, 0.2, 0.6), WHITE, yaw, instance=1),
        Primitive("frustum", (0.2, 0.0, 0.4), (0.4, 0.4, 0.4), WHITE, yaw, 0.3, instance=2),
        Primitive("ellipsoid", (1.3, -0.4, 1.2), (0.3, 0.4, 0.5), WHITE, yaw, instance=3),
    ]
    view = camera(position=(0.1, -3.0, 1.4))
    frame = render(room(*shapes), view, LAMP)
    v, u = np.mgrid[:SIZE, :SIZE]
    rays = np.stack([(u - CENTRE) / 60.0, (v - CENTRE) / 60.0, np.ones_like(u)], axis=-1)
    points = (rays * frame.depth_m[..., None]) @ view.camera_to_world[:3, :3].T + view.camera_to_world[:3, 3]
    for shape in shapes:
        relative = points[frame.instances == shape.instance] - shape.centre_m
        cosine, sine = math.cos(yaw), math.sin(yaw)
        local = relative @ np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
        assert len(local) > 30
        scaled = local / shape.half_size_m
        if shape.shape == "box":
            assert np.abs(np.abs(scaled).max(axis=1) - 1).max() < 1e-4
        elif shape.shape == "ellipsoid":
            assert np.abs((scaled**2).sum(axis=1) - 1).max() < 1e-3
        else:
            radius = 0.4 * (1.3 / 2 + (0.3 - 1) / 2 * scaled[:, 2])
            on_side = np.abs(np.hypot(local[:, 0], local[:, 1]) - radius) < 1e-4
            assert (on_side | (np.abs(scaled[:, 2] - 1) < 1e-4)).all()


def test_nearer_thing_hides_the_farther_one():
    near = Primitive("box", (0.0, -1.0, 1.0), (0.2, 0.2, 0.2), WHITE, instance=1)
    far = Primitive("box", (0.0, 1.0, 1.0), (0.6, 0.2, 0.6), WHITE, instance=2)
    for order in ((near, far), (far, near)):
        frame = render(room(*order), camera(), LAMP)
        assert frame.instances[CENTRE, CENTRE] == 1
        assert frame.instances[CENTRE, CENTRE + 9] == 2


def test_shadow_falls_opposite_the_lamp():
    lamp = Lighting((-2.0, 0.0, 2.5), 0.0, (1.0, 1.0, 1.0), (0.2, 0.2, 0.2), 3.0)
    box = Primitive("box", (0.0, 0.0, 0.5), (0.3, 0.3, 0.5), WHITE, instance=1)
    bright, dark = (render(room(*things), camera((0.0, -3.0, 1.5)), lamp).image for things in ((), (box,)))
    # floor points at (+-0.7, 0, 0): the lamp is at the left, so only the right one is shaded
    left, right = ((round(CENTRE + 60 * 1.5 / 3), round(CENTRE + 60 * x / 3)) for x in (-0.7, 0.7))
    assert dark[right].astype(int).max() < bright[right].astype(int).max() - 40
    assert dark[left].astype(int).max() > bright[left].astype(int).max() - 15


def test_axis_parallel_rays_stay_finite():
    """A ray component of exactly zero must give neither infinity nor NaN."""
    box = Primitive("box", (0.0, 0.0, 1.0), (0.4, 0.4, 0.4), WHITE, instance=1)
    cone = Primitive("frustum", (1.0, 0.0, 1.0), (0.3, 0.3, 0.4), WHITE, taper=0.0, instance=2)
    frame = render(room(box, cone), camera(position=(0.0, -3.0, 1.4)), LAMP)  # grazes the top of the box
    assert np.isfinite(frame.depth_m).all()
    assert (frame.depth_m > 0).all()
