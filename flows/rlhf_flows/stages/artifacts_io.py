"""Reading and writing what stages exchange: lines of records, policies, reward models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_core.errors import DataError
from rlhf_core.pipeline.tuning import with_values
from rlhf_core.plugins import Policy, RewardModel, Scores, Use
from rlhf_core.records import Prompt, Question, Sample
from rlhf_core.records.files import prompts_of, read_records, write_records
from rlhf_flows.stages.context import StageContext

if TYPE_CHECKING:
    from rlhf_core.lm.heads import ScalarHead

CHOSEN = "chosen.json"
"""What a search for settings chose."""
CONFIGURED = "configured.json"
"""Settings of a saved reward model that a search chose."""


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
    return held_out[: int(context.settings["prompts"])]


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
    policy: Policy = context.create("policy")
    policy.load(context.need(name) / "policy")
    policy.version = context.digest(name)
    policy.round = context.node.round
    return policy


def load_reward(context: StageContext, name: str, role: str = "reward", use: Use | None = None) -> RewardModel:
    """The reward model in input `name`, by the plugin in a role; one that learns from nothing needs no input.

    `use` replaces the plugin's configuration where a search chose another.
    """
    folder = context.input(name)
    use = use or context.needed_use(role)
    if folder is not None:
        use = remembered_use(folder / "reward", use)
    model: RewardModel = context.registry.create("reward_models", use, context.run)
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
    return Blind(load_reward(context, "reward"))


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
