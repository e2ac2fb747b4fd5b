"""Tiny distributions that nobody in this tree imports: installed by hand, as pip would leave them."""

from __future__ import annotations

import textwrap
from pathlib import Path

SHOUTING = '''
from rlhf_core import Annotator, Comparison, PluginConfig


class Shouting(Annotator):
    """Prefers the sample with fewer capital letters."""

    class Config(PluginConfig):
        """How strict."""

        tolerance: float = 0.02
        """Difference in the share of capitals below which two samples tie."""

    yields = {Comparison}

    def annotate(self, questions):
        for question in questions:
            if len(question.samples) != 2:
                yield question.skip("only pairs")
                continue
            shares = [sum(map(str.isupper, s.text or "")) / max(len(s.text or ""), 1) for s in question.samples]
            yield question.compare(scores=[-x for x in shares], tie_below=self.config.tolerance)
'''

QUIET = '''
from rlhf_core import Comparison, Metric, PluginConfig, RewardModel, Scores


class Quiet(RewardModel):
    """Learns how much capital letters matter."""

    learns_from = {Comparison}

    class Config(PluginConfig):
        """How fast."""

        rate: float = 0.5
        """Change of the weight by each pair."""

    weight = 0.0

    def fit(self, job):
        for pair in job.train.pairs():
            difference = share(pair.first) - share(pair.second)
            self.weight += self.config.rate * (pair.probability - 0.5) * difference
        held_out = [pair for pair in job.validation.pairs() if pair.probability != 0.5]
        right = sum(
            (self.weight * (share(pair.first) - share(pair.second)) > 0) == (pair.probability > 0.5)
            for pair in held_out
        )
        return {"reward_accuracy": Metric(value=right / max(len(held_out), 1), n=len(held_out))}

    def score(self, prompts, samples):
        return Scores([self.weight * share(sample) for sample in samples])

    def save(self, folder):
        (folder / "weight.txt").write_text(repr(self.weight))

    def load(self, folder):
        self.weight = float((folder / "weight.txt").read_text())


def share(sample):
    text = sample.text or ""
    return sum(map(str.isupper, text)) / max(len(text), 1)
'''


def install(
    folder: Path, distribution: str, version: str, entry_points: dict[str, dict[str, str]], modules: dict[str, str]
) -> None:
    """Put a distribution into `folder` as pip does: its modules, and a dist-info that names its entry points."""
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(source).lstrip())
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    groups = [
        f"[rlhf.{kind}]\n" + "".join(f"{name} = {target}\n" for name, target in plugins.items())
        for kind, plugins in entry_points.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups))
    (info / "RECORD").write_text("")


def install_acme(folder: Path) -> None:
    """An annotator and a reward model of another house."""
    install(
        folder,
        "rlhf-acme",
        "1.4",
        {"annotators": {"shouting": "acme_shouting:Shouting"}, "reward_models": {"quiet": "acme_quiet:Quiet"}},
        {"acme_shouting": SHOUTING, "acme_quiet": QUIET},
    )


def install_wreck(folder: Path) -> None:
    """An annotator whose import fails."""
    install(
        folder,
        "rlhf-wreck",
        "0.0.9",
        {"annotators": {"wrecked": "wreck:Wrecked"}, "gates": {"wrecked": "wreck:Gone"}},
        {"wreck": "raise RuntimeError('no licence key')\n"},
    )


def install_rival(folder: Path) -> None:
    """A reward model that is called as one of ours."""
    install(
        folder,
        "rlhf-rival",
        "3.1",
        {"reward_models": {"pairwise": "rival:Pairwise"}},
        {
            "rival": '''
            from rlhf_core import Comparison, RewardModel, Scores


            class Pairwise(RewardModel):
                """All are equal."""

                learns_from = {Comparison}

                def score(self, prompts, samples):
                    return Scores([0.0] * len(samples))
            '''
        },
    )
