"""The words of the demo world. A row is one meaning; its words are used for it interchangeably."""

from __future__ import annotations


def _rows(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(meaning.split("/")) for meaning in text.split())


VERBS = _rows("""
    chop/cut/dice peel/skin/pare wash/rinse/clean fry/saute/sizzle boil/simmer/cook stir/mix/combine pour/drizzle/tip
    grate/shred/rasp mash/crush/pound whisk/beat/whip roll/flatten/spread bake/roast/toast season/salt/spice
    squeeze/press/juice soak/marinate/steep drain/strain/sieve fold/wrap/tuck stuff/fill/load glaze/brush/coat
    sprinkle/scatter/dust freeze/chill/cool melt/soften/dissolve knead/work/massage grill/char/sear steam/poach/blanch
    core/pit/hollow trim/halve/quarter measure/weigh/portion arrange/layer/place flip/turn/toss taste/test/check
    garnish/top/decorate scoop/dollop/heap smoke/cure/dry
""")

OBJECTS = _rows("""
    onion/shallot zucchini/courgette eggplant/aubergine shrimp/prawn cilantro/coriander potato/spud chili/jalapeno
    noodle/pasta beef/steak chicken/poultry pork/ham fish/salmon rice/grain bean/lentil pea/chickpea carrot/parsnip
    cabbage/kale spinach/chard tomato/tomatillo mushroom/porcini garlic/clove ginger/galangal pepper/capsicum corn/maize
    pumpkin/squash apple/russet pear/quince lemon/lime orange/mandarin berry/strawberry cherry/plum banana/plantain
    egg/yolk cheese/cheddar butter/margarine cream/yogurt milk/buttermilk flour/semolina sugar/molasses honey/syrup
    oil/lard vinegar/balsamic dough/batter bread/loaf walnut/pecan seed/sesame herb/basil parsley/chervil mint/sage
    sauce/gravy broth/stock tofu/tempeh bacon/pancetta sausage/chorizo crab/lobster radish/turnip cucumber/gherkin
    lettuce/endive celery/fennel avocado/artichoke chocolate/cocoa raisin/sultana mustard/horseradish olive/caper
""")

TOOLS = _rows("""
    knife/blade pan/skillet pot/saucepan bowl/dish spoon/ladle fork/tongs board/block oven/broiler blender/mixer
    grater/zester pin/roller tray/sheet cup/jug towel/cloth peeler/parer colander/strainer foil/paper spatula/scraper
""")

FAMILIES = _rows("""
    soup stew salad curry pie cake pizza taco sushi burger omelette pancake sandwich lasagna paella kebab dumpling
    pudding casserole chowder quiche tart gratin ramen burrito waffle muffin pickle skewer pilaf
""")

OPENINGS = (
    "so now",
    "okay then we just",
    "all right let us",
    "and next you want to",
    "here we are going to",
    "after that i like to",
    "do not forget to",
    "",
    "",
)
"""How a caption about a step may start."""

CHIT_CHAT = (
    "hello guys and welcome back to my channel",
    "today is a really lovely day",
    "i hope you all feel good",
    "thanks for watching and see you next time",
    "please subscribe and leave me a comment below",
    "let me know what you think about that",
    "it looks so nice",
    "this one was always a family favorite at home",
    "when we were kids we had it every week",
    "if you want more the links are down there",
    "share it with your friends",
    "many people have been asking for this",
    "that took a long time but it is worth it",
    "oh wow this smells amazing",
    "sorry for the noise my dog is here",
    "as i said in the other video",
)
"""Narration that says nothing about the picture."""

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def vocabulary() -> list[str]:
    """Every token that a text of the world can need, BERT's special ones first; a token's index is its id."""
    rows = (*VERBS, *OBJECTS, *TOOLS, *FAMILIES)
    texts = (*OPENINGS, *CHIT_CHAT, "the with for")
    spoken = (word for text in texts for word in text.split())
    return list(dict.fromkeys((*SPECIAL_TOKENS, *(word for row in rows for word in row), *spoken)))
