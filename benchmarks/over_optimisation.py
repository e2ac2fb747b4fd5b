"""Over-optimisation on the demo's task: does the guard stop in time, and do ensembles help under label noise?

    python benchmarks/over_optimisation.py [--campaigns 10] [--arms single mean ...] [--steps 42] [--flip 0.25]
                                           [--folder .rlhf/over_optimisation] [--figure FILE.svg] [--json]

One small Llama is warm-started on the newsroom's archive once. A campaign draws its own answers of that policy, asks
simulated raters about `--questions` pairs, of which `--flip` are answered the wrong way round, fits reward models of
words to the answers, and optimises a copy of the policy on them by RLOO, without a KL penalty, far past the point where
the judge without noise likes it best. That judge (`gold`) measures every few steps on held-out prompts and is shown to
nobody. The arms of a campaign differ in the reward and in who watches:

    single                the reward is one network, nobody watches
    mean                  ... the mean of an ensemble of five on the same answers
    min                   ... the least of the five (worst-case optimisation)
    uncertainty_weighted  ... their mean less their variance
    caution               as `mean`, with `watch`: the ensemble's mean less its spread
    rater                 as `mean`, with `watch.by`: one more person with values and noise of their own, who rates the
                          answers of each look

A guard caught a campaign if the policy it kept has at least 90 % of the best gold score that the same campaign reached
without it; `gain` asks that of the gain over the warm start, which is harder. Ensembles are compared with the single
network by gold score at equal KL divergence, read off each curve by linear interpolation, with 95 % bootstrap intervals
over campaigns. Curves are fitted as in Gao et al. 2023, R(d) = d (a - b log d) with d = sqrt(KL). Every finished arm is
kept in `--folder`, so that a broken run goes on, and more campaigns join those measured already.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.metrics import Metric, bootstrap
from rlhf_core.plugins import Candidate, FitJob, LanguageModelPolicy, OptimizeJob, RewardModel, Use
from rlhf_core.plugins.registry import Registry
from rlhf_core.records import Answer, Prompt, Sample, content_id
from rlhf_core.rl.overoptimisation import fit_gao
from rlhf_core.run import Run
from rlhf_core.splits import split_of
from rlhf_plugins.annotators.simulated_panel import gumbel, lognormal

DATA = {"use": "newsroom", "prompts": 3000, "demonstrations": 6000}
POLICY = {
    "use": "causal_lm",
    "max_prompt_tokens": 64,
    "max_new_tokens": 24,
    "temperature": 0.8,
    "starter": {"layers": 2, "width": 128, "heads": 4},
}
WARM_START = {"use": "sft", "epochs": 2, "learning_rate": 2e-3}
NETWORK = {"use": "feed_forward", "epochs": 12, "batch": 16}
COPIES = 5
OPTIMIZER = {"use": "rloo", "batch": 8, "answers": 4, "kl": {"coefficient": 0.0}, "checkpoint_every": 1000}
WATCH: dict[str, dict[str, Any]] = {
    "caution": {},
    "rater": {"by": {"use": "callable", "function": "over_optimisation:held_back_rater"}},
}
REWARDS = ("single", "mean", "min", "uncertainty_weighted")
VALIDATION = 60
"""Questions about validation prompts, for early stopping and calibration."""
HELD_OUT = 96
"""Held-out prompts that gold is measured on, one answer each."""
CAUGHT = 0.9
GOLD_STREAM = 17


def held_back_rater(prompt: Prompt, sample: Sample, *, seed: int) -> float:
    """What one person says of an answer who takes no part in training: the judge's points, weighed by values of their
    own, and noise as large as that of the panel's raters."""
    points = _judge().score([prompt], [sample]).criteria
    weighed = sum(lognormal(0.25, seed, "held back", name) * values[0] for name, values in points.items())
    return weighed + 0.3 * gumbel(seed, "held back", prompt.id, sample.text)


@cache
def _judge() -> RewardModel:
    judge: RewardModel = Registry().create("reward_models", Use(use="principles"))
    return judge


class World:
    """What all campaigns share: prompts and the warm-started policy."""

    def __init__(self, folder: Path) -> None:
        self.registry = Registry()
        source = self.registry.create("data_sources", Use(**DATA))
        prompts = list(source.prompts())
        self.prompts = {name: [p for p in prompts if split_of(p) == name] for name in ("train", "validation", "test")}
        self.start = folder / f"warm-start-{content_id([DATA, POLICY, WARM_START])[:12]}"
        if not self.start.exists():
            policy = self.registry.create("policies", Use(**POLICY), Run(0))
            shown = list(source.demonstrations())
            policy.prepare(prompts, shown)
            learn, watch = ([a for a in shown if split_of(a.question.prompt) == s] for s in ("train", "validation"))
            self.registry.create("warm_starts", Use(**WARM_START), Run(0)).start(policy, learn, watch)
            draft = folder / "warm-start-draft"
            draft.mkdir(parents=True, exist_ok=True)
            policy.save(draft)
            draft.rename(self.start)

    def policy(self) -> LanguageModelPolicy:
        """A copy of the warm start."""
        policy: LanguageModelPolicy = self.registry.create("policies", Use(**POLICY))
        policy.load(self.start)
        return policy


