"""The little English grammar that names of objects need: number, plural, article, and how words join to sentences.

A name is a noun phrase: an optional qualifier, the head noun, and what follows it ("red cup of coffee", "box 12",
"mouse (computer equipment)"). Only the head noun has a number.
"""

import re

COUNT_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")

_AFTER_HEAD = re.compile(
    r"\s*[,;(\[/]|\s+(?:of|with|without|in|on|for|at|to|from|under|over|by|near|inside|behind|made)\s|\s+\S*\d\S*"
)
_IRREGULAR = {
    "person": "people", "child": "children", "woman": "women", "mouse": "mice", "foot": "feet", "tooth": "teeth",
    "goose": "geese", "ox": "oxen", "knife": "knives", "wife": "wives", "life": "lives", "leaf": "leaves",
    "loaf": "loaves", "shelf": "shelves", "wolf": "wolves", "calf": "calves", "half": "halves", "scarf": "scarves",
    "thief": "thieves", "die": "dice", "quiz": "quizzes", "potato": "potatoes", "tomato": "tomatoes", "hero": "heroes",
    "mango": "mangoes", "mosquito": "mosquitoes", "domino": "dominoes", "bacterium": "bacteria",
}  # fmt: skip
_IN_COMPOUNDS = ("person", "child", "woman", "knife", "shelf", "loaf", "tooth", "wife")  # bookshelf, penknife
_MAN = re.compile(  # but not human, ottoman, ramen, specimen
    r"(?:^|fire|snow|police|sports|work|business|fisher|sales|crafts|post|milk|gentle|horse|crew|camera)m[ae]n$"
)
_SAME_WORDS = (  # one sheep, two sheep
    "aircraft spacecraft hovercraft sheep deer fish goldfish shellfish salmon bison moose squid series species"
)
_PLURAL_WORDS = (  # plural without a singular that a name could be, or spelt like a singular
    "cattle police clothes stairs taxis kiwis bikinis menus emus media"
)
_PAIRS_WORDS = (  # a pair of scissors
    "scissors glasses sunglasses eyeglasses spectacles goggles binoculars skis jeans pants trousers "
    "shorts leggings tights overalls pyjamas pajamas tweezers pliers tongs shears clippers headphones "
    "earphones earbuds"
)
_MASS_WORDS = (  # some furniture, a piece of it
    "furniture luggage baggage clothing footwear cutlery crockery tableware silverware glassware "
    "kitchenware equipment machinery jewelry jewellery artwork pottery stationery water milk juice coffee "
    "tea wine beer oil soap shampoo toothpaste food cheese bread toast rice pasta cereal meat bacon beef "
    "pork ham butter honey sugar salt flour broccoli cauliflower asparagus spinach lettuce celery garlic "
    "ginger corn grass sand snow ice hay mud gravel soil money debris rubbish trash garbage paper "
    "cardboard wood laundry bedding carpeting foliage hummus chess tennis news"
)
_SAME, _PLURAL, _PAIRS, _MASS = (
    frozenset(words.split()) for words in (_SAME_WORDS, _PLURAL_WORDS, _PAIRS_WORDS, _MASS_WORDS)
)
_SINGULAR_IN_S = re.compile(r"(ss|us|is)$|^(lens|gas|canvas|atlas|bias|alias|thermos|christmas|swiss|rhinoceros)$")
_SOUNDS_LIKE_A_VOWEL = re.compile(
    r"hour|honest|honou?r|heir|8|11\b|18\b|x-?ray|[aefhilmnorsx]-|(?:lcd|led|mp3|mri|hdmi|suv|rv|sms|fm|xbox|sd)\b"
)
_SOUNDS_LIKE_A_CONSONANT = re.compile(
    r"eu|ewe|uni(?!n|m|d)|us[aeiu]|usb\b|uk|urin|ut[ei]|ufo\b|u-|u\b|uv\b|one\b|onesie|once\b|ouija"
)


