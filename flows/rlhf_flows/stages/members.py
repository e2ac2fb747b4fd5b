"""Fitting one part of a reward model that is made of several."""

from __future__ import annotations

from rlhf_core.plugins.composite import CompositeRewardModel
from rlhf_flows.stages.artifacts_io import save_into, tuned
from rlhf_flows.stages.context import Outcome, StageContext
from rlhf_flows.stages.join import part_folder
from rlhf_flows.stages.learn import fit_job


def fit_member(context: StageContext) -> Outcome:
    """Fit the part whose number stands in the settings, with the seed that it has in the whole.

    What it says of people it never heard is measured where the parts are joined.
    """
    number = int(context.settings["member"])
    use = tuned(context.needed_use("reward"), context.input("tuning"))
    model: CompositeRewardModel = context.registry.create("reward_models", use, context.run)
    metrics = dict(model.fit_part(number, fit_job(context, use).job))
    save_into(model.part(number), part_folder(context.draft))
    shown = ", ".join(f"{name} {metric}" for name, metric in list(metrics.items())[:2])
    return Outcome(metrics, {"summary": f"member {number}: {shown or 'fitted'}"})