class Campaign:
    """One draw of answers, raters and networks."""

    def __init__(self, world: World, seed: int, options: argparse.Namespace) -> None:
        self.world, self.seed, self.options = world, seed, options
        self.reference = world.policy()
        panel = world.registry.create("annotators", Use(use="simulated_panel", flip=options.flip, seed=seed))
        self.train = self._ask(world.prompts["train"], options.questions, panel)
        self.validation = self._ask(world.prompts["validation"], VALIDATION, panel)

    def _ask(self, prompts: Sequence[Prompt], count: int, panel: Any) -> FeedbackSet:
        chosen = np.random.default_rng(self.seed).permutation(len(prompts))[:count]
        asked = [prompts[i] for i in chosen]
        candidates = [
            Candidate(prompt, samples)
            for prompt, samples in zip(asked, self.reference.sample(asked, 2, self.seed), strict=True)
        ]
        by_lot = self.world.registry.create("selectors", Use(use="random"), Run(self.seed))
        questions = by_lot.select(candidates, count, None)
        by_id = {question.id: question for question in questions}
        return FeedbackSet.of(Answer(question=by_id[f.question_id], feedback=f) for f in panel.annotate(questions))

    @cache  # noqa: B019  campaigns are few
    def reward(self, name: str) -> RewardModel:
        """The fitted reward of an arm."""
        use: dict[str, Any] = NETWORK
        if name != "single":
            use = {"use": "ensemble", "copies": COPIES, "members": [NETWORK], "combine": name}
        model: RewardModel = self.world.registry.create("reward_models", Use(**use), Run(self.seed))
        if name in ("min", "uncertainty_weighted"):
            model.models = self.reward("mean").models  # type: ignore[attr-defined]  the same five
        else:
            model.fit(FitJob(train=self.train, validation=self.validation))
        return model

    def run(self, arm: str) -> dict[str, Any]:
        """Optimise once; the measured curve, and the policy that was kept."""
        began = time.perf_counter()
        policy, options = self.world.policy(), self.options
        reward = self.reward(arm if arm in REWARDS else "mean")
        recorder = Recorder(self, policy, reward)
        recorder.measure(0)
        watch = None
        if arm in WATCH:
            watch = {"every": options.every, **copy.deepcopy(WATCH[arm])}
            if "by" in watch:
                watch["by"]["options"] = {"seed": self.seed}
        settings = {**OPTIMIZER, "steps": options.steps, "lr": options.lr, "watch": watch}
        optimizer = self.world.registry.create("optimizers", Use(**settings), recorder)
        optimizer.optimize(OptimizeJob(policy, self.reference, reward, self.world.prompts["train"]))
        return {
            "points": recorder.points,
            "kept": recorder.look(policy),
            "steps": recorder.steps,
            "seconds": time.perf_counter() - began,
        }


class Recorder(Run):
    """Measures the policy every few steps, behind the optimizer's back."""

    def __init__(self, campaign: Campaign, policy: LanguageModelPolicy, reward: RewardModel) -> None:
        super().__init__(campaign.seed)
        self.campaign, self.model, self.reward = campaign, policy, reward
        self.points: list[dict[str, Any]] = []
        self.steps = 0

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """After a step; a guard's last look learns nothing and has no `seconds`."""
        if "seconds" in metrics:
            self.steps = step + 1
            if self.steps % self.campaign.options.every == 0:
                self.measure(self.steps)

    def measure(self, step: int) -> None:
        """Keep one point of the curve."""
        self.points.append({"step": step, **self.look(self.model)})

    def look(self, policy: LanguageModelPolicy) -> dict[str, Any]:
        """KL divergence from the warm start in nats an answer, gold and proxy score, and what ensembles say of it."""
        from rlhf_plugins.optimizers.text.measure import measure

        prompts = self.campaign.world.prompts["test"][:HELD_OUT]
        found = measure(
            policy,
            self.campaign.reference,
            self.reward,
            prompts,
            temperature=policy.temperature,
            size=None,
            seed=self.seed,
            stream=GOLD_STREAM,
            when="a measurement",
        )
        gold = _judge().score(prompts, found.samples).mean
        values: dict[str, Any] = {"gold": float(np.mean(gold))}
        values |= {"kl": found.metrics["kl"].value, "proxy": found.metrics["reward"].value}
        scores = self.reward.score(prompts, found.samples)
        if scores.spread is not None:
            values |= {"spread": float(np.mean(scores.spread)), "members": np.mean(scores.members, axis=1).tolist()}
        return values


