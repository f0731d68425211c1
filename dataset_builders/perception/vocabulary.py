"""What detectors look for unless told otherwise; apart, so that the stubs need not import PyTorch."""

_NOUNS = """
person, dog, cat, bird, horse, cow, sheep, car, truck, bus, van, bicycle, motorcycle, scooter, train, boat, airplane,
traffic light, traffic sign, street lamp, fire hydrant, mailbox, parking meter, bench, tree, bush, flower, potted
plant, fence, gate, door, window, staircase, statue, fountain, tent, umbrella, flag, balloon, kite, chair, armchair,
stool, sofa, table, desk, coffee table, nightstand, bed, pillow, blanket, curtain, carpet, cabinet, wardrobe, drawer,
shelf, bookshelf, mirror, picture frame, clock, lamp, fan, radiator, air conditioner, fireplace, television, computer
monitor, laptop, keyboard, computer mouse, printer, telephone, remote control, speaker, headphones, camera,
refrigerator, oven, stove, microwave, toaster, kettle, coffee machine, washing machine, dishwasher, sink, faucet,
toilet, bathtub, shower, towel, soap dispenser, trash can, bucket, broom, ladder, toolbox, hammer, scissors, box,
basket, suitcase, backpack, handbag, hat, shoe, jacket, bottle, cup, glass, mug, bowl, plate, vase, jar, can, teapot,
pan, pot, fork, knife, spoon, cutting board, apple, banana, orange, bread, cake, pizza, book, newspaper, pen, ball,
toy, teddy bear, guitar, piano, skateboard, surfboard, skis, helmet
"""
VOCABULARY = tuple(noun.strip() for noun in _NOUNS.split(","))
