"""Every check against numbers worked out by hand."""

import math

import pytest

from rlhf_core import Episode, Prompt, Sample, Trajectory
from rlhf_core.errors import DataError
from rlhf_plugins.values.checks import CHECKS, bind

PROMPT = Prompt(text="p", facts={"place": "Paris", "cost": "12 million", "people": ["nurses", "doctors"]})
VALUES = {"place": {"Paris": ["Paris"], "Rome": ["Rome", "the eternal city"]}, "cost": {"12 million": ["12 million"]}}


def run(name: str, text: str, prompt: Prompt = PROMPT, finished: bool = True, **parameters) -> float:
    return bind(name, parameters)(prompt, Sample(prompt_id=prompt.id, text=text, finished=finished))


def test_lexicon_absent():
    words = ["shocking", "you won't believe", "!", "震惊"]
    assert run("lexicon_absent", "A calm report", words=words) == 1
    assert run("lexicon_absent", "SHOCKING report", words=words, each=0.5) == 0.5
    assert run("lexicon_absent", "You won’t believe it!!", words=words, each=0.5) == 0.125
    assert run("lexicon_absent", "全城震惊", words=words, each=0.5) == 0.5
    assert run("lexicon_absent", "shockingly good", words=words) == 1
    assert run("lexicon_absent", "", words=words) == 0


def test_capitals_absent():
    assert run("capitals_absent", "The EU met in Paris") == 1
    assert run("capitals_absent", "WOW what a DAY", each=0.5) == 0.25
    assert run("capitals_absent", "河口批准") == 1
    assert run("capitals_absent", " ") == 0


def test_length_between():
    assert run("length_between", "one two three", minimum=2, maximum=4, softness=2) == 1
    assert run("length_between", "one", minimum=3, maximum=4, softness=2) == pytest.approx(math.exp(-1))
    assert run("length_between", "one two three four", minimum=1, maximum=3, softness=2) == pytest.approx(
        math.exp(-1 / 4)
    )
    assert run("length_between", "河口批准", minimum=2, maximum=2) == 1
    assert run("length_between", "", maximum=3) == 0


def test_brevity():
    assert run("brevity", "abc def", scale=2) == pytest.approx(math.exp(-0.5))
    assert run("brevity", "河口", scale=1) == pytest.approx(math.exp(-1))
    assert run("brevity", "") == 0


def test_repetition_absent():
    assert run("repetition_absent", "a b c d") == 1
    # a-b, b-a, a-b: two of three pairs are new.
    assert run("repetition_absent", "a b a b", power=1) == pytest.approx(2 / 3)
    # no-no is a twin, no-way is new.
    assert run("repetition_absent", "no no way", power=2) == pytest.approx(1 / 4)
    assert run("repetition_absent", "谢谢你", power=1) == 1
    assert run("repetition_absent", "word") == 1
    assert run("repetition_absent", "!!") == 0


def test_finished():
    assert run("finished", "a") == 1
    assert run("finished", "a", finished=False, otherwise=0.2) == 0.2


def test_regex():
    assert run("regex", "Paris 2024", pattern=r"\d{4}") == 1
    assert run("regex", "Paris", pattern=r"\d{4}", otherwise=0.25) == 0.25


def test_facts_agree():
    assert run("facts_agree", "Paris spends 12 million", vocabulary=VALUES) == 1
    assert run("facts_agree", "Rome spends 12 million", vocabulary=VALUES, contradiction=0.4) == pytest.approx(0.2)
    assert run("facts_agree", "Rome, the Eternal City", vocabulary=VALUES) == 0
    assert run("facts_agree", "Paris or Rome for 99", vocabulary=VALUES, contradiction=0.5) == pytest.approx(1 / 12)
    assert run("facts_agree", "nothing at all", vocabulary=VALUES) == 0