def measured(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Every arm of every campaign, from the folder where it is there already."""
    world: World | None = None
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in options.arms}
    setting = {name: getattr(options, name) for name in ("questions", "flip", "steps", "every", "lr")}
    for seed in range(options.first, options.first + options.campaigns):
        campaign: Campaign | None = None
        for arm in options.arms:
            what = [DATA, POLICY, WARM_START, NETWORK, COPIES, OPTIMIZER, WATCH.get(arm), HELD_OUT, setting, arm, seed]
            place = options.folder / f"{arm}-{seed}-{content_id(what)[:12]}.json"
            if not place.exists():
                world = world or World(options.folder)
                campaign = campaign or Campaign(world, seed, options)
                place.write_text(json.dumps(campaign.run(arm)) + "\n", encoding="utf-8")
            run = json.loads(place.read_text(encoding="utf-8"))
            best = max(run["points"], key=lambda point: point["gold"])
            print(
                f"campaign {seed}  {arm:22} {run['steps']:3} steps  gold {run['points'][0]['gold']:.2f}, "
                f"best {best['gold']:.2f} at {best['kl']:.1f} nats, kept {run['kept']['gold']:.2f} at "
                f"{run['kept']['kl']:.1f} nats  {run['seconds']:.0f} s",
                flush=True,
            )
            found[arm].append(run)
    return found


def guarded(ours: Sequence[dict[str, Any]], free: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What was kept, against the best that the same campaigns had without a guard."""
    rows = []
    for run, other in zip(ours, free, strict=True):
        start, best = other["points"][0]["gold"], max(point["gold"] for point in other["points"])
        kept = run["kept"]["gold"]
        rows.append({"kept": kept, "best": best, "start": start, "share": kept / best})
        rows[-1]["gain"] = (kept - start) / (best - start) if best > start else 1.0
    return {
        "caught": sum(row["share"] >= CAUGHT for row in rows),
        "caught_gain": sum(row["gain"] >= CAUGHT for row in rows),
        "share": bootstrap([row["share"] for row in rows]).model_dump(),
        "kept": bootstrap([row["kept"] for row in rows]).model_dump(),
        "campaigns": rows,
    }


def gold_at(run: dict[str, Any], kl: float) -> float:
    """The gold score where the curve first reaches a divergence; NaN where it never does."""
    points = run["points"]
    for before, after in pairwise(points):
        if before["kl"] <= kl < after["kl"]:
            share = (kl - before["kl"]) / (after["kl"] - before["kl"])
            return float(before["gold"] + share * (after["gold"] - before["gold"]))
    return float("nan")


def at_equal_kl(found: dict[str, list[dict[str, Any]]], levels: Sequence[float]) -> dict[str, dict[str, Any]]:
    """Gold score at each divergence, and how much more than the single network's in the same campaigns."""
    told: dict[str, dict[str, Any]] = {}
    for kl in levels:
        base = [gold_at(run, kl) for run in found["single"]]
        rows: dict[str, Any] = {}
        for arm in (arm for arm in REWARDS if arm in found):
            gold = [gold_at(run, kl) for run in found[arm]]
            both = [(g, b) for g, b in zip(gold, base, strict=True) if np.isfinite(g + b)]
            if len(both) > 1:
                rows[arm] = {
                    "gold": bootstrap([g for g, _ in both]).model_dump(),
                    "more_than_single": bootstrap([g - b for g, b in both]).model_dump(),
                }
        told[f"{kl:g}"] = rows
    best = {arm: [max(p["gold"] for p in run["points"]) for run in found[arm]] for arm in REWARDS if arm in found}
    told["best"] = {
        arm: {
            "gold": bootstrap(values).model_dump(),
            "more_than_single": bootstrap([v - b for v, b in zip(values, best["single"], strict=True)]).model_dump(),
        }
        for arm, values in best.items()
    }
    return told


def draw(path: Path, found: dict[str, list[dict[str, Any]]]) -> None:
    """Gold and proxy gains against sqrt(KL), with the fitted curve; what guards kept; the arms beside one another."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    free = found.get("mean") or next(iter(found.values()))
    for number, run in enumerate(free):
        d, gold = _gains(run, "gold")
        _, proxy = _gains(run, "proxy")
        scale = max(abs(proxy).max(), 1e-9)
        left.plot(d, gold, color="C0", alpha=0.35, lw=1, label="gold" if number == 0 else None)
        left.plot(d, proxy / scale * 2, color="C1", alpha=0.35, lw=1, label="proxy, scaled" if number == 0 else None)
    fitted = fit_gao(*_pooled(free))
    if fitted is not None:
        grid = np.linspace(0.05, max(_gains(run, "gold")[0].max() for run in free), 100)
        left.plot(grid, [fitted.gain(x * x) for x in grid], color="k", lw=2, label="d (a - b log d)")
    for arm, marker in zip(WATCH, "^s", strict=True):
        for number, (run, other) in enumerate(zip(found.get(arm, []), free, strict=False)):
            kept, start = run["kept"], other["points"][0]["gold"]
            label = f"kept by {arm}" if number == 0 else None
            left.plot(max(kept["kl"], 0) ** 0.5, kept["gold"] - start, marker, color="C3", ms=5, alpha=0.7, label=label)
    left.set(xlabel="sqrt(KL)", ylabel="gain over the warm start", title=f"The turn, {len(free)} campaigns")
    for number, arm in enumerate(arm for arm in REWARDS if arm in found):
        runs = found[arm]
        grid = np.linspace(0, min(_gains(run, "gold")[0].max() for run in runs), 40)
        metrics = [bootstrap([gold_at(run, max(x * x, 1e-6)) for run in runs]) for x in grid[:-1]]
        right.plot(grid[:-1], [m.value for m in metrics], color=f"C{number}", lw=2, label=arm)
        low, high = ([getattr(m, end) for m in metrics] for end in ("low", "high"))
        right.fill_between(grid[:-1], low, high, color=f"C{number}", alpha=0.15, lw=0)
    right.set(xlabel="sqrt(KL)", ylabel="gold score", title="Ensembles and a single network, same answers")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def _gains(run: dict[str, Any], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Distances sqrt(KL), and gains over the start there."""
    points = run["points"]
    d = np.sqrt([max(point["kl"], 0.0) for point in points])
    return d, np.array([point[name] - points[0][name] for point in points])


def _pooled(runs: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """KL divergences and gold gains of all runs' points."""
    return (
        [point["kl"] for run in runs for point in run["points"]],
        [gain for run in runs for gain in _gains(run, "gold")[1].tolist()],
    )


def main() -> None:
    """Print a table; with `--json`, one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = [*REWARDS, *WATCH]
    parser.add_argument("--arms", nargs="+", choices=everything, default=everything)
    parser.add_argument("--campaigns", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="the first campaign's seed")
    parser.add_argument("--questions", type=int, default=600, help="pairs that raters are asked about")
    parser.add_argument("--flip", type=float, default=0.25, help="share of the answers that are turned round")
    parser.add_argument("--steps", type=int, default=42, help="optimizer steps without a guard")
    parser.add_argument("--every", type=int, default=3, help="steps between measurements, and between looks")
    parser.add_argument("--lr", type=float, default=4e-4, help="the policy's learning rate")
    parser.add_argument("--levels", type=float, nargs="+", default=[0.5, 1, 2, 3, 4, 8], help="nats to compare at")
    parser.add_argument("--folder", type=Path, default=Path(".rlhf/over_optimisation"), help="for finished work")
    parser.add_argument("--figure", type=Path, help="where to draw the curves")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    found = measured(options)
    told: dict[str, Any] = {"benchmark": "over_optimisation", "campaigns": options.campaigns}
    if "mean" in found:
        told["guards"] = {arm: guarded(found[arm], found["mean"]) for arm in ("mean", *WATCH) if arm in found}
        print(f"\n{'':8} {'within 10 % of best gold':>26} {'of best gain':>14} {'kept / best':>22}")
        for arm, row in told["guards"].items():
            name = "none" if arm == "mean" else arm
            share = Metric(**row["share"])
            print(f"{name:8} {row['caught']:>20} of {options.campaigns:2} {row['caught_gain']:>14} {share!s:>22}")
    if "single" in found:
        told["equal_kl"] = at_equal_kl(found, options.levels)
        print(f"\n{'KL':>5} {'arm':22} {'gold':>22} {'more than single':>24}  campaigns that get there")
        for kl, rows in told["equal_kl"].items():
            for arm, row in rows.items():
                gold, more = Metric(**row["gold"]), Metric(**row["more_than_single"])
                print(f"{kl:>5} {arm:22} {gold!s:>22} {more!s:>24}  {gold.n}")
    curve = {arm: fit_gao(*_pooled(runs)) for arm, runs in found.items() if arm in REWARDS}
    told["fitted"] = {arm: {"a": c.a, "b": c.b, "turn": c.turn} for arm, c in curve.items() if c is not None}
    if options.figure:
        draw(options.figure, found)
    if options.json:
        print(json.dumps(told | {"arms": found}))


if __name__ == "__main__":
    main()
