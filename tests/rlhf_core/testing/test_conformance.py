"""Each point of the conformance kit must catch a plugin that breaks it, and none may trouble one that doesn't."""

from __future__ import annotations

import itertools
import math
import random
import sys
import types

import pytest

from rlhf_core import (
    CONTROL,
    TEXT,
    Annotator,
    Comparison,
    DataSource,
    Decision,
    Evaluation,
    Evaluator,
    Gate,
    LanguageModelPolicy,
    Metric,
    Optimizer,
    PluginConfig,
    Prompt,
    Question,
    Ranking,
    RewardModel,
    Scores,
    Selector,
    WarmStart,
)
from rlhf_core.errors import TrainingError
from rlhf_core.metrics import bootstrap
from rlhf_core.records import Answer, Rating
from rlhf_core.testing import conformance
from rlhf_core.testing.conformance import check_plugin
from rlhf_core.testing.materials import ToyPolicy, ToyReward

counter = itertools.count()


@pytest.fixture(autouse=True)
def _no_processes(request, monkeypatch):
    """Whether importing is light is tried in a process of its own, which only the test about it needs."""
    if request.node.name != "test_heavy_imports_are_found":
        monkeypatch.setattr(conformance, "GENERAL", [p for p in conformance.GENERAL if p.__name__ != "imports_lightly"])


def points(plugin, **options):
    findings = check_plugin(plugin, **options)
    return {finding.point for finding in findings if not finding.skipped}


class Shouting(Annotator):
    """Prefers fewer capital letters."""

    yields = {Comparison}

    class Config(PluginConfig):
        tolerance: float = 0.02
        """Ties below."""

    def annotate(self, questions):
        for question in questions:
            shares = [sum(map(str.isupper, s.text or "")) / max(len(s.text or ""), 1) for s in question.samples]
            yield question.compare([-x for x in shares], tie_below=self.config.tolerance)


class Steps(RewardModel):
    """Learns the mean length of the better samples."""

    learns_from = {Comparison}
    best = 0.0

    def fit(self, job):
        pairs = job.train.pairs()
        better = [pair.first if pair.probability > 0.5 else pair.second for pair in pairs]
        self.best = sum(size(sample) for sample in better) / len(better)
        return {"reward_accuracy": Metric(value=1.0)}

    def score(self, prompts, samples):
        return Scores([-abs(size(sample) - self.best) for sample in samples], spread=[0.0] * len(samples))

    def save(self, folder):
        (folder / "best.txt").write_text(repr(self.best))

    def load(self, folder):
        self.best = float((folder / "best.txt").read_text())


def size(sample):
    return float(len(sample.text)) if sample.text is not None else sample.trajectory.observations[-1][1]


class Numbers(DataSource):
    """Numbers."""

    modality = TEXT

    @classmethod
    def yields(cls, config):
        return {Rating}

    def prompts(self):
        return (Prompt(text=f"Name the number {i}") for i in range(3))

    def feedback(self):
        from rlhf_core import Sample

        for prompt in self.prompts():
            question = Question(prompt=prompt, samples=(Sample(prompt_id=prompt.id, text="one"),))
            yield Answer(question=question, feedback=question.rate(0, 3))


class Shortest(Selector):
    """Any two."""

    def select(self, candidates, budget, reward):
        return [Question(prompt=p, samples=tuple(s[:2]), reason="first two") for p, s in candidates[:budget]]


class Lengths(Evaluator):
    """Length."""

    @classmethod
    def produces(cls, config):
        return {"length"}

    def evaluate(self, job):
        means = [sum(map(size, samples)) / len(samples) for samples in job.samples["challenger"]]
        return Evaluation({"length": bootstrap(means)}, {"rows": [{"a": 1}]})


class Always(Gate):
    """Promotes."""

    @classmethod
    def needs(cls, config):
        return {"length"}

    def decide(self, challenger, champion):
        return Decision(promote=True, reasons=(f"length {challenger['length']}",))


class Look(Optimizer):
    """Looks at the reward."""

    def optimize(self, job):
        samples = [several[0] for several in job.policy.sample(job.prompts, 1, seed=1)]
        scores = job.reward.score(job.prompts, samples).mean
        if not all(map(math.isfinite, scores)):
            raise TrainingError("no numbers")
        return {"reward": Metric(value=sum(scores))}


class Count(WarmStart):
    """Counts."""

    def start(self, policy, demonstrations, validation):
        return {"n": Metric(value=len(demonstrations))}


class Trains(Optimizer):
    """Needs a language model."""

    trains = LanguageModelPolicy


