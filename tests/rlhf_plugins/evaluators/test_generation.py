import copy
import math

import pytest
import torch

from rlhf_core.errors import DataError
from rlhf_core.plugins import EvaluateJob
from rlhf_core.records import Prompt, Sample
from rlhf_core.run import Run
from rlhf_plugins.evaluators.generation import Generation, distinct, repetition
from rlhf_plugins.policies.causal_lm import CausalLm

PROMPTS = [
    Prompt(text=f"The {thing} was approved on Monday.\nHeadline:") for thing in ("tram", "zoo", "town hall", "pool")
]


def policy(seed, temperature=1.0):
    made = CausalLm(
        run=Run(seed=seed),
        max_prompt_tokens=32,
        max_new_tokens=10,
        temperature=temperature,
        starter={"vocab_size": 320, "layers": 2, "width": 32, "heads": 2},
    )
    made.prepare(PROMPTS, [])
    return made


def sharper(made, factor):
    """The policy with other weights: its token embeddings, which are its token head too, scaled."""
    other = copy.deepcopy(made)
    with torch.no_grad():
        other.lm.model.get_input_embeddings().weight.mul_(factor)
    return other


def evaluate(challenger, reference, n=4, samples=None, **options):
    groups = challenger.sample(PROMPTS, n, seed=1) if samples is None else samples
    job = EvaluateJob(
        prompts=PROMPTS, samples={"challenger": groups}, policy=challenger, reference=reference, reward=None, gold=None
    )
    return Generation(**options).evaluate(job).metrics, groups


def test_produces_what_it_says():
    made = policy(0)
    metrics, _ = evaluate(made, made)
    assert set(metrics) == Generation.produces(Generation.Config())


def test_a_policy_does_not_diverge_from_itself():
    made = policy(0)
    metrics, _ = evaluate(made, made)
    assert metrics["kl"].value == metrics["kl"].low == metrics["kl"].high == 0


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_kl_is_the_difference_of_the_answers_logprobs(temperature):
    reference = policy(0, temperature)
    challenger = sharper(reference, 30.0)
    metrics, groups = evaluate(challenger, reference)
    by_prompt = []
    for prompt, group in zip(PROMPTS, groups, strict=True):
        (asked,) = challenger.lm.format.prompt_tokens([prompt])
        differences = []
        for sample in group:
            logits = reference.lm.model(torch.tensor([[*asked, *sample.tokens]])).logits[0, len(asked) - 1 : -1]
            log_p = (logits / temperature).log_softmax(-1)
            theirs = sum(log_p[step, token].item() for step, token in enumerate(sample.tokens))
            differences.append(sum(sample.logprobs) - theirs)
        by_prompt.append(sum(differences) / len(differences))
    assert metrics["kl"].value == pytest.approx(sum(by_prompt) / len(by_prompt), rel=1e-3)
    assert metrics["kl"].n == len(PROMPTS)
    assert metrics["kl"].value > 0.1


def test_kl_of_many_samples_approaches_the_exact_one():
    # Answers of one token: the divergence of two distributions that can be written down.
    reference = policy(0)
    reference.lm.max_new_tokens = 1
    challenger = sharper(reference, 30.0)
    metrics, _ = evaluate(challenger, reference, n=500)
    exact = []
    for prompt in PROMPTS:
        ids, _ = reference.lm.encode([prompt])
        ours, theirs = (model.lm.model(ids).logits[0, -1].double().log_softmax(-1) for model in (challenger, reference))
        exact.append((ours.exp() * (ours - theirs)).sum().item())
    assert metrics["kl"].value == pytest.approx(sum(exact) / len(exact), rel=0.2)


def test_entropy_is_per_token():
    made = policy(0)
    with torch.no_grad():
        made.lm.model.get_input_embeddings().weight.zero_()
    metrics, _ = evaluate(made, made)
    assert metrics["entropy"].value == pytest.approx(math.log(len(made.lm.tokenizer)), rel=1e-3)


def test_batch_size_changes_nothing_but_rounding():
    reference = policy(0)
    challenger = sharper(reference, 30.0)
    one, _ = evaluate(challenger, reference, batch_size=1)
    many, _ = evaluate(challenger, reference, batch_size=64)
    assert one["kl"].value == pytest.approx(many["kl"].value, abs=1e-4)
    assert one["entropy"].value == pytest.approx(many["entropy"].value, abs=1e-4)


def test_lengths_and_endings_by_hand():
    made = policy(0)
    eos = made.lm.eos_id
    answers = [((5, eos), True), ((5, 6, 7, eos), True), ((5,) * 10, False), ((5, 6, 5, 6, 5, 6), False)]
    samples = [
        [Sample(prompt_id=prompt.id, text="x", tokens=tokens, finished=finished)]
        for prompt, (tokens, finished) in zip(PROMPTS, answers, strict=True)
    ]
    metrics, _ = evaluate(made, made, samples=samples)
    assert metrics["length"].value == (2 + 4 + 10 + 6) / 4
    assert metrics["eos_rate"].value == 0.5
    # Trigrams: none, two different, eight of which one is new, four of which two are.
    assert metrics["repetition"].value == pytest.approx((0 + 0 + 7 / 8 + 2 / 4) / 4)
    assert metrics["distinct_1"].value == pytest.approx(4 / 22)


def test_distinct_and_repetition_by_hand():
    assert distinct([[1, 2, 1], [1, 2]], 1) == 2 / 5
    assert distinct([[1, 2, 1], [1, 2]], 2) == 2 / 3
    assert distinct([[1]], 2) == 0
    assert repetition([1, 2, 3, 1, 2, 3]) == 1 / 4
    assert repetition([1, 2]) == 0


def test_samples_without_tokens_are_refused():
    made = policy(0)
    samples = [[Sample(prompt_id=prompt.id, text="found")] for prompt in PROMPTS]
    with pytest.raises(DataError, match="no tokens"):
        evaluate(made, made, samples=samples)


def test_policies_without_logprobs_are_refused():
    job = EvaluateJob(PROMPTS, {"challenger": []}, policy=object(), reference=object(), reward=None, gold=None)
    with pytest.raises(DataError, match="language model"):
        Generation().evaluate(job)
