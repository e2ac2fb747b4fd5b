"""What TRL's DPOTrainer and KTOTrainer learn from, as rows of tokens: graded answers, or what people said."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import fsum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rlhf_core.metrics import Metric, mean_share
from rlhf_core.records import Prompt, Reaction, Sample
from rlhf_plugins.optimizers.text.grading import scores_of

if TYPE_CHECKING:
    from rlhf_core.feedback.dataset import FeedbackSet
    from rlhf_core.plugins import LanguageModelPolicy, RewardModel
    from rlhf_plugins.optimizers.trl.driver import Driver

Row = dict[str, Any]
MEASURED_PAIRS = 256
"""Pairs of validation prompts that the policy's own preference is measured on, at most."""


class Judged(NamedTuple):
    """An answer with what is known of it."""

    prompt: Prompt
    sample: Sample
    good: bool


def graded_rows(kind: str, driver: Driver, reward: RewardModel) -> list[Row]:
    """The policy's own answers, graded by the reward, in the tokens that it sampled.

    dpo: the best and the worst answer to each prompt. kto: every answer, desirable where it is better than the average
    one to its prompt.
    """
    config, job = driver.config, driver.job
    prompts = [job.prompts[number] for number in driver.order(min(config.prompts, len(job.prompts)))]
    groups = driver.policy.sample(prompts, config.answers, driver.run.seed)
    asked = [prompt for prompt in prompts for _ in range(config.answers)]
    flat = [sample for group in groups for sample in group]
    scores = np.array(scores_of(reward, asked, flat, when="before the first step")).reshape(len(prompts), -1)
    rows: list[Row] = []
    for tokens, group, graded in zip(driver.policy.lm.format.prompt_tokens(prompts), groups, scores, strict=True):
        if graded.max() == graded.min():
            continue
        answers = [list(sample.tokens) for sample in group]
        if kind == "dpo":
            chosen, rejected = answers[int(graded.argmax())], answers[int(graded.argmin())]
            rows.append({"prompt_ids": tokens, "chosen_ids": chosen, "rejected_ids": rejected})
        else:
            rows += [
                {"prompt_ids": tokens, "completion_ids": answer, "label": bool(score > graded.mean())}
                for answer, score in zip(answers, graded, strict=True)
            ]
    return rows


def stated_rows(kind: str, driver: Driver, feedback: FeedbackSet) -> list[Row]:
    """What people said of answers, in the policy's tokens.

    dpo: a row for each pair that is no tie by all answers together. kto: a row for each answer that people liked more
    than not, or less.
    """
    lm = driver.policy.lm
    if kind == "dpo":
        pairs = preferred(feedback)
        asked = [prompt for prompt, _, _ in pairs]
        chosen, rejected = ([pair[side].text or "" for pair in pairs] for side in (1, 2))
        columns = (lm.format.prompt_tokens(asked), lm.answer_tokens(chosen, asked), lm.answer_tokens(rejected, asked))
        names = ("prompt_ids", "chosen_ids", "rejected_ids")
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    judged = verdicts(feedback)
    asked = [each.prompt for each in judged]
    answers = lm.answer_tokens([each.sample.text or "" for each in judged], asked)
    return [
        {"prompt_ids": tokens, "completion_ids": answer, "label": each.good}
        for tokens, answer, each in zip(lm.format.prompt_tokens(asked), answers, judged, strict=True)
    ]


def in_pairs_for_kto(rows: list[Row], seed: int) -> list[Row]:
    """The rows in a random order, each with another row's answer, from which KTO estimates the divergence."""
    order = np.random.default_rng(seed).permutation(len(rows))
    mixed = [rows[i] for i in order]
    for row, other in zip(mixed, [*mixed[-1:], *mixed[:-1]], strict=True):
        row["KL_completion_ids"] = other["completion_ids"]
    return mixed


def preferred(feedback: FeedbackSet) -> list[tuple[Prompt, Sample, Sample]]:
    """Prompt, better and worse answer of each pair that is no tie by all answers together."""
    return [
        (pair.prompt, pair.first, pair.second) if pair.probability > 0.5 else (pair.prompt, pair.second, pair.first)
        for pair in feedback.pairs()
        if pair.probability != 0.5
    ]


def verdicts(feedback: FeedbackSet) -> list[Judged]:
    """Answers that are good or bad by all that was said of them, in the order of their ids.

    An answer is good where it won more comparisons than it lost (rankings, and ratings of one prompt, hold
    comparisons) and was liked more often than disliked; one that was only rated, where it is above the mean rating of
    its criterion. Other reactions, such as clicks, say nothing of an answer by itself.
    """
    known: dict[str, tuple[Prompt, Sample]] = {}
    marks: dict[str, list[float]] = defaultdict(list)
    for pair in feedback.pairs():
        for sample, sign in ((pair.first, 1.0), (pair.second, -1.0)):
            known[sample.id] = (pair.prompt, sample)
            marks[sample.id].append(sign * (2 * pair.probability - 1) * pair.weight)
    compared = set(marks)
    ratings = feedback.ratings()
    by_criterion: dict[str, list[float]] = defaultdict(list)
    for rated in ratings:
        by_criterion[rated.criterion].append(rated.score)
    for rated in ratings:
        if rated.sample.id not in compared:
            mean = fsum(by_criterion[rated.criterion]) / len(by_criterion[rated.criterion])
            known[rated.sample.id] = (rated.prompt, rated.sample)
            marks[rated.sample.id].append((rated.score - mean) * rated.n)
    for answer in feedback.only("reaction").answers():
        given = answer.feedback
        if isinstance(given, Reaction) and given.action in ("like", "dislike"):
            sample = next(sample for sample in answer.question.samples if sample.id == given.sample)
            known[sample.id] = (answer.question.prompt, sample)
            marks[sample.id].append(float(given.count if given.action == "like" else -given.count))
    totals = {name: fsum(given) for name, given in sorted(marks.items())}
    return [Judged(*known[name], good=total > 0) for name, total in totals.items() if total != 0]


def agreement(
    policy: LanguageModelPolicy, reference: LanguageModelPolicy, feedback: FeedbackSet | None
) -> dict[str, Metric]:
    """`preference_accuracy`: how often the policy moved towards the better answer of a pair more than towards the
    other, which is what its implicit reward says (Rafailov et al. 2023). Empty without pairs.
    """
    from rlhf_plugins.evaluators._likelihood import continuation_scores

    pairs = preferred(feedback)[:MEASURED_PAIRS] if feedback is not None else []
    if not pairs:
        return {}
    asked = [prompt for prompt, _, _ in pairs]

    def moved(texts: Sequence[str]) -> list[float]:
        tokens, answers = policy.lm.format.prompt_tokens(asked), policy.lm.answer_tokens(texts, asked)
        ours, theirs = (continuation_scores(each.lm, tokens, answers) for each in (policy, reference))
        return [a - b for (a, _), (b, _) in zip(ours, theirs, strict=True)]

    better, worse = (moved([pair[side].text or "" for pair in pairs]) for side in (1, 2))
    outcomes = [0.5 if a == b else float(a > b) for a, b in zip(better, worse, strict=True)]
    return {"preference_accuracy": mean_share(outcomes)}