GOOD = [Shouting, Steps, Numbers, Shortest, Lengths, Always, Look, Count, ToyPolicy, ToyReward]


@pytest.mark.parametrize("plugin", GOOD)
def test_good_plugins_have_no_findings(plugin):
    assert check_plugin(plugin) == []


@pytest.mark.parametrize("plugin", [Steps, Shortest, Lengths, Look, Count, ToyPolicy, ToyReward])
def test_and_none_in_the_other_world(plugin):
    """The same contracts hold for episodes of an environment."""
    assert check_plugin(type(plugin.__name__, (plugin,), {"__doc__": "x", "modality": CONTROL})) == []


def broken(base, **changes):
    """A subclass of `base` with something replaced."""
    return type("Broken", (base,), {"__doc__": "Broken.", "__module__": "__main__", **changes})


def undocumented():
    class Config(PluginConfig):
        secret: int = 1

    return broken(Shouting, Config=Config, annotate=lambda self, questions: iter(()))


def once(items):
    """Yields different things each time."""
    return lambda self, *a: iter(items(next(counter)))


def dice(self, questions):
    for question in questions:
        yield question.compare([random.random(), random.random()])


def by_batch(self, questions):
    for place, question in enumerate(questions):
        yield question.compare([place % 2, 0.5])


def chatty(self, questions):
    for question in questions:
        for who in "abc":
            yield question.compare([1, 0], annotator=who)


def stranger(self, questions):
    for question in questions:
        yield Comparison(question_id=question.id, first="x", second=question.samples[1].id, choice="first")


def wrong_question(self, questions):
    for question in questions:
        yield question.compare([1, 0]).model_copy(update={"question_id": "nobody's"})


def pickled(self, folder):
    Steps.save(self, folder)
    (folder / "model.pkl").write_bytes(b"")


def two_fits(self, job):
    self.best = next(counter)
    return {}


def by_place(self, prompts, samples):
    return Scores([float(place) for place in range(len(samples))])


def without_reason(self, candidates, budget, reward):
    return [q.model_copy(update={"reason": ""}) for q in Shortest.select(self, candidates, budget, reward)]


def nan_metric(self, job):
    return Evaluation({"length": Metric(value=float("nan"))})


@pytest.mark.parametrize(
    ("plugin", "point"),
    [
        (undocumented(), "is documented"),
        (broken(Shouting, __doc__=None), "is documented"),
        (broken(Shouting, modality=frozenset({"video"})), "declares its modality"),
        (broken(Shouting, yields={Ranking}), "answers what was asked"),
        (broken(Shouting, yields=set()), "answers what was asked"),
        (broken(Shouting, annotate=stranger), "answers what was asked"),
        (broken(Shouting, annotate=wrong_question), "answers what was asked"),
        (broken(Shouting, annotate=chatty), "answers no more than wanted"),
        (broken(Shouting, annotate=dice), "answers the same twice"),
        (broken(Shouting, annotate=by_batch), "answers the same twice"),
        (broken(Steps, score=lambda self, p, s: Scores([1.0])), "scores every sample"),
        (broken(Steps, score=lambda self, p, s: Scores([math.inf] * len(s))), "scores every sample"),
        (broken(Steps, score=lambda self, p, s: Scores([1.0] * len(s), [-1.0] * len(s))), "scores every sample"),
        (broken(Steps, score=lambda self, p, s: Scores([float(len(s))] * len(s))), "scores each sample for itself"),
        (broken(Steps, score=by_place), "scores each sample for itself"),
        (broken(Steps, fit=two_fits), "learns the same twice"),
        (broken(Steps, load=lambda self, folder: None), "reward survives saving"),
        (broken(Steps, save=pickled), "reward survives saving"),
        (broken(Numbers, prompts=once(lambda n: [Prompt(text=f"{n}")])), "reads the same twice"),
        (broken(Numbers, prompts=lambda self: iter(()), feedback=lambda self: iter(())), "brings something"),
        (broken(Numbers, yields=classmethod(lambda cls, config: frozenset())), "brings what it declares"),
        (broken(Numbers, modality=CONTROL), "brings what it declares"),
        (broken(Numbers, demonstrations=Numbers.feedback), "brings what it declares"),
        (broken(Shortest, select=lambda self, c, b, r: []), "selects within budget"),
        (broken(Shortest, select=lambda self, c, b, r: Shortest.select(self, c, 7, r)), "selects within budget"),
        (broken(Shortest, select=lambda self, c, b, r: Shortest.select(self, c, 1, r) * 2), "selects within budget"),
        (broken(Shortest, select=without_reason), "selects within budget"),
        (
            broken(Shortest, select=lambda self, c, b, r: Shortest.select(self, random.sample(list(c), b), b, r)),
            "selects the same twice",
        ),
        (broken(Lengths, produces=classmethod(lambda cls, config: {"width"})), "produces what it declares"),
        (broken(Lengths, evaluate=nan_metric), "produces what it declares"),
        (
            broken(Lengths, evaluate=lambda self, job: Evaluation({"length": Metric(value=1, low=2, high=3)})),
            "produces what it declares",
        ),
        (
            broken(Lengths, evaluate=lambda self, job: Evaluation({"length": Metric(value=next(counter))})),
            "measures the same twice",
        ),
        (broken(Always, decide=lambda self, a, b: Decision(promote=True, reasons=())), "decides with reasons"),
        (broken(Always, decide=lambda self, a, b: Decision(promote=a["x"], reasons=("y",))), "decides with reasons"),
        (broken(Look, optimize=lambda self, job: {}), "refuses rewards that are no numbers"),
        (broken(Look, optimize=lambda self, job: {"x": Metric(value=math.nan)}), "optimizes a policy"),
        (broken(Look, optimize=lambda self, job: job.reward.fit(None)), "optimizes a policy"),
        (broken(Count, start=lambda self, p, d, v: {"x": Metric(value=math.inf)}), "starts a policy"),
        (broken(ToyPolicy, sample=lambda self, p, n, seed: ToyPolicy.sample(self, p, 1, seed)), "samples every prompt"),
        (
            broken(ToyPolicy, sample=lambda self, p, n, seed: ToyPolicy.sample(self, p[::-1], n, seed)),
            "samples every prompt",
        ),
        (
            broken(ToyPolicy, sample=lambda self, p, n, seed: ToyPolicy.sample(self, p, n, next(counter))),
            "samples the same twice",
        ),
        (
            broken(ToyPolicy, sample=lambda self, p, n, seed: ToyPolicy.sample(self, p, n, len(p))),
            "samples the same twice",
        ),
        (broken(ToyPolicy, load=lambda self, folder: 1 / 0), "policy survives saving"),
    ],
)  # fmt: skip
def test_broken_plugins_are_caught(plugin, point):
    assert point in points(plugin)


