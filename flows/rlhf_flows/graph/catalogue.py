"""The built-in stages: what each is called, what does it, which plugins and artifacts it works with, what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from pydantic import JsonValue

from rlhf_core.pipeline.placement import StageName

Kind = Literal["data", "policy", "questions", "answers", "snapshot", "reward", "tuning", "samples", "evaluation", "*"]
"""Kinds of artifacts that stages take; `*` is any."""


class Part(NamedTuple):
    """A role for plugins in a stage."""

    kind: str
    """Kind of the plugin."""
    needed: bool = False
    several: bool = False
    of: str = ""
    """The input whose own plugin it is, unless another is named: a policy is loaded by the plugin that made it."""


class Taken(NamedTuple):
    """An input of a stage."""

    kind: Kind
    needed: bool = False
    several: bool = False
    """Whether there may be several: the body finds them as NAME_0, NAME_1, ... or by what follows NAME_."""


class Stage(NamedTuple):
    """A built-in stage."""

    stage: StageName
    """The kind of work, which `run_on` and `stages` refer to."""
    body: str
    """Its function, below `rlhf_flows.stages`."""
    gives: str
    """Kind of the artifact that it writes; empty where its plugin says it."""
    parts: Mapping[str, Part]
    takes: Mapping[str, Taken]
    settings: Mapping[str, JsonValue] = {}
    """With their defaults."""
    title: str = ""
    reads_metrics: bool = False
    cached: bool = True


POLICY, BASE = Part("policies", needed=True, of="policy"), Part("policies", needed=True, of="base")
REWARD = Part("reward_models", of="reward")
DATA, SNAPSHOT, PREVIOUS = Taken("data", needed=True), Taken("snapshot"), Taken("reward")
TEST: Mapping[str, JsonValue] = {"prompts": 200, "samples": 2}

STAGES: Mapping[str, Stage] = {
    "data": Stage("data", "data:read_data", "data", {"data": Part("data_sources", needed=True, several=True)}, {}),
    "warm_start": Stage(
        "warm_start",
        "policy:warm_start",
        "policy",
        {"policy": POLICY, "warm_start": Part("warm_starts")},
        {"data": DATA},
    ),
    "gold": Stage(
        "gold",
        "learn:fit_gold",
        "reward",
        {"gold": Part("reward_models", needed=True), "policy": BASE},
        {"snapshot": Taken("snapshot", needed=True), "base": Taken("policy", needed=True)},
        title="gold judge",
    ),
    "questions": Stage(
        "questions",
        "collect:select_questions",
        "questions",
        {"policy": POLICY, "selector": Part("selectors", needed=True), "reward": REWARD},
        {"data": DATA, "policy": Taken("policy", needed=True), "reward": Taken("reward")},
        {"questions": 400, "samples": 4, "prompts": None, "overlap": 1, "seed": 0},
        title="ask",
    ),
    "answers": Stage(
        "answers",
        "collect:ask_annotator",
        "answers",
        {"annotator": Part("annotators", needed=True)},
        {"questions": Taken("questions", needed=True)},
        title="collect",
    ),
    "snapshot": Stage(
        "snapshot",
        "collect:take_snapshot",
        "snapshot",
        {"converter": Part("converters", several=True)},
        {"data": DATA, "questions": Taken("questions", several=True), "answers": Taken("answers", several=True)},
        {"asked": []},
        cached=False,
    ),
    "tune": Stage(
        "tune",
        "tune:tune_reward",
        "tuning",
        {"reward": Part("reward_models", needed=True), "policy": BASE},
        {
            "snapshot": Taken("snapshot", needed=True),
            "base": Taken("policy", needed=True),
            "previous": PREVIOUS,
        },
        {"tune": None, "annotators": 0.0},
    ),
    "reward": Stage(
        "reward",
        "learn:fit_reward",
        "reward",
        {"reward": Part("reward_models", needed=True), "policy": Part("policies", of="base")},
        {
            "snapshot": SNAPSHOT,
            "base": Taken("policy"),
            "previous": PREVIOUS,
            "tuning": Taken("tuning"),
            "member": Taken("reward", several=True),
        },
        {"annotators": 0.0, "measure_selection": False},
    ),
    "patches": Stage(
        "patches",
        "learn:check_patches",
        "patches",
        {"reward": REWARD},
        {"reward": Taken("reward", needed=True)},
        {"patches": []},
    ),
    "optimize": Stage(
        "optimize",
        "optimize:optimize_policy",
        "policy",
        {"optimizer": Part("optimizers", needed=True), "policy": POLICY, "reward": REWARD},
        {
            "data": DATA,
            "policy": Taken("policy", needed=True),
            "reference": Taken("policy", needed=True),
            "reward": Taken("reward"),
            "previous": Taken("policy"),
            "snapshot": SNAPSHOT,
        },
        {"annotators": 0.0},
        title="optimise",
    ),
    "samples": Stage(
        "samples",
        "policy:sample_test",
        "samples",
        {"policy": POLICY},
        {"data": DATA, "policy": Taken("policy", needed=True)},
        TEST,
        title="sample",
    ),
    "evaluate": Stage(
        "evaluate",
        "judge:evaluate",
        "evaluation",
        {
            "evaluator": Part("evaluators", needed=True),
            "policy": POLICY,
            "reward": REWARD,
            "gold": Part("reward_models", of="gold"),
        },
        {
            "data": DATA,
            "policy": Taken("policy", needed=True),
            "reference": Taken("policy", needed=True),
            "reward": Taken("reward"),
            "gold": Taken("reward"),
            "samples_challenger": Taken("samples", needed=True),
            "samples_champion": Taken("samples"),
            "samples_warm_start": Taken("samples"),
            "samples_round": Taken("samples", several=True),
            "past": Taken("*", several=True),
        },
        TEST,
    ),
    "gate": Stage(
        "gate",
        "judge:decide",
        "decision",
        {"gate": Part("gates", needed=True)},
        {
            "policy": Taken("policy"),
            "challenger": Taken("*", needed=True, several=True),
            "champion": Taken("*", several=True),
        },
        reads_metrics=True,
    ),
}
"""By name. Steps (plugins) and rehearsals are stages of pipelines alone: a flow of one's own has functions for them."""


def kinds_of_role() -> dict[str, str]:
    """The kind of the plugins in each role, such as `annotator` -> `annotators`."""
    return {role: part.kind for stage in STAGES.values() for role, part in stage.parts.items()}


def givers(kind: str) -> list[str]:
    """The built-in stages that give a kind of artifact."""
    return [name for name, stage in STAGES.items() if stage.gives == kind]
