"""The policy before any feedback, and what any policy answers to the held-out prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rlhf_core.plugins import Policy, WarmStart
from rlhf_core.records import Prompt, Sample
from rlhf_core.records.files import demonstrations_of, prompts_of
from rlhf_flows.stages.artifacts_io import load_policy, save_into, test_prompts, write_samples
from rlhf_flows.stages.context import Outcome, StageContext

EVALUATION_SEED = 20240607
"""One seed for all policies on the held-out prompts, so that they meet the same luck and are comparable."""
SAMPLING_CHUNK = 256
"""Prompts sampled between two signs of progress."""


def warm_start(context: StageContext) -> Outcome:
    """Prepare the policy and, where the pipeline says so, let it imitate the demonstrations."""
    data = context.need("data")
    policy: Policy = context.create("policy")
    demonstrations = demonstrations_of(data, "train")
    policy.prepare(prompts_of(data, "train"), demonstrations)
    metrics = {}
    summary = "as it comes"
    if context.use("warm_start") is not None:
        imitation: WarmStart = context.create("warm_start")
        metrics = imitation.start(policy, demonstrations, demonstrations_of(data, "validation"))
        shown = ", ".join(f"{name} {metric.value:.3g}" for name, metric in metrics.items())
        summary = f"{len(demonstrations):,} demonstrations  {shown}"
    save_into(policy, context.draft / "policy")
    return Outcome(metrics, {"summary": summary})


def sample_test(context: StageContext) -> Outcome:
    """Let one policy answer the held-out prompts."""
    prompts = test_prompts(context)
    policy = load_policy(context, "policy")
    samples = int(context.settings["samples"])
    groups = list(sample_with_progress(context, policy, prompts, samples, EVALUATION_SEED))
    write_samples(context.draft / "samples.jsonl", groups)
    return Outcome(info={"summary": f"{len(prompts)} held-out prompts x {samples} samples"})


def sample_with_progress(
    context: StageContext, policy: Policy, prompts: Sequence[Prompt], n: int, seed: int
) -> Iterator[list[Sample]]:
    """`n` samples of each prompt, drawn in chunks."""
    for start in range(0, len(prompts), SAMPLING_CHUNK):
        chunk = prompts[start : start + SAMPLING_CHUNK]
        yield from policy.sample(chunk, n, seed)
        context.run.progress(start + len(chunk), len(prompts), "prompts sampled")
