"""The judge: it orders the styles, it is not to be fooled, and it hardly ever ties."""

from itertools import pairwise
from random import Random

import pytest

from rlhf_core import Prompt, Sample
from rlhf_plugins.data_sources.newsroom import Newsroom
from rlhf_plugins.newsroom.generator import fill, make_headline
from rlhf_plugins.newsroom.languages import languages
from rlhf_plugins.values.principles import load

JUDGE = load("newsroom")
STYLES = ("neutral", "sensational", "one_sided", "false")


MOST = sum(principle.weight for principle in load("newsroom").principles)
"""Points of a headline that keeps every principle."""


def value(prompt: Prompt, text: str, **fields) -> float:
    sample = Sample(prompt_id=prompt.id, text=text, **fields)
    return sum(JUDGE.points(JUDGE.scores(prompt, sample)).values())


def scores(prompt: Prompt, text: str) -> dict[str, float]:
    return JUDGE.scores(prompt, Sample(prompt_id=prompt.id, text=text))


@pytest.fixture(scope="module", params=["en", "zh"])
def written(request):
    """200 prompts, each with a headline in every style."""
    language = languages()[request.param]
    prompts = list(Newsroom(prompts=200, language=request.param, seed=5).prompts())
    return [
        (prompt, {style: make_headline(Random(f"{n}/{style}"), language, prompt.facts, style) for style in STYLES})
        for n, prompt in enumerate(prompts)
    ]


@pytest.mark.parametrize("style", ["sensational", "one_sided", "false"])
def test_neutral_beats_every_other_style(written, style):
    right = sum(value(prompt, texts["neutral"]) > value(prompt, texts[style]) for prompt, texts in written)
    assert right / len(written) >= 0.99


def test_each_style_breaks_its_principle_and_only_that(written):
    for prompt, texts in written:
        of = {style: scores(prompt, text) for style, text in texts.items()}
        assert all(of[style]["well_formed"] == 1 for style in STYLES), texts
        assert of["neutral"]["neutral"] == of["neutral"]["balanced"] == of["neutral"]["faithful"] == 1
        assert of["sensational"]["neutral"] <= 0.3
        assert of["sensational"]["faithful"] == of["one_sided"]["faithful"] == 1
        assert of["one_sided"]["balanced"] <= 0.3
        assert of["one_sided"]["neutral"] == 1
        assert of["false"]["faithful"] <= 0.4


def test_references_are_among_the_best(written):
    for prompt, texts in written[:50]:
        best = max(value(prompt, text) for text in texts.values())
        assert max(value(prompt, reference) for reference in prompt.references) >= best - 0.02


def test_two_headlines_for_one_article_hardly_ever_tie(written):
    code = written[0][0].facts["language"]
    ties = pairs = 0
    for number, (prompt, _) in enumerate(written):
        rng = Random(f"ties/{number}")
        one, two = (make_headline(rng, languages()[code], prompt.facts, rng.choice(STYLES)) for _ in range(2))
        if one != two:
            pairs += 1
            ties += value(prompt, one) == value(prompt, two)
    assert pairs > 150
    assert ties / pairs < 0.02


def test_hacks_score_below_every_honest_headline(written):
    for prompt, texts in written[:40]:
        facts = prompt.facts
        good = prompt.references[0]
        worst = min(value(prompt, text) for text in texts.values())
        hacks = [
            "",
            " ",
            ".",
            "!!!!!!",
            "the",
            "a a a a a a",
            f"{facts['place']}",
            " ".join([facts["place"]] * 8),
            f"{good} {good}",
            " ".join([good] * 20),
            " ".join(map(str, facts.values())),
            ", ".join([facts["place"], facts["what"], facts["who"], facts["cost"], facts["action"], facts["day"]]),
            prompt.text,
            "qwe asd zxc rty fgh vbn",
            "\x00\x01 <script> \ufffd",
        ]
        for hack in hacks:
            assert value(prompt, hack) < min(0.06 * MOST, worst), hack


def test_a_fragment_scores_below_a_whole_headline_in_a_bad_style():
    prompt = next(Newsroom(prompts=1).prompts())
    words = prompt.references[1].split()
    fragments = [value(prompt, " ".join(words[:end]), finished=False) for end in range(1, len(words))]
    facts = prompt.facts
    shouting = f"You won't believe what the {facts['place']} {facts['who']} did with the {facts['what']}!"
    assert max(fragments) < value(prompt, shouting) < value(prompt, prompt.references[1])


def test_a_headline_about_another_article_is_worth_little(written):
    for (prompt, texts), (other, other_texts) in pairwise(written[:101]):
        if prompt.facts["what"] != other.facts["what"]:
            assert value(prompt, other_texts["neutral"]) < value(prompt, texts["neutral"]) - 2


def test_a_headline_in_the_wrong_language_is_worth_nothing():
    english = next(Newsroom(prompts=1, language="en").prompts())
    chinese = next(Newsroom(prompts=1, language="zh").prompts())
    assert value(english, chinese.references[0]) < 0.1
    assert value(chinese, english.references[0]) < 0.1


def test_saying_more_that_is_true_is_worth_more():
    prompt = next(Newsroom(prompts=1).prompts())
    facts = prompt.facts
    steps = [
        f"{facts['place']} {facts['who']} {facts['action']} {facts['what']}",
        f"{facts['place']} {facts['who']} {facts['action']} {facts['what']} on {facts['day']}",
        f"{facts['place']} {facts['who']} {facts['action']} {facts['cost']} dollar {facts['what']}",
        f"{facts['place']} {facts['who']} {facts['action']} {facts['cost']} dollar {facts['what']} on {facts['day']}",
    ]
    values = [value(prompt, text) for text in steps]
    assert values == sorted(values)
    assert len(set(values)) == 4


def test_every_wrong_fact_costs():
    prompt = next(Newsroom(prompts=1).prompts())
    language = languages()["en"]
    true = language.headlines["neutral"][4]
    facts = dict(prompt.facts)
    previous = value(prompt, fill(true, language, facts))
    for fact, values in (("day", language.days), ("cost", language.costs), ("place", language.places)):
        facts[fact] = next(other for other in values if other != facts[fact])
        now = value(prompt, fill(true, language, facts))
        assert now < previous - 0.2
        previous = now
