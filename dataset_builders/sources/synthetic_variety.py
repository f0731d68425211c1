"""How varied synthetic rooms are: `plain`, the rooms of the quickstart, and `rich`, those of the miniature.

In rich rooms neither the place of a pixel nor the apparent size of a thing says how far it is: a thing comes in sizes
from 0.4 to 1.8 times the usual one, rooms from closets to halls, cameras lie on the floor or look down from the
ceiling through any lens. Their test split wears patterns and colours that no training room wears.
"""

from dataclasses import dataclass

Range = tuple[float, float]  # least and greatest value


@dataclass(frozen=True)
class Variety:
    """What is drawn from which range.

    Attributes:
        room_side_m: width and depth of a room.
        room_height_m: its height.
        things: how many things are tried.
        scale: of a whole thing, drawn evenly in its logarithm; None: the usual sizes alone.
        spread_m: standard deviation of their places around the middle of the furniture.
        spread_share: of the room's side, added to `spread_m`.
        distance_m: of the cameras from what they look at.
        height_m: of the cameras, which stay below the ceiling.
        target_height_m: of what they look at.
        field_of_view_deg: over the longer side of the image.
        roll_deg: greatest roll, to either side.
        pitch_deg: standard deviation of a turn up or down, away from what they look at.
        scatter_m: standard deviation of where they look, around their target.
        enough_seen: things of which a camera must see most.
        seen_share: of the image, from which on a thing counts as seen.
        rich_decor: patterns and colours of `synthetic_styles`, with others in the test split.
    """

    room_side_m: Range = (2.9, 6.5)
    room_height_m: Range = (2.3, 3.3)
    things: tuple[int, int] = (6, 13)
    scale: Range | None = None
    spread_m: float = 0.9
    spread_share: float = 0.0
    distance_m: Range = (1.0, 3.8)
    height_m: Range = (0.5, 2.2)
    target_height_m: Range = (0.1, 1.0)
    field_of_view_deg: Range = (50, 85)
    roll_deg: float = 5
    pitch_deg: float = 0
    scatter_m: float = 0.35
    enough_seen: int = 4
    seen_share: float = 0.02
    rich_decor: bool = False


PLAIN = Variety()
RICH = Variety(
    room_side_m=(2.4, 10.0),
    room_height_m=(2.2, 4.0),
    things=(9, 20),
    scale=(0.4, 1.8),
    spread_m=0.5,
    spread_share=0.14,
    distance_m=(0.5, 4.0),
    height_m=(0.3, 2.4),
    target_height_m=(0.0, 2.4),
    field_of_view_deg=(40, 90),
    roll_deg=35,
    pitch_deg=20,
    scatter_m=0.4,
    seen_share=0.03,
    rich_decor=True,
)
VARIETIES = {"plain": PLAIN, "rich": RICH}