def test_facts_agree_without_a_vocabulary_knows_only_the_prompt():
    assert run("facts_agree", "Rome and Paris") == 1
    assert run("facts_agree", "Doctors in Paris count 13", contradiction=0.5) == pytest.approx(1 / 3)
    assert run("facts_agree", "Paris spends 12") == 1


def test_facts_covered():
    weights = {"place": 3, "cost": 1}
    assert run("facts_covered", "Paris", weights=weights) == 0.75
    assert run("facts_covered", "Rome, 12 million", weights=weights, vocabulary=VALUES) == 0.25
    assert run("facts_covered", "Rome", weights=weights, vocabulary=VALUES, floor=0.5) == 0.5
    assert run("facts_covered", "12 million in Paris", weights=weights, floor=0.5) == 1


def test_both_sides():
    prompt = Prompt(text="p", facts={"for": "nurses", "against": "landlords"})
    sides = ["for", "against"]
    assert run("both_sides", "Rent cap comes", prompt, sides=sides, only_one=0.3) == 1
    assert run("both_sides", "Nurses like rent cap", prompt, sides=sides, only_one=0.3) == 0.3
    assert run("both_sides", "Nurses and landlords differ", prompt, sides=sides, only_one=0.3) == 1
    assert run("both_sides", "", prompt, sides=sides) == 0


def test_environment_return():
    prompt = Prompt(episode=Episode(environment="CartPole-v1", seed=1))
    trajectory = Trajectory(observations=((0.0,), (1.0,)), actions=((0.0,), (1.0,)), environment_rewards=(1.0, 0.5))
    sample = Sample(prompt_id=prompt.id, trajectory=trajectory)
    assert bind("environment_return", {})(prompt, sample) == 1.5
    assert bind("environment_return", {"scale": 3})(prompt, sample) == 0.5
    with pytest.raises(DataError, match="without the environment's rewards"):
        bind("environment_return", {})(prompt, sample.blind())
    with pytest.raises(DataError, match="given a text"):
        run("environment_return", "text")
    with pytest.raises(DataError, match="given a trajectory"):
        bind("finished", {})
        bind("brevity", {})(prompt, sample)


def test_headline_grammar():
    prompt = Prompt(text="p", facts={"language": "en"})
    assert run("headline_grammar", "Ashford zoo delays rent cap", prompt) == 1
    # start-place, place-who and who-action are known; that it ends there is not.
    assert run("headline_grammar", "Ashford zoo delays", prompt, power=1) == 0.75
    assert run("headline_grammar", "xyzzy", prompt) == 0
    assert run("headline_grammar", "", prompt) == 0


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("lexicon_abscent", {}, "did you mean 'lexicon_absent'"),
        ("zzz", {}, "there are: "),
        ("lexicon_absent", {}, "words"),
        ("lexicon_absent", {"words": "shocking"}, "must be a list"),
        ("lexicon_absent", {"words": [" "]}, "no words to look for"),
        ("lexicon_absent", {"words": ["a"], "eech": 0.1}, "eech"),
        ("lexicon_absent", {"words": ["a"], "each": 2}, "less than or equal to 1"),
        ("length_between", {"maximum": "many"}, "number"),
        ("regex", {"pattern": "("}, "pattern"),
        ("facts_agree", {"vocabulary": "nowhere"}, "newsroom"),
        ("facts_covered", {"weights": {}}, "at least 1"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        bind(name, parameters)


def test_hostile_text_gets_a_number_from_every_check():
    parameters = {
        "lexicon_absent": {"words": ["a"]},
        "length_between": {"maximum": 5},
        "regex": {"pattern": "a"},
        "facts_covered": {"weights": {"place": 1}},
        "both_sides": {"sides": ["place", "cost"]},
    }
    for name in CHECKS.keys() - {"environment_return"}:
        for text in ("", "\x00", "\ufffd" * 5, "{place}", "\\d+(", "_", "¹²", "'", "a" * 50_000):
            assert 0 <= run(name, text, **parameters.get(name, {})) <= 1, (name, text)
