"""Quality against time: the gold score of every optimizer's policy by the seconds that it trained, ours and TRL's.

    python benchmarks/quality.py [--optimizers ppo rloo ... trl_kto] [--seeds 3] [--seconds 25] [--looks 5]
                                 [--cache FOLDER] [--figure quality.png] [--json]

The demo's task. For each seed a starter is warm-started and a ranking reward model is fitted on the answers of five
simulated raters, once, and kept in the cache. Then every optimizer gets both and the same seconds of training: two
short runs measure what it takes to begin and what a step takes, and it is given so many steps as fit, after which its
learning rate is 0. Between steps, with the clock stopped, the policy answers held-out prompts, and the judge, which
neither rewards nor raters are, grades the answers. `seconds_to_trl` is when, on the mean curve of all seeds, one of
ours has the final gold score of TRL's trainer of the same kind. One thread, so that the sides do not differ in how they
use several; the optimizers' settings are those of the demo where they have them, otherwise their own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.metrics import bootstrap
from rlhf_core.plugins import Candidate, FitJob, OptimizeJob, Use
from rlhf_core.plugins.registry import Registry
from rlhf_core.records import Answer, Prompt
from rlhf_core.run import Run
from rlhf_core.splits import split_of

GRADIENT = {"lr": 5e-4, "kl": {"coefficient": 0.1}}
TRL = {"lr": 5e-4, "beta": 0.1}
SETTINGS: dict[str, dict[str, Any]] = {
    "ppo": GRADIENT, "reinforce": GRADIENT, "rloo": GRADIENT, "grpo": GRADIENT, "online_dpo": {}, "best_of_n": {},
    "trl_rloo": TRL, "trl_grpo": TRL, "trl_dpo": {}, "trl_kto": {},
}  # fmt: skip
THEIRS = {"rloo": "trl_rloo", "grpo": "trl_grpo", "online_dpo": "trl_dpo", "ppo": "trl_rloo"}
"""What of TRL's ours is compared with; TRL has no PPO any more, so that PPO meets RLOO."""
LENGTH = {"trl_dpo": "prompts", "trl_kto": "prompts"}
"""The option that says how long to train, where it is not `steps`."""
SHORT = {"steps": (2, 4), "prompts": (32, 96)}
"""Two short runs of each."""


@dataclass(frozen=True)
class Task:
    """What all optimizers get, for one seed."""

    registry: Registry
    policy: Use
    folder: Path
    training: list[Prompt]
    held_out: list[Prompt]
    seed: int

    def load_policy(self) -> Any:
        """The warm-started policy."""
        policy = self.registry.create("policies", self.policy, Run(self.seed))
        policy.load(self.folder / "policy")
        policy.version = "benchmark"
        return policy

    def load_reward(self) -> Any:
        """The fitted reward model."""
        reward = self.registry.create("reward_models", Use(use="ranking"), Run(self.seed))
        reward.load(self.folder / "reward")
        return reward

    def gold(self, policy: Any) -> float:
        """The judge's mean score of the policy's answers to the held-out prompts, with the same luck every time."""
        samples = [answers[0] for answers in policy.sample(self.held_out, 1, 20240607)]
        judge = self.registry.create("reward_models", Use(use="principles"))
        return float(np.mean(judge.score(self.held_out, samples).mean))


class Clock(Run):
    """Counts the seconds of training alone; `look` is called after the steps of `at`, while it stands still."""

    def __init__(self, seed: int, at: set[int], look: Callable[[], float]) -> None:
        super().__init__(seed)
        self.at, self.look = at, look
        self.seconds, self.steps = 0.0, 0
        self.points: list[tuple[float, float]] = []
        self.began = time.perf_counter()

    def stop(self) -> None:
        """Stand still."""
        self.seconds += time.perf_counter() - self.began

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """A step is done."""
        self.stop()
        self.steps += 1
        if self.steps in self.at:
            self.points.append((self.seconds, self.look()))
        self.began = time.perf_counter()