def head_noun(name: str) -> tuple[str, str, str]:
    """A name in three parts that join to it again: what stands before its head noun, the noun, and what follows."""
    follows = _AFTER_HEAD.search(name, 1)
    end = follows.start() if follows else len(name)
    start = name.rfind(" ", 0, end) + 1
    return name[:start], name[start:end], name[end:]


def is_plural(name: str) -> bool:
    """Whether a class name is already plural ("scissors", "people"), so that it takes "are" and no article."""
    noun = head_noun(name)[1].lower()
    if noun in _PLURAL | _PAIRS or noun.endswith(("people", "children", "women", "mice", "feet", "teeth", "geese")):
        return True
    if _MAN.search(noun):
        return noun.endswith("en")
    return noun.endswith("s") and noun not in _SAME and noun not in _MASS and not _SINGULAR_IN_S.search(noun)


def _is_pair(name: str) -> bool:
    """Whether a name is of one thing with two halves: glasses to look through, but not wine glasses."""
    before, noun, _ = head_noun(name.lower())
    return noun in _PAIRS and not (noun == "glasses" and re.search(r"wine|drink|shot|water|beer|cocktail", before))


def pluralise(name: str) -> str:
    """The plural of a class name, that of its head noun: "cups of coffee", "pieces of furniture"."""
    before, noun, after = head_noun(name)
    lower = noun.lower()
    if _is_pair(name):
        return f"pairs of {name}"
    if lower in _MASS:
        return f"pieces of {name}"
    if is_plural(name) or lower in _SAME:
        return name
    return before + _plural_noun(noun) + after


def _plural_noun(noun: str) -> str:
    lower = noun.lower()
    if lower in _IRREGULAR:
        return _cased(noun, _IRREGULAR[lower])
    compound = next((end for end in _IN_COMPOUNDS if lower.endswith(end)), None)
    if compound:
        return noun[: -len(compound)] + _IRREGULAR[compound]
    if _MAN.search(lower):
        return f"{noun[:-2]}en"
    if re.search(r"(s|x|z|ch|sh)$", lower):
        return noun + "es"
    return noun[:-1] + "ies" if re.search(r"([^aeiou]|qu)y$", lower) else noun + "s"


def _cased(like: str, word: str) -> str:
    return word.capitalize() if like[0].isupper() else word


def article(phrase: str) -> str:
    """The article that fits how the first word sounds: "an hourglass", "a unicycle", "an LED lamp"."""
    lower = phrase.lower()
    if _SOUNDS_LIKE_A_VOWEL.match(lower):
        return "an"
    return "an" if lower[0] in "aeiou" and not _SOUNDS_LIKE_A_CONSONANT.match(lower) else "a"


def counted(name: str, count: int) -> str:
    """A count and its noun: "a box", "an apple", "a pair of scissors", "some furniture", "three boxes", "books"."""
    if count != 1:
        return f"{COUNT_WORDS[count] if count < len(COUNT_WORDS) else count} {pluralise(name)}"
    if _is_pair(name):
        return f"a pair of {name}"
    if head_noun(name)[1].lower() in _MASS:
        return f"some {name}"
    return name if is_plural(name) else f"{article(name)} {name}"


def be(name: str) -> str:
    """The form of "to be" after "the" and a name: "is" or "are"."""
    return "are" if is_plural(name) else "is"


def there_be(things: list[str]) -> str:
    """The form of "to be" that introduces a list of `counted` things: there "is" a box, there "are" three boxes."""
    return "is" if things[0].split()[0] in ("a", "an", "some", "one") else "are"


def listed(parts: list[str]) -> str:
    """Parts joined as in prose: "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def sentences(text: str) -> str:
    """Capitalise the beginning of each sentence."""
    return re.sub(r"(^|[.?!] )([a-z])", lambda match: match[1] + match[2].upper(), text)
