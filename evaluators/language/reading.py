"""What an answer says: lengths, positions, numbers, yes or no, letters, points; None where it cannot be read."""

import re
from collections.abc import Sequence

METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001, "km": 1000.0, "ft": 0.3048, "in": 0.0254}
_UNITS = (
    (r"km|kilomet(?:er|re)s?", "km"),
    (r"cm|centimet(?:er|re)s?", "cm"),
    (r"mm|millimet(?:er|re)s?", "mm"),
    (r"m|met(?:er|re)s?", "m"),
    (r"ft|foot|feet", "ft"),
    (r"inch(?:es)?", "in"),
)
_NUMBER = r"\d+(?:\.\d+)?"
_LENGTH = rf"(?P<number>{_NUMBER})\s*(?P<unit>{'|'.join(pattern for pattern, _ in _UNITS)})\b"
# what stands after a length of a position: axis of the camera frame (x right, y down, z forward) and its sign
_DIRECTIONS = {
    "right": (0, 1), "left": (0, -1), "down": (1, 1), "below": (1, 1), "up": (1, -1), "above": (1, -1),
    "forward": (2, 1), "ahead": (2, 1), "in front": (2, 1), "backward": (2, -1), "behind": (2, -1),
}  # fmt: skip
_DIRECTED = re.compile(rf"{_LENGTH}\s+(?:to\s+(?:the|its)\s+)?(?P<way>{'|'.join(_DIRECTIONS)})", re.IGNORECASE)
_POINT = r"\((\d(?:\.\d+)?),\s*(\d(?:\.\d+)?)\)(?:\s+in\s+image\s+(\d+))?"
_NEARER = re.compile(
    rf"{_POINT}\s+(?:is|lies)\s+(?P<word>closer|nearer|farther|further)[^()]*?\bthan\b[^()]*{_POINT}", re.IGNORECASE
)
_ONES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = (
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_WORDS = {word: value for value, word in enumerate((*_ONES, *_TEENS))}
_TENS = {
    word: 10 * value
    for value, word in enumerate(("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), 2)
}
_DIGITS = r"(?P<digits>-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)"
_TENS_AND_ONES = rf"(?P<tens>{'|'.join(_TENS)})(?:[\s-]+(?P<ones>{'|'.join(_ONES[1:])}))?"
_ANY_NUMBER = re.compile(rf"{_DIGITS}|\b(?:{_TENS_AND_ONES}|(?P<word>{'|'.join(_WORDS)}))\b", re.IGNORECASE)

# (x, y, number of the image or None)
Point = tuple[float, float, int | None]


def read_length(text: str) -> float | None:
    """Metres of the last length with a unit: what comes before it is the reasoning that led there."""
    found = list(re.finditer(_LENGTH, text, re.IGNORECASE))
    return _metres(found[-1]) if found else None


def read_position(text: str) -> tuple[float, float, float] | None:
    """Metres (right, down, forward) of "1.2 m to the right, 30 cm up and 2 m forward"; all three must be there."""
    position: list[float | None] = [None, None, None]
    for found in _DIRECTED.finditer(text):
        axis, sign = _DIRECTIONS[found["way"].lower()]
        position[axis] = sign * _metres(found)
    x, y, z = position
    return None if x is None or y is None or z is None else (x, y, z)


def read_number(text: str) -> float | None:
    """The first number, in digits or in a word below a hundred."""
    found = _ANY_NUMBER.search(text)
    if found is None:
        return None
    if found["digits"]:
        return float(found["digits"].replace(",", ""))
    if found["word"]:
        return float(_WORDS[found["word"].lower()])
    return float(_TENS[found["tens"].lower()] + _WORDS[(found["ones"] or "zero").lower()])


def read_yes_no(text: str) -> str | None:
    """Return "yes" or "no", None for an answer that says neither or both."""
    said = {word.lower() for word in re.findall(r"\b(?:yes|no)\b", text, re.IGNORECASE)}
    return said.pop() if len(said) == 1 else None


def read_nearer(text: str, options: Sequence[Point]) -> int | None:
    """Which of two points an answer calls the nearer one, by its place in `options`.

    Either it compares both ("A is closer to the camera than B"; the last such sentence counts), or it names one.
    """
    for found in reversed(list(_NEARER.finditer(text))):
        groups = found.groups()
        ends = [_option(groups[:3], options), _option(groups[4:], options)]
        nearer = ends[0] if found["word"].lower() in ("closer", "nearer") else ends[1]
        return nearer if None not in ends and ends[0] != ends[1] else None
    named = {_option(found.groups(), options) for found in re.finditer(_POINT, text, re.IGNORECASE)}
    return named.pop() if len(named) == 1 else None


def read_letter(text: str, num_options: int, options: Sequence[str] = ()) -> str | None:
    """The letter of the chosen option: by itself, as "the answer is B", as "(B)", as "B. ...", or by its very words.

    Args:
        text: the answer.
        num_options: letters beyond these are none.
        options: their words, where they are known.
    """
    letters = "".join(chr(ord("A") + index) for index in range(num_options))
    text = text.strip()
    for pattern, pick in (
        (rf"^(?i:\(?([{letters}])\)?[.,:)]?)$", 0),
        (rf"^(?i:\(([{letters}])\))", 0),
        (rf"^([{letters}])(?:[.,:)]|\n)", 0),
        (rf"\b(?i:answer|option|choice)\b(?i:\s+is)?\s*:?\s*\(?([{letters}])\)?(?![A-Za-z])", -1),
        (rf"\(([{letters}])\)", -1),
    ):
        if found := re.findall(pattern, text):
            return found[pick].upper()
    words = text.rstrip(".").casefold()
    said = [letter for letter, option in zip(letters, options) if option.strip().rstrip(".").casefold() == words]
    return said[0] if len(said) == 1 else None


def _metres(found: re.Match[str]) -> float:
    unit = next(name for pattern, name in _UNITS if re.fullmatch(pattern, found["unit"], re.IGNORECASE))
    return float(found["number"]) * METRES[unit]


def _option(point: Sequence[str | None], options: Sequence[Point]) -> int | None:
    """The place of the option that a point in the text is, at the three decimals that texts have."""
    x, y, image = point
    for index, (option_x, option_y, option_image) in enumerate(options):
        same_place = abs(float(x or 0) - option_x) < 6e-4 and abs(float(y or 0) - option_y) < 6e-4
        if same_place and (image is None or option_image is None or int(image) == option_image):
            return index
    return None
