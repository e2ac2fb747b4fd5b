import math

import pytest

from rlhf_core.errors import RlhfError
from rlhf_core.plugins import OptimizeJob
from rlhf_core.records import Prompt
from rlhf_core.run import Run
from rlhf_plugins.optimizers.rloo import Rloo
from rlhf_plugins.policies.best_of_n import BestOfNPolicy
from rlhf_plugins.policies.causal_lm import CausalLm

PROMPTS = [Prompt(text=text) for text in ("rain:", "wind and snow:", "very very long hail:")]
BELOW = {
    "use": "causal_lm", "max_prompt_tokens": 24, "max_new_tokens": 8, "temperature": 0.9, "dtype": "float32",
    "starter": {"vocab_size": 300, "layers": 1, "width": 32, "heads": 2},
}  # fmt: skip
VOWELS = {"use": "rule", "rules": [{"name": "vowels", "pattern": "[aeiou]", "count": True}]}


def policy(n, seed=0):
    made = BestOfNPolicy(of=BELOW, reward=VOWELS, n=n, run=Run(seed))
    made.prepare(PROMPTS, [])
    made.version, made.round = "v1", 2
    return made


def vowels(sample):
    return sum(letter in "aeiou" for letter in sample.text)


def test_keeps_the_contract(rlhf_conformance):
    rlhf_conformance(BestOfNPolicy, of=BELOW | {"max_prompt_tokens": 64}, reward=VOWELS, n=2)


def test_it_gives_the_best_of_what_the_policy_below_draws():
    made = policy(4)
    drawn = made.below.sample(PROMPTS, 8, 5)
    for chosen, all_ in zip(made.sample(PROMPTS, 2, 5), drawn, strict=True):
        assert [sample.text for sample in chosen] == [
            max(all_[:4], key=vowels).text, max(all_[4:], key=vowels).text,
        ]  # fmt: skip
        assert all((sample.policy, sample.round) == ("v1", 2) for sample in chosen)
    assert made.temperature == 0.9


def test_more_answers_to_choose_from_are_better_by_as_much_as_order_statistics_say():
    """The best of n draws has the distribution function F^n: its mean follows from the single draws' alone."""
    made = policy(1)
    single = sorted(vowels(group[0]) for seed in range(60) for group in made.sample(PROMPTS[:1], 1, seed))
    cumulative = [math.prod([(i + 1) / len(single)] * 4) for i in range(len(single))]
    expected = sum(v * (c - b) for v, c, b in zip(single, cumulative, [0, *cumulative[:-1]], strict=True))
    made = policy(4)
    found = [vowels(group[0]) for seed in range(100, 160) for group in made.sample(PROMPTS[:1], 1, seed)]
    mean = sum(found) / len(found)
    spread = math.sqrt(sum((each - mean) ** 2 for each in found) / len(found) / len(found))
    assert abs(mean - expected) < 4 * spread
    assert mean > sum(single) / len(single)


def test_optimizers_train_the_policy_below(tmp_path):
    made, reference = policy(2), policy(2)
    before = [sample.text for group in made.sample(PROMPTS, 1, 1) for sample in group]
    Rloo(steps=2, batch=3, answers=4, lr=1e-2).optimize(OptimizeJob(made, reference, made.reward, PROMPTS))
    after = [sample.text for group in made.sample(PROMPTS, 1, 1) for sample in group]
    assert after != before
    assert [sample.text for group in reference.sample(PROMPTS, 1, 1) for sample in group] == before
    made.save(tmp_path)
    below = CausalLm(**{name: value for name, value in BELOW.items() if name != "use"})
    below.load(tmp_path)
    assert below.sample(PROMPTS, 2, 1)[0][0].text == made.below.sample(PROMPTS, 2, 1)[0][0].text


def test_a_reward_that_nobody_fitted():
    with pytest.raises(RlhfError, match="`pairwise` learns from feedback, and nobody has fitted it"):
        BestOfNPolicy(of=BELOW, reward={"use": "pairwise"})


def test_a_fitted_reward_is_what_the_result_depends_on(tmp_path):
    config = BestOfNPolicy.Config(of=BELOW, reward={"use": "pairwise"}, fitted=tmp_path)
    assert BestOfNPolicy.reads(config) == (tmp_path,)
