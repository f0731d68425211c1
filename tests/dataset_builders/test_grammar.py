"""Number, plural and article of names as real data sets have them: COCO's 80, LVIS-like ones, and the odd."""

import pytest

from dataset_builders.grammar import article, be, counted, is_plural, listed, pluralise, sentences, there_be

# name, plural, counted once
SINGULAR = """
person, people, a person | bicycle, bicycles, a bicycle | car, cars, a car | motorcycle, motorcycles, a motorcycle
airplane, airplanes, an airplane | bus, buses, a bus | train, trains, a train | truck, trucks, a truck
boat, boats, a boat | traffic light, traffic lights, a traffic light | fire hydrant, fire hydrants, a fire hydrant
stop sign, stop signs, a stop sign | parking meter, parking meters, a parking meter | bench, benches, a bench
bird, birds, a bird | cat, cats, a cat | dog, dogs, a dog | horse, horses, a horse | sheep, sheep, a sheep
cow, cows, a cow | elephant, elephants, an elephant | bear, bears, a bear | zebra, zebras, a zebra
giraffe, giraffes, a giraffe | backpack, backpacks, a backpack | umbrella, umbrellas, an umbrella
handbag, handbags, a handbag | tie, ties, a tie | suitcase, suitcases, a suitcase | frisbee, frisbees, a frisbee
snowboard, snowboards, a snowboard | sports ball, sports balls, a sports ball | kite, kites, a kite
baseball bat, baseball bats, a baseball bat | baseball glove, baseball gloves, a baseball glove
skateboard, skateboards, a skateboard | surfboard, surfboards, a surfboard
tennis racket, tennis rackets, a tennis racket | bottle, bottles, a bottle | wine glass, wine glasses, a wine glass
cup, cups, a cup | fork, forks, a fork | knife, knives, a knife | spoon, spoons, a spoon | bowl, bowls, a bowl
banana, bananas, a banana | apple, apples, an apple | sandwich, sandwiches, a sandwich | orange, oranges, an orange
carrot, carrots, a carrot | hot dog, hot dogs, a hot dog | pizza, pizzas, a pizza | donut, donuts, a donut
cake, cakes, a cake | chair, chairs, a chair | couch, couches, a couch | potted plant, potted plants, a potted plant
bed, beds, a bed | dining table, dining tables, a dining table | toilet, toilets, a toilet | tv, tvs, a tv
laptop, laptops, a laptop | mouse, mice, a mouse | remote, remotes, a remote | keyboard, keyboards, a keyboard
cell phone, cell phones, a cell phone | microwave, microwaves, a microwave | oven, ovens, an oven
toaster, toasters, a toaster | sink, sinks, a sink | refrigerator, refrigerators, a refrigerator | book, books, a book
clock, clocks, a clock | vase, vases, a vase | teddy bear, teddy bears, a teddy bear
hair drier, hair driers, a hair drier | toothbrush, toothbrushes, a toothbrush
bookshelf, bookshelves, a bookshelf | shelf, shelves, a shelf | loaf of bread, loaves of bread, a loaf of bread
cup of coffee, cups of coffee, a cup of coffee | bag of chips, bags of chips, a bag of chips
chest of drawers, chests of drawers, a chest of drawers | pen with cap, pens with cap, a pen with cap
man in a suit, men in a suit, a man in a suit | fireman, firemen, a fireman | policewoman, policewomen, a policewoman
human, humans, a human | ottoman, ottomans, an ottoman | grandchild, grandchildren, a grandchild | deer, deer, a deer
goose, geese, a goose | mongoose, mongooses, a mongoose | berry, berries, a berry | toy, toys, a toy
potato, potatoes, a potato | piano, pianos, a piano | scarf, scarves, a scarf | roof, roofs, a roof
lens, lenses, a lens | gas mask, gas masks, a gas mask | canvas, canvases, a canvas | cactus, cactuses, a cactus
dress, dresses, a dress | compass, compasses, a compass | iris, irises, an iris | series, series, a series
hourglass, hourglasses, an hourglass | heirloom, heirlooms, an heirloom | unicycle, unicycles, a unicycle
university flag, university flags, a university flag | uniform, uniforms, a uniform | urn, urns, an urn
urinal, urinals, a urinal | ukulele, ukuleles, a ukulele | one-way sign, one-way signs, a one-way sign
used cup, used cups, a used cup | utensil, utensils, a utensil | unlit candle, unlit candles, an unlit candle
x-ray, x-rays, an x-ray | LED lamp, LED lamps, an LED lamp | USB stick, USB sticks, a USB stick
8-ball, 8-balls, an 8-ball | t-shirt, t-shirts, a t-shirt | box 12, boxes 12, a box 12
mouse (computer equipment), mice (computer equipment), a mouse (computer equipment)
7up can (0.5 l), 7up cans (0.5 l), a 7up can (0.5 l) | TV, TVs, a TV | European plug, European plugs, a European plug
"""
PLURAL = "people; men; children; shoes; books; stairs; clothes; cattle; shelves; menus; wine glasses; hanes socks"
PAIRS = "scissors; glasses; sunglasses; jeans; trousers; skis; pliers; headphones; red scissors"
MASS = "furniture; broccoli; luggage; toilet paper; orange juice; asparagus"


def singular_rows():
    return [tuple(row.strip().split(", ")) for row in SINGULAR.strip().replace("\n", "|").split("|")]


def test_the_list_is_long_enough():
    assert len(singular_rows()) > 110


@pytest.mark.parametrize(("name", "plural", "once"), singular_rows())
def test_names_of_one_thing(name, plural, once):
    assert (pluralise(name), counted(name, 1), be(name)) == (plural, once, "is")
    assert counted(name, 3) == f"three {plural}"
    assert plural == name or is_plural(plural) or name == "box 12"


@pytest.mark.parametrize("name", PLURAL.split("; "))
def test_names_that_are_plural(name):
    assert (pluralise(name), counted(name, 1), be(name)) == (name, name, "are")


@pytest.mark.parametrize("name", PAIRS.split("; "))
def test_names_of_pairs(name):
    assert (counted(name, 1), counted(name, 2), be(name)) == (f"a pair of {name}", f"two pairs of {name}", "are")


@pytest.mark.parametrize("name", MASS.split("; "))
def test_names_that_cannot_be_counted(name):
    assert (counted(name, 1), counted(name, 2), be(name)) == (f"some {name}", f"two pieces of {name}", "is")


def test_lists_sentences_and_there_is():
    assert listed(["a cup"]) == "a cup" and listed(["a", "b", "c"]) == "a, b and c"
    assert sentences("the mug is 1.5 m away. it is there") == "The mug is 1.5 m away. It is there"
    assert counted("box", 40) == "40 boxes"
    once = [counted(name, 1) for name in ("box", "apple", "scissors", "furniture", "people")]
    assert [there_be([one]) for one in once] == ["is", "is", "is", "is", "are"]
    assert there_be([counted("box", 2)]) == "are"
    assert article("honest man") == "an"
