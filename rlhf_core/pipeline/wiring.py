"""The proof, before anything runs, that the parts of a pipeline fit together.

Feedback must reach whoever learns from it, all parts must live in one modality, optimizers must be able to train the
policy, and what a gate reads must be measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from rlhf_core.pipeline import Pipeline
from rlhf_core.pipeline.board import Board, Broken, declared, installed_remedy, names_of, words
from rlhf_core.pipeline.config_errors import did_you_mean
from rlhf_core.pipeline.file import LoadedPipeline, Problem
from rlhf_core.pipeline.parts import ChosenPlugin, choose, dotted
from rlhf_core.pipeline.shapes import misplaced_steps, missing_reward
from rlhf_core.plugins.registry import Registry
from rlhf_core.records import Comparison, Demonstration, Feedback, Ranking, Rating

_PARTIAL = ("accuracy", "auc", "brier", "ece", "f1", "precision", "recall", "spearman")
STAGE_METRICS = frozenset(
    f"reward_{name}"
    for name in (
        *(f"{name}{of}" for name in _PARTIAL for of in ("", "_new_annotators", "_newest")),
        "accuracy_worst_annotator", "length_correlation", "pearson", "sentiment_correlation", "spread",
    )
)  # fmt: skip
"""Metrics that gates may read although no evaluator produces them: how the reward model did on held-out prompts."""

Kinds = frozenset[type[Feedback]]


def check(pipeline: LoadedPipeline | Pipeline, registry: Registry) -> list[Problem]:
    """Everything about `pipeline` that does not fit; empty where it does.

    Problems of a pipeline that was not read from a file name places (`ask.annotators.0`) instead of lines.
    """
    if isinstance(pipeline, LoadedPipeline):
        return list(_Wiring(pipeline.pipeline, pipeline.chosen, registry, pipeline.where).problems())
    chosen, misfits = choose(pipeline, registry)
    if misfits:
        return [Problem(dotted(misfit.loc), misfit.what, misfit.remedy) for misfit in misfits]
    return list(_Wiring(pipeline, chosen, registry, dotted).problems())


def usable_as(kinds: Iterable[type[Feedback]]) -> Kinds:
    """`kinds` and what they hold: a ranking holds comparisons, and so do two ratings of one prompt."""
    found = frozenset(kinds)
    return found | {Comparison} if found & {Ranking, Rating} else found


class _Giver(NamedTuple):
    """A part that brings feedback."""

    part: ChosenPlugin
    yields: Kinds


class _Wiring(Board):
    def problems(self) -> Iterator[Problem]:
        rules = (self._modality, self._training, self._feedback, self._gate, self._gold, self._reward, self._steps)
        for rule in rules:
            try:
                yield from rule()
            except Broken as broken:
                yield Problem(self.where(broken.part.loc), broken.what)

    def _modality(self) -> Iterator[Problem]:
        policy = self.at("policy")
        common = policy.plugin.modality.intersection(*(part.plugin.modality for part in self.all))
        if common:
            return
        # The part that leaves the least choice is what the others are measured by; the policy where it is among those.
        anchor = min([policy, *self.all], key=lambda part: len(part.plugin.modality))
        for part in self.all:
            if not part.plugin.modality & anchor.plugin.modality:
                fitting = self.installed(part.kind, lambda plugin: bool(plugin.modality & anchor.plugin.modality))
                yield Problem(
                    self.where(part.loc),
                    f"{part.place}: `{part.use.use}` works with {words(part.plugin.modality)}, "
                    f"but {self.named(anchor)} works with {words(anchor.plugin.modality)}.",
                    installed_remedy(f"{part.kind.replace('_', ' ')} that work with it", fitting),
                )

    def _training(self) -> Iterator[Problem]:
        policy = self.at("policy")
        for part in [*self.under("warm_start"), *self.under("optimize")]:
            trains = getattr(part.plugin, "trains")  # noqa: B009  (only these two kinds have it)
            if not issubclass(policy.plugin, trains):
                fitting = self.installed(part.kind, lambda plugin: issubclass(policy.plugin, plugin.trains))
                yield Problem(
                    self.where(part.loc),
                    f"{part.place}: `{part.use.use}` trains policies of the class {trains.__name__}, "
                    f"and {self.named(policy)} is none.",
                    installed_remedy(f"{part.kind.replace('_', ' ')} that train it", fitting),
                )

    def _feedback(self) -> Iterator[Problem]:
        givers = [
            *(_Giver(part, frozenset(declared(part, "yields", part.config))) for part in self.under("data")),
            *(_Giver(part, frozenset(part.plugin.yields)) for part in self.under("ask", "annotators")),  # type: ignore[attr-defined]
        ]
        converters = self.under("ask", "convert")
        supply = self._converted(givers, converters)
        for part in converters:
            takes = frozenset(part.plugin.takes)  # type: ignore[attr-defined]
            given = self._converted(givers, converters[: converters.index(part)])
            if not takes & given:
                yield Problem(
                    self.where(part.loc),
                    f"{part.place}: `{part.use.use}` converts {words(names_of(takes))}, and nobody gives any.",
                    f"There are {words(names_of(given))}." if given else "",
                )
        for learner, kinds in self._learners():
            # Demonstrations may also come from the data, which does not announce them.
            wanted = kinds - {Demonstration}
            if wanted and not wanted & supply:
                yield self._hungry(learner, wanted, givers, supply)

    def _learners(self) -> Iterator[tuple[ChosenPlugin, Kinds]]:
        """Who may learn from feedback, and of which kinds."""
        for part in [*self.under("reward"), *self.under("gold")]:
            yield part, frozenset(part.plugin.learns_from)  # type: ignore[attr-defined]
        for part in self.under("optimize"):
            reward = self.pipeline.reward is not None
            yield part, frozenset(declared(part, "feedback_wanted", reward=reward))

    def _converted(self, givers: list[_Giver], converters: list[ChosenPlugin]) -> Kinds:
        """What there is to learn from once the converters have been through it."""
        supply = usable_as(kind for giver in givers for kind in giver.yields)
        for part in converters:
            if frozenset(part.plugin.takes) & supply:  # type: ignore[attr-defined]
                supply = usable_as(supply | frozenset(part.plugin.yields))  # type: ignore[attr-defined]
        return supply

    def _hungry(self, learner: ChosenPlugin, wanted: Kinds, givers: list[_Giver], supply: Kinds) -> Problem:
        """The problem that nothing of what `learner` wants is given."""
        learns = f"{learner.place}: `{learner.use.use}` learns from {words(names_of(wanted), 'or')}"
        giving = [giver for giver in givers if giver.yields]
        annotators = [giver for giver in givers if giver.part.kind == "annotators"]
        if len(annotators) == 1 and giving == annotators:
            clause = (
                f"but the only annotator, {self.named(giving[0].part)}, yields {words(names_of(giving[0].yields))}."
            )
        elif giving:
            clauses = [f"{self.named(giver.part)} yields {words(names_of(giver.yields))}" for giver in giving]
            clause = f"but {words(clauses)}."
        else:
            clause = "but the data brings no feedback" + (
                ", and there is no `ask:` section." if self.pipeline.ask is None else " and no annotator yields any."
            )
        askable = self.installed("annotators", lambda plugin: bool(usable_as(plugin.yields) & wanted))
        remedies = []
        converting = self.installed("converters", lambda plugin: _turns(plugin, supply, wanted))
        if converting and self.pipeline.ask is not None:
            names = " or ".join(f"`ask.convert: {{use: {name}}}`" for name in converting)
            remedies.append(f"Convert them with {names}.")
        remedies += [installed_remedy(f"annotators that yield {words(names_of(wanted), 'or')}", askable)]
        if supply:
            learning = self.installed(learner.kind, lambda plugin: bool(frozenset(plugin.learns_from) & supply))
            kinds = f"{learner.kind.replace('_', ' ')} that learn from {words(names_of(supply), 'or')}"
            remedies.append(installed_remedy(kinds, learning))
        return Problem(self.where(learner.loc), f"{learns}, {clause}", " ".join(remedies))

    def _gate(self) -> Iterator[Problem]:
        gate = self.at("gate")
        evaluators = self.under("evaluate")
        produced = {name for part in evaluators for name in declared(part, "produces", part.config)} | STAGE_METRICS
        needed = frozenset(declared(gate, "needs", gate.config))
        if self.pipeline.reward is None:
            of_reward = {name for part in evaluators for name in declared(part, "of_reward", part.config)}
            for name in sorted(needed & produced & (of_reward | STAGE_METRICS)):
                yield Problem(
                    self.where(gate.loc),
                    f"{gate.place}: `{gate.use.use}` reads the metric {name}, "
                    "which is measured of a reward model, and the pipeline has no `reward:`.",
                    "Let it read another metric, or add `reward: {use: ...}`.",
                )
            needed -= of_reward | STAGE_METRICS
            produced -= of_reward | STAGE_METRICS
        for name in sorted(needed - produced):
            yield Problem(
                self.where(gate.loc),
                f"{gate.place}: `{gate.use.use}` reads the metric {name}, which nothing under `evaluate:` produces"
                f"{did_you_mean(name, sorted(produced))}",
                installed_remedy(f"evaluators that produce {name}", self._producers(name)),
            )

    def _gold(self) -> Iterator[Problem]:
        if self.pipeline.gold is not None:
            return
        for part in self.all:
            if getattr(part.config, "judge", None) == "gold":
                yield Problem(
                    self.where((*part.loc, "judge")),
                    f"{part.place}: `{part.use.use}` asks the gold judge, but the pipeline names none.",
                    "Add `gold: {use: ...}`, a reward model that training never sees, or choose another judge.",
                )

    def _reward(self) -> Iterator[Problem]:
        return missing_reward(self) if self.pipeline.reward is None else iter(())

    def _steps(self) -> Iterator[Problem]:
        learnt = any(
            kinds for part, kinds in self._learners() if part.kind != "reward_models" or part.loc == ("reward",)
        )
        return misplaced_steps(self, learnt=learnt)

    def _producers(self, metric: str) -> list[str]:
        """Installed evaluators that produce `metric` as they come, without configuration."""
        return self.installed("evaluators", lambda plugin: metric in plugin.produces(plugin.Config()))


def _turns(converter: Any, supply: Kinds, wanted: Kinds) -> bool:
    """Whether `converter` makes something wanted of what there is."""
    return bool(frozenset(converter.takes) & supply and usable_as(converter.yields) & wanted)
