"""The proof, before anything runs, that the parts of a pipeline fit together.

Feedback must reach whoever learns from it, all parts must live in one modality, optimizers must be able to train the
policy, and what a gate reads must be measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from rlhf_core.errors import PluginError
from rlhf_core.pipeline import Pipeline
from rlhf_core.pipeline.config_errors import did_you_mean
from rlhf_core.pipeline.file import LoadedPipeline, Problem
from rlhf_core.pipeline.parts import ChosenPlugin, choose, dotted
from rlhf_core.plugins.base import Plugin
from rlhf_core.plugins.registry import PluginInfo, Registry
from rlhf_core.plugins.slots import Loc
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


class _Broken(Exception):
    """A plugin's own declaration raised."""

    def __init__(self, part: ChosenPlugin, method: str, error: Exception) -> None:
        self.part = part
        self.what = (
            f"{part.place}: `{part.info.name}` of {part.info.distribution} {part.info.version} is broken: "
            f"{method}() raised {type(error).__name__}: {error}"
        )
        super().__init__(self.what)


class _Giver(NamedTuple):
    """A part that brings feedback."""

    part: ChosenPlugin
    yields: Kinds


class _Wiring:
    def __init__(
        self, pipeline: Pipeline, chosen: list[ChosenPlugin], registry: Registry, where: Callable[[Loc], str]
    ) -> None:
        self.pipeline = pipeline
        self.registry = registry
        self.where = where
        self.all = chosen
        self.parts = [part for part in chosen if part.depth == 0]

    def problems(self) -> Iterator[Problem]:
        for rule in (self._modality, self._training, self._feedback, self._gate, self._gold):
            try:
                yield from rule()
            except _Broken as broken:
                yield Problem(self.where(broken.part.loc), broken.what)

    def at(self, *loc: int | str) -> ChosenPlugin:
        return next(part for part in self.parts if part.loc == loc)

    def under(self, *loc: int | str) -> list[ChosenPlugin]:
        return [part for part in self.parts if part.loc[: len(loc)] == loc]

    def _modality(self) -> Iterator[Problem]:
        policy = self.at("policy")
        common = policy.plugin.modality.intersection(*(part.plugin.modality for part in self.all))
        if common:
            return
        # The part that leaves the least choice is what the others are measured by; the policy where it is among those.
        anchor = min([policy, *self.all], key=lambda part: len(part.plugin.modality))
        for part in self.all:
            if not part.plugin.modality & anchor.plugin.modality:
                fitting = self._installed(part.kind, lambda plugin: bool(plugin.modality & anchor.plugin.modality))
                yield Problem(
                    self.where(part.loc),
                    f"{part.place}: `{part.use.use}` works with {_words(part.plugin.modality)}, "
                    f"but {self._named(anchor)} works with {_words(anchor.plugin.modality)}.",
                    _installed_remedy(f"{part.kind.replace('_', ' ')} that work with it", fitting),
                )

    def _training(self) -> Iterator[Problem]:
        policy = self.at("policy")
        for part in [*self.under("warm_start"), *self.under("optimize")]:
            trains = getattr(part.plugin, "trains")  # noqa: B009  (only these two kinds have it)
            if not issubclass(policy.plugin, trains):
                fitting = self._installed(part.kind, lambda plugin: issubclass(policy.plugin, plugin.trains))
                yield Problem(
                    self.where(part.loc),
                    f"{part.place}: `{part.use.use}` trains policies of the class {trains.__name__}, "
                    f"and {self._named(policy)} is none.",
                    _installed_remedy(f"{part.kind.replace('_', ' ')} that train it", fitting),
                )

    def _feedback(self) -> Iterator[Problem]:
        givers = [
            *(_Giver(part, _ask(part, "yields", part.config)) for part in self.under("data")),
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
                    f"{part.place}: `{part.use.use}` converts {_words(_names(takes))}, and nobody gives any.",
                    f"There are {_words(_names(given))}." if given else "",
                )
        learners = [*self.under("reward"), *self.under("gold"), *self.under("optimize")]
        for learner in learners:
            # Demonstrations may also come from the data, which does not announce them.
            wanted = frozenset(learner.plugin.learns_from) - {Demonstration}  # type: ignore[attr-defined]
            if wanted and not wanted & supply:
                yield self._hungry(learner, wanted, givers, supply)

    def _converted(self, givers: list[_Giver], converters: list[ChosenPlugin]) -> Kinds:
        """What there is to learn from once the converters have been through it."""
        supply = usable_as(kind for giver in givers for kind in giver.yields)
        for part in converters:
            if frozenset(part.plugin.takes) & supply:  # type: ignore[attr-defined]
                supply = usable_as(supply | frozenset(part.plugin.yields))  # type: ignore[attr-defined]
        return supply

    def _hungry(self, learner: ChosenPlugin, wanted: Kinds, givers: list[_Giver], supply: Kinds) -> Problem:
        """The problem that nothing of what `learner` wants is given."""
        learns = f"{learner.place}: `{learner.use.use}` learns from {_words(_names(wanted), 'or')}"
        giving = [giver for giver in givers if giver.yields]
        annotators = [giver for giver in givers if giver.part.kind == "annotators"]
        if len(annotators) == 1 and giving == annotators:
            clause = (
                f"but the only annotator, {self._named(giving[0].part)}, yields {_words(_names(giving[0].yields))}."
            )
        elif giving:
            clauses = [f"{self._named(giver.part)} yields {_words(_names(giver.yields))}" for giver in giving]
            clause = f"but {_words(clauses)}."
        else:
            clause = "but the data brings no feedback" + (
                ", and there is no `ask:` section." if self.pipeline.ask is None else " and no annotator yields any."
            )
        askable = self._installed("annotators", lambda plugin: bool(usable_as(plugin.yields) & wanted))
        remedies = []
        converting = self._installed("converters", lambda plugin: _turns(plugin, supply, wanted))
        if converting and self.pipeline.ask is not None:
            names = " or ".join(f"`ask.convert: {{use: {name}}}`" for name in converting)
            remedies.append(f"Convert them with {names}.")
        remedies += [_installed_remedy(f"annotators that yield {_words(_names(wanted), 'or')}", askable)]
        if supply:
            learning = self._installed(learner.kind, lambda plugin: bool(frozenset(plugin.learns_from) & supply))
            kinds = f"{learner.kind.replace('_', ' ')} that learn from {_words(_names(supply), 'or')}"
            remedies.append(_installed_remedy(kinds, learning))
        return Problem(self.where(learner.loc), f"{learns}, {clause}", " ".join(remedies))

    def _gate(self) -> Iterator[Problem]:
        gate = self.at("gate")
        produced = {
            name for part in self.under("evaluate") for name in _ask(part, "produces", part.config)
        } | STAGE_METRICS
        for name in sorted(_ask(gate, "needs", gate.config) - produced):
            yield Problem(
                self.where(gate.loc),
                f"{gate.place}: `{gate.use.use}` reads the metric {name}, which nothing under `evaluate:` produces"
                f"{did_you_mean(name, sorted(produced))}",
                _installed_remedy(f"evaluators that produce {name}", self._producers(name)),
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

    def _producers(self, metric: str) -> list[str]:
        """Installed evaluators that produce `metric` as they come, without configuration."""
        return self._installed("evaluators", lambda plugin: metric in plugin.produces(plugin.Config()))

    def _named(self, part: ChosenPlugin) -> str:
        """`name` (where)."""
        return f"`{part.use.use}` ({self.where(part.loc)})"

    def _installed(self, kind: str, fits: Callable[[Any], bool]) -> list[str]:
        """Names of the installed plugins that fit; broken ones and those that need more configuration are left out."""
        ambiguous = {info for group in self.registry.clashes() for info in group}

        def name(info: PluginInfo) -> str:
            return info.full_name if info in ambiguous else info.name

        found = []
        for info in self.registry.of_kind(kind):
            try:
                plugin: type[Plugin] = self.registry.load(kind, info.full_name)
                if fits(plugin):
                    found.append(name(info))
            except (PluginError, ValueError, NotImplementedError):
                continue
        return sorted(found)


def _ask(part: ChosenPlugin, method: str, config: Any) -> frozenset[Any]:
    """What the plugin declares for its config."""
    try:
        return frozenset(getattr(part.plugin, method)(config))
    except Exception as error:
        raise _Broken(part, method, error) from error


def _turns(converter: Any, supply: Kinds, wanted: Kinds) -> bool:
    """Whether `converter` makes something wanted of what there is."""
    return bool(frozenset(converter.takes) & supply and usable_as(converter.yields) & wanted)


def _names(kinds: Iterable[type[Feedback]]) -> list[str]:
    """`[Comparison, Rating]` as `["comparisons", "ratings"]`."""
    return sorted(f"{kind.__name__.lower()}s" for kind in kinds)


def _words(items: Iterable[str], joint: str = "and") -> str:
    """`a, b and c`."""
    words = sorted(items)
    return f" {joint} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words) or "nothing"


def _installed_remedy(what: str, names: list[str]) -> str:
    return f"Installed {what}: {', '.join(names)}." if names else f"No {what} are installed."
