"""A transformer with a head for each criterion, whose predictions are weighed into one reward."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from rlhf_core.errors import DataError
from rlhf_core.metrics import Metric
from rlhf_core.plugins import FitJob
from rlhf_core.records import Comparison, Prompt, Ranking, Rating, Sample
from rlhf_plugins.reward_models._transformer import TransformerConfig, TransformerReward

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rlhf_core.feedback.dataset import FeedbackSet
    from rlhf_plugins.reward_models._objectives import Ratings

    Floats = NDArray[np.float64]

GATE = "gate.safetensors"


class RatedOnCriteria(NamedTuple):
    """A sample with its mean rating on each criterion that somebody rated."""

    prompt: Prompt
    sample: Sample
    scores: dict[str, tuple[float, int]]
    """Criterion -> mean in [0, 1], number of ratings."""


class MultiObjective(TransformerReward):
    """One head a criterion, learnt from ratings; the reward is their weighted sum.

    `criteria` holds the predicted ratings in [0, 1]. The weights are fixed, or come from a gate that looks at the
    prompt (Wang et al. 2024, "Interpretable Preferences via Multi-Objective Reward Modeling and Mixture-of-Experts"):
    what matters in an answer depends on what was asked. The gate is learnt from preferences: from comparisons and
    rankings, and from the ratings on `overall`.
    """

    learns_from = frozenset({Rating, Comparison, Ranking})
    description = "multi_objective.json"
    remedy = "Ask annotators who rate samples on named criteria, or bring data that does."

    class Config(TransformerConfig):
        """Which criteria, and how they are weighed."""

        criteria: tuple[str, ...] = ()
        """The criteria to learn. Left out: all that somebody rated, but `overall`."""
        combine: Literal["fixed", "gated"] = "fixed"
        """`fixed`: by `weights`. `gated`: by weights that depend on the prompt, learnt from preferences."""
        weights: dict[str, float] = {}
        """Weight of each criterion for `fixed`; 1 for those left out. They are divided by the sum of their sizes."""
        overall: str = "overall"
        """The criterion that means all in all: preferences for the gate, no head of its own unless it is alone."""
        gate_decay: float = Field(1e-2, ge=0)
        """Penalty on the squared weights of the gate: the larger, the less it depends on the prompt."""

    def set_up(self) -> None:
        """No criteria before `fit` or `load`."""
        super().set_up()
        self.criteria: tuple[str, ...] = ()
        self.gate: Any = None

    def _items(self, feedback: FeedbackSet) -> list[RatedOnCriteria]:
        rated: dict[str, RatedOnCriteria] = {}
        for one in feedback.ratings():
            item = rated.setdefault(one.sample.id, RatedOnCriteria(one.prompt, one.sample, {}))
            item.scores[one.criterion] = (one.score, one.n)
        return [rated[name] for name in sorted(rated)]

    def _start(self, job: FitJob, items: Sequence[Any] = ()) -> None:
        found = sorted({name for item in items for name in item.scores})
        wanted = self.config.criteria or tuple(name for name in found if name != self.config.overall) or tuple(found)
        if missing := [name for name in (*wanted, *self.config.weights) if name not in found]:
            raise DataError(
                f"nobody rated the criterion `{missing[0]}`",
                where="reward: multi_objective",
                remedy=f"Rated are: {', '.join(found) or 'none'}.",
            )
        self.criteria, self.gate = tuple(wanted), None
        super()._start(job, items)

    def _outputs(self, items: Sequence[Any]) -> int:
        return len(self.criteria)

    def _objective(self, items: Sequence[Any]) -> Ratings:
        import numpy as np

        from rlhf_plugins.reward_models._learning import Asked, text_of
        from rlhf_plugins.reward_models._objectives import Ratings

        stated = np.full((len(items), len(self.criteria)), np.nan)
        weight = np.zeros_like(stated)
        for i, item in enumerate(items):
            for j, name in enumerate(self.criteria):
                if name in item.scores:
                    stated[i, j], weight[i, j] = item.scores[name]
        rows = self._rows([Asked(item.prompt, [text_of(item.sample, self)]) for item in items])
        return Ratings(rows, stated, weight)

    def _learn_more(self, job: FitJob) -> None:
        """The gate, on the frozen network."""
        import numpy as np

        from rlhf_plugins.reward_models._gate import Gate, Gated

        if self.config.combine == "fixed":
            return
        overall = [pair for pair in self._preferences(job.train) if pair.probability != 0.5]
        if not overall:
            self.run.note("no preference to learn the gate from: all criteria weigh the same")
            return
        rows = self._pair_rows(overall)
        ratings = self._ratings(self._valuer.score(rows))
        self.gate = Gate.fit(
            self._valuer.prompt_states(rows),
            ratings[0::2] - ratings[1::2],
            np.array([pair.probability for pair in overall]),
            np.array([pair.weight for pair in overall]),
            decay=self.config.gate_decay,
        )
        self._valuer = Gated(self._valuer, self.gate)

    def _preferences(self, feedback: FeedbackSet) -> list[Any]:
        """What is better all in all; where nobody said so, on any criterion."""
        from rlhf_core.feedback.dataset import FeedbackSet

        def counts(answer: Any) -> bool:
            given = answer.feedback
            return given.criterion == self.config.overall if isinstance(given, Rating) else True

        overall = FeedbackSet(answer for answer in feedback.answers() if counts(answer))
        return overall.pairs(self.config.tie_below) or feedback.pairs(self.config.tie_below)

    def _reward(self, values: Floats) -> Floats:
        import numpy as np

        ratings = self._ratings(values)
        if self.gate is not None:
            reward: Floats = (ratings * values[:, len(self.criteria) :]).sum(1) * self.gate.scale
            return reward
        weights = np.array([self.config.weights.get(name, 1.0) for name in self.criteria])
        return ratings @ (weights / np.abs(weights).sum())

    def _unit(self, raw: Floats) -> float:
        return float(raw.std()) or 1.0

    def _ratings(self, values: Floats) -> Floats:
        """[A, K] of the criteria alone, also where there is one only."""
        return values[:, None] if values.ndim == 1 else values[:, : len(self.criteria)]

    def _criteria(self, values: Floats) -> dict[str, list[float]]:
        ratings = self._ratings(values)
        return {name: ratings[:, j].tolist() for j, name in enumerate(self.criteria)}

    def _own_metrics(self, items: Sequence[Any], values: Floats) -> dict[str, Metric]:
        """`reward_spearman_CRITERION` of every criterion, on held-out samples that somebody rated on it."""
        import numpy as np

        from rlhf_core.health import rating_health

        found: dict[str, Metric] = {}
        for j, name in enumerate(self.criteria):
            rated = [i for i, item in enumerate(items) if name in item.scores]
            stated = np.array([items[i].scores[name][0] for i in rated])
            prompts = [items[i].prompt.group or items[i].prompt.id for i in rated]
            health = rating_health(self._ratings(values)[rated, j], stated, prompts, seed=self.run.seed)
            if "reward_spearman" in health:
                found[f"reward_spearman_{name}"] = health["reward_spearman"]
        return found

    def save(self, folder: Path) -> None:
        """As any transformer, with the gate beside it."""
        super().save(folder)
        if self.gate is not None:
            self.gate.save(folder / GATE)

    def load(self, folder: Path) -> None:
        """Ready to score."""
        super().load(folder)
        if (folder / GATE).exists():
            from rlhf_plugins.reward_models._gate import Gate, Gated

            self.gate = Gate.load(folder / GATE)
            self._valuer = Gated(self._valuer, self.gate)

    def _more(self) -> dict[str, Any]:
        return {"criteria": list(self.criteria)}

    def _take_more(self, description: dict[str, Any]) -> None:
        self.criteria = tuple(description["criteria"])

    def _words(self) -> str:
        return "ratings"