def prepare(options: argparse.Namespace, seed: int) -> Task:
    """Warm start and reward model of one seed, made or found in the cache."""
    registry = Registry()
    source = registry.create(
        "data_sources", Use(use="newsroom", prompts=options.prompts, demonstrations=2 * options.prompts, seed=seed)
    )
    prompts = list(source.prompts())
    parts = {name: [p for p in prompts if split_of(p) == name] for name in ("train", "validation", "test")}
    use = Use(use="causal_lm", model="starter", max_prompt_tokens=64, max_new_tokens=24, temperature=0.8)
    folder = options.cache / f"{options.prompts}-{options.questions}-{seed}"
    task = Task(registry, use, folder, parts["train"], parts["test"][: options.held_out], seed)
    if (folder / "ready").is_file():
        return task
    shown = [answer for answer in source.demonstrations() if split_of(answer.question.prompt) == "train"]
    policy = registry.create("policies", use, Run(seed))
    policy.prepare(parts["train"], shown)
    registry.create("warm_starts", Use(use="sft", epochs=3, learning_rate=1.5e-3), Run(seed)).start(policy, shown, [])
    asked = parts["train"][: options.questions] + parts["validation"][: options.questions // 5]
    groups = policy.sample(asked, 4, seed)
    candidates = [Candidate(prompt, samples) for prompt, samples in zip(asked, groups, strict=True)]
    questions = registry.create("selectors", Use(use="random", width=4), Run(seed)).select(candidates, len(asked), None)
    by_id = {question.id: question.model_copy(update={"wanted": 3}) for question in questions}
    panel = registry.create("annotators", Use(use="simulated_panel", raters=5, seed=seed))
    answers = [Answer(question=by_id[f.question_id], feedback=f) for f in panel.annotate(list(by_id.values()))]
    split = {
        name: FeedbackSet.of(a for a in answers if split_of(a.question.prompt) == name)
        for name in ("train", "validation")
    }
    reward = registry.create("reward_models", Use(use="ranking", epochs=3, batch=12, lr=6e-4), Run(seed))
    reward.fit(FitJob(train=split["train"], validation=split["validation"], base=policy))
    for name, part in (("policy", policy), ("reward", reward)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        part.save(folder / name)
    (folder / "ready").touch()
    return task


def train(task: Task, name: str, length: int, looks: int) -> Clock:
    """One run of `length` steps (or prompts), with its clock."""
    option = LENGTH.get(name, "steps")
    # What is told by steps is logged by steps; TRL's offline trainers take 16 examples a step, kto 4 a prompt.
    steps = length if option == "steps" else max(length * (4 if name == "trl_kto" else 1) // 16, 1)
    policy = task.load_policy()
    # Closer together at the beginning, where most of it happens.
    at = {max(round(steps * ((i + 1) / looks) ** 2), 1) for i in range(looks - 1)}
    clock = Clock(task.seed, at, lambda: task.gold(policy))
    optimizer = task.registry.create("optimizers", Use(use=name, **SETTINGS[name], **{option: length}), clock)
    job = OptimizeJob(policy=policy, reference=task.load_policy(), reward=task.load_reward(), prompts=task.training)
    clock.began = time.perf_counter()
    optimizer.optimize(job)
    clock.stop()
    if looks:
        clock.points.append((clock.seconds, task.gold(policy)))
    return clock


def length_for(task: Task, name: str, seconds: float) -> int:
    """How many steps (or prompts) take so many seconds."""
    first, second = SHORT[LENGTH.get(name, "steps")]
    train(task, name, first, 0)  # whatever is loaded or compiled once
    few, more = (train(task, name, length, 0).seconds for length in (first, second))
    each = max((more - few) / (second - first), 1e-9)
    length = first + (seconds - few) / each
    return max(min(round(length), len(task.training) if name in LENGTH else 10_000), second)


def mean_curve(curves: list[list[tuple[float, float]]], points: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Seconds, and the mean over seeds of the gold score then; as far as all seeds go."""
    seconds = np.linspace(0, min(curve[-1][0] for curve in curves), points)
    return seconds, np.mean([np.interp(seconds, *zip(*curve, strict=True)) for curve in curves], axis=0)


def reached(curves: list[list[tuple[float, float]]], gold: float) -> float | None:
    """Seconds at which the mean curve first has `gold`; None where it never does."""
    seconds, scores = mean_curve(curves)
    above = np.flatnonzero(scores >= gold)
    return float(seconds[above[0]]) if len(above) else None


def draw(curves: dict[str, list[list[tuple[float, float]]]], file: Path) -> None:
    """Mean curves, ours solid and TRL's dashed, with every seed's end as a dot."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    for number, (name, runs) in enumerate(curves.items()):
        seconds, scores = mean_curve(runs)
        colour = f"C{number}"
        axes.plot(seconds, scores, "--" if name.startswith("trl_") else "-", color=colour, label=name)
        ends = [run[-1] for run in runs]
        axes.plot([end[0] for end in ends], [end[1] for end in ends], "o", color=colour, markersize=3)
    axes.set_xlabel("seconds of training, one core")
    axes.set_ylabel("gold score on held-out prompts")
    axes.legend(ncol=2, fontsize="small")
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(file, dpi=150)


def main() -> None:
    """Print a table; with `--json`, one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimizers", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=25.0, help="of training, for every run")
    parser.add_argument("--looks", type=int, default=5, help="gold scores along a run")
    parser.add_argument("--prompts", type=int, default=3000)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--held-out", type=int, default=200, help="prompts that the judge sees answers to")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "rlhf-quality")
    parser.add_argument("--figure", type=Path, help="a picture of the curves")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    curves: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in options.optimizers}
    lengths: dict[str, int] = {}
    for seed in range(options.seeds):
        task = prepare(options, seed)
        start = task.gold(task.load_policy())
        for name in options.optimizers:
            if name not in lengths:
                lengths[name] = length_for(task, name, options.seconds)
            curve = [(0.0, start), *train(task, name, lengths[name], options.looks).points]
            curves[name].append(curve)
            shown = "  ".join(f"{seconds:.0f} s {gold:.2f}" for seconds, gold in curve)
            print(f"seed {seed}  {name:11}{lengths[name]:5} {LENGTH.get(name, 'steps'):8}{shown}", flush=True)
    found: dict[str, Any] = {}
    for name, runs in curves.items():
        final = bootstrap([run[-1][1] for run in runs])
        found[name] = {"final": final.model_dump(), "length": lengths[name], "curves": runs}
        theirs = THEIRS.get(name, "")
        if theirs in curves:
            goal = float(np.mean([run[-1][1] for run in curves[theirs]]))
            seconds, whole = reached(runs, goal), float(np.mean([run[-1][0] for run in curves[theirs]]))
            found[name] |= {"seconds_to_trl": seconds, "trl_seconds": whole}
            words = f"{theirs}'s {goal:.2f} after {'never' if seconds is None else f'{seconds:.1f}'} of {whole:.1f} s"
        else:
            words = ""
        print(f"{name:11} final gold score {final!s:22} {words}")
    if options.figure is not None:
        draw(curves, options.figure)
    if options.json:
        print(json.dumps({"benchmark": "quality", "seconds": options.seconds, "optimizers": found}))


if __name__ == "__main__":
    main()