def test_unknown_options_must_be_refused():
    from pydantic import BaseModel

    class Loose(BaseModel):
        """Not a PluginConfig."""

    class Confusing(PluginConfig):
        use: str = "x"
        """Hides the plugin's name."""

    assert "refuses unknown options" in points(broken(Shouting, Config=Loose))
    assert "refuses unknown options" in points(broken(Always, Config=Confusing))


def test_options_are_passed_on_and_checked():
    assert check_plugin(Shouting, tolerance=0.5) == []
    (finding,) = check_plugin(Shouting, tolerence=0.5)
    assert str(finding) == "has a config: tolerence unknown field; did you mean `tolerance`?"


def test_what_needs_a_policy_says_so():
    findings = check_plugin(Trains)
    assert findings
    assert all(finding.skipped and "LanguageModelPolicy" in finding.what for finding in findings)


def test_errors_name_the_line():
    (finding,) = check_plugin(broken(Always, decide=lambda self, a, b: 1 / 0))
    assert finding.what.startswith("ZeroDivisionError: division by zero (")
    assert "test_conformance.py:" in finding.what


def test_what_is_no_plugin():
    (finding,) = check_plugin(dict)
    assert finding.point == "is a plugin"


def test_heavy_imports_are_found(tmp_path, monkeypatch):
    (tmp_path / "heavy_gate.py").write_text(
        "import sys, types\nsys.modules.setdefault('mlflow', types.ModuleType('mlflow'))\n"
        "from rlhf_core import Gate\nclass Heavy(Gate):\n    'Heavy.'\n"
        "    @classmethod\n    def needs(cls, config): return frozenset()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    # The plugin plants an empty module where mlflow is not imported yet; it must not outlive this test.
    monkeypatch.setitem(sys.modules, "mlflow", sys.modules.get("mlflow", types.ModuleType("mlflow")))
    import heavy_gate

    (finding,) = [f for f in check_plugin(heavy_gate.Heavy) if f.point == "imports lightly"]
    assert "mlflow" in finding.what


def test_the_fixture(rlhf_conformance):
    rlhf_conformance(Shouting)
    rlhf_conformance(Trains)  # not tried is no failure
    with pytest.raises(pytest.fail.Exception, match="answers no more than wanted"):
        rlhf_conformance(broken(Shouting, annotate=chatty))
