"""Reading and writing what stages exchange: lines of records, policies, reward models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rlhf_core.errors import DataError
from rlhf_core.pipeline.tuning import with_values
from rlhf_core.plugins import Policy, RewardModel, Scores, Use
from rlhf_core.records import Answer, Prompt, Question, Record, Sample, Split
from rlhf_core.splits import split_of
from rlhf_flows.stage import StageContext

if TYPE_CHECKING:
    from rlhf_core.lm.heads import ScalarHead

R = TypeVar("R", bound=Record)
CHOSEN = "chosen.json"
"""What a search for settings chose."""
CONFIGURED = "configured.json"
"""Settings of a saved reward model that a search chose."""


def write_records(path: Path, records: Iterable[Record]) -> int:
    """One record a line, as JSON, without the time that feedback was given at; the number of lines."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            exclude = {"feedback": {"created_at"}} if isinstance(record, Answer) else None
            file.write(record.model_dump_json(exclude=exclude) + "\n")
            count += 1
    return count


def read_records(path: Path, kind: type[R]) -> Iterator[R]:
    """The records that `write_records` wrote."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield kind.model_validate_json(line)


def prompts_of(data: Path, *splits: Split) -> list[Prompt]:
    """The campaign's prompts of some splits, in the data's order."""
    return [prompt for prompt in read_records(data / "prompts.jsonl", Prompt) if split_of(prompt) in splits]


def demonstrations_of(data: Path, split: Split) -> list[Answer]:
    """The expert answers to prompts of one split."""
    return [
        answer
        for answer in read_records(data / "demonstrations.jsonl", Answer)
        if split_of(answer.question.prompt) == split
    ]


def test_prompts(context: StageContext) -> list[Prompt]:
    """The held-out prompts that evaluators see: the same ones in every round.

    They are taken in the order of their ids, which is as good as random and knows no seed.
    """
    held_out = sorted(prompts_of(context.need("data"), "test"), key=lambda prompt: prompt.id)
    if not held_out:
        raise DataError(
            "no prompt is held out for testing, so nothing could be proved.",
            remedy="Give the data sources more prompts (a tenth of the groups is held out), or mark some with a split.",
        )
    return held_out[: context.pipeline.test.prompts]


def write_samples(path: Path, samples: Iterable[list[Sample]]) -> int:
    """All samples of all prompts, one a line."""
    return write_records(path, (sample for group in samples for sample in group))


def read_samples(folder: Path, prompts: list[Prompt]) -> list[list[Sample]]:
    """The samples in the order of `prompts`."""
    groups: dict[str, list[Sample]] = {prompt.id: [] for prompt in prompts}
    for sample in read_records(folder / "samples.jsonl", Sample):
        groups[sample.prompt_id].append(sample)
    return list(groups.values())


def read_questions(folder: Path) -> list[Question]:
    """The questions of a round."""
    return list(read_records(folder / "questions.jsonl", Question))


def load_policy(context: StageContext, name: str) -> Policy:
    """The policy in input `name`, ready to sample."""
    policy: Policy = context.create("policies", context.pipeline.policy)
    policy.load(context.need(name) / "policy")
    policy.version = context.digest(name)
    policy.round = context.stage.round
    return policy


def load_reward(context: StageContext, name: str, use: Use) -> RewardModel:
    """The reward model in input `name`; one that learns from nothing needs no input."""
    folder = context.input(name)
    if folder is not None:
        use = remembered_use(folder / "reward", use)
    model: RewardModel = context.create("reward_models", use)
    if folder is not None:
        model.load(folder / "reward")
    return model


def tuned(use: Use, tuning: Path | None) -> Use:
    """`use` with what the search whose artifact is the folder `tuning` chose; as it is without a search."""
    return use if tuning is None else with_values(use, json.loads((tuning / CHOSEN).read_text(encoding="utf-8")))


def remember_use(folder: Path, use: Use) -> None:
    """Write beside a reward model how it was configured, where that does not stand in the pipeline."""
    (folder / CONFIGURED).write_text(use.model_dump_json(indent=1) + "\n", encoding="utf-8")


def remembered_use(folder: Path, use: Use) -> Use:
    """How the reward model in `folder` was configured; `use` where nothing else is written there."""
    path = folder / CONFIGURED
    return Use.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else use


def load_proxy(context: StageContext) -> RewardModel:
    """The learnt reward in input `reward`, for selectors, optimizers and evaluators: it sees blind samples only."""
    return Blind(load_reward(context, "reward", context.pipeline.reward))


class Blind(RewardModel):
    """A reward model that never sees the environment's own rewards, whoever calls it."""

    def __init__(self, model: RewardModel) -> None:
        super().__init__(model.config, run=model.run)
        self.model = model

    def score(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Scores:
        """The model's scores of the blind samples."""
        return self.model.score(prompts, [sample.blind() for sample in samples])

    def share_base(self, policy: Policy) -> None:
        """The model's affair."""
        self.model.share_base(policy)

    def value_start(self, policy: Policy) -> ScalarHead | None:
        """The model's, which reads nothing but prompts and answers."""
        return self.model.value_start(policy)


def save_into(plugin: Policy | RewardModel, folder: Path) -> None:
    """Let a plugin write its state into a new folder."""
    folder.mkdir()
    plugin.save(folder)
