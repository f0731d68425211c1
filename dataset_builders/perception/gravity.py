"""Which way is up, where the data does not say: from a support that is named as level, and from upright cameras.

Never from the largest plane, which may be a wall. Where the evidence is weak or contradicts itself the answer is None,
and nothing is asked about height.
"""

from collections.abc import Sequence

import numpy as np

from dataset_builders.geometry import Array, thin, up_from_support, valid_depth, view_points
from dataset_builders.scene import Scene, View

LEVEL_WORDS = (
    "floor flooring ground carpet rug mat table tabletop desk desktop counter countertop worktop workbench pavement "
    "sidewalk road street asphalt grass lawn field court deck parquet"
)
BACKGROUND_WORDS = "wall ceiling sky cloud water sea ocean background roof facade building fog horizon"
LEVEL_SUPPORTS = frozenset(LEVEL_WORDS.split())
BACKGROUND = frozenset(BACKGROUND_WORDS.split())
MAX_POINTS = 20_000  # of a support that a plane is fitted to
MIN_UPRIGHT = 0.5  # cosine between up and the camera's own up; steeper, a top cannot be told from a front
AGREEMENT_COSINE = float(np.cos(np.deg2rad(10.0)))  # two estimates nearer than this agree
MIN_VIEWS = 3  # with two cameras, any roll fits
LEAST_ROLL = np.deg2rad(1.5)  # standard deviation: nobody holds a camera straighter than this
MAX_POSE_ERROR = np.deg2rad(3.0)  # of the up direction from poses, by its own standard error


def is_level_support(name: str) -> bool:
    """Whether a name ("wooden table") is of a thing whose top is level."""
    return _head(name) in LEVEL_SUPPORTS


def is_support_name(name: str) -> bool:
    """Whether a name is of a support or of the background, which nothing is asked about."""
    return _head(name) in LEVEL_SUPPORTS | BACKGROUND


def _head(name: str) -> str:
    """What a phrase is about, singular: "floors" and "floor of a room" are a floor, a "table lamp" is a lamp."""
    words = name.lower().replace("-", " ").split()
    end = next((index for index, word in enumerate(words) if index and word in ("of", "with", "in", "on")), len(words))
    head = words[end - 1] if words else ""
    known = LEVEL_SUPPORTS | BACKGROUND
    return head if head in known or not head.endswith("s") else head.removesuffix("s")


def estimate_up(scene: Scene) -> Array | None:
    """The unit vector (3,) against gravity in the scene's world, or None where that is not sure.

    A named support tells it to a degree or two, several posed views to about three; where both speak, they must agree
    within 10 degrees.
    """
    support = _up_from_supports(scene)
    cameras = up_from_cameras([view.camera_to_world for view in scene.views]) if scene.posed else None
    if support is None or cameras is None:
        return cameras if support is None else support
    return support if support @ cameras > AGREEMENT_COSINE else None


def _up_from_supports(scene: Scene) -> Array | None:
    """The direction that more than half of the level supports agree on, as seen where each is largest."""
    found = []
    for item in scene.objects:
        if not is_level_support(item.name):
            continue
        sizes = [0 if view.instances is None else int((view.instances == item.id).sum()) for view in scene.views]
        up = _up_in_view(scene.views[int(np.argmax(sizes))], item.id) if max(sizes) else None
        if up is not None:
            found.append(up)
    if not found:
        return None
    directions = np.stack(found)
    agreeing = directions @ directions.T > AGREEMENT_COSINE
    best = agreeing[agreeing.sum(axis=1).argmax()]
    if 2 * best.sum() <= len(found):
        return None
    mean = directions[best].mean(axis=0)
    return mean / np.linalg.norm(mean)


def _up_in_view(view: View, object_id: int) -> Array | None:
    assert view.instances is not None
    v, u = thin(np.argwhere((view.instances == object_id) & valid_depth(view.depth_m)), MAX_POINTS).T
    up = up_from_support(view_points(view, u, v), view.camera_to_world[:3, 3])
    if up is None or -up @ view.camera_to_world[:3, 1] < MIN_UPRIGHT:  # it is the side of the thing
        return None
    return up


def up_from_cameras(camera_to_world: Sequence[Array]) -> Array | None:
    """Up from the poses (4, 4) of cameras that were held without roll: it is orthogonal to all of their x axes.

    The x axes must turn enough and lie in one plane: by the standard error of that plane's tilt, which is the roll's
    deviation over the root of the summed squares of the axes' turns.
    """
    if len(camera_to_world) < MIN_VIEWS:
        return None
    poses = np.stack(camera_to_world)
    right, camera_up = poses[:, :3, 0], -poses[:, :3, 1].mean(axis=0)
    sums, directions = np.linalg.eigh(np.einsum("vi,vj->ij", right, right))
    roll = max(float(np.sqrt(max(sums[0], 0.0) / (len(poses) - 2))), LEAST_ROLL)
    if roll > MAX_POSE_ERROR * np.sqrt(max(sums[1], 0.0)):
        return None
    up = directions[:, 0] * np.sign(directions[:, 0] @ camera_up)
    return up if up @ camera_up > MIN_UPRIGHT else None
