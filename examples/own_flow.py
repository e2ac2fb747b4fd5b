"""A flow of one's own: two reward models learn from the same answers, and the policy is optimised by their mean.

    python examples/own_flow.py [WORKSPACE]

What is done already is not done again, and a killed run goes on. `docs/flows.md` explains it.
"""

import sys

from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.health import predict, preference_health
from rlhf_flows import Outcome, StageContext, own_flow, save_into

POLICY = {
    "use": "causal_lm", "model": "starter", "max_prompt_tokens": 64, "max_new_tokens": 16,
    "starter": {"layers": 1, "width": 32, "heads": 2},
}  # fmt: skip
GENTLE, BOLD = {"use": "pairwise", "epochs": 1, "lr": 1e-4}, {"use": "pairwise", "epochs": 2, "lr": 1e-3}
GOLD = {"use": "principles"}


def average(context: StageContext) -> Outcome:
    """One reward model of two: the built-in ensemble, whose score is the mean of its members'."""
    both = context.create("reward")
    for number, name in enumerate(("gentle", "bold")):
        both.part(number).load(context.need(name) / "reward")
    pairs = FeedbackSet.open(context.need("snapshot")).split("test").pairs()
    metrics = preference_health(predict(both, pairs)) if pairs else {}
    save_into(both, context.draft / "reward")
    return Outcome(metrics, {"summary": f"accuracy {metrics.get('reward_accuracy', 'unknown')}"})


def main(workspace: str = ".rlhf") -> bool:
    """One round; whether the gate would promote the policy."""
    with own_flow("averaged", seed=3, workspace=workspace) as flow:
        round_ = flow.round(1)
        add = round_.add
        data = add("data", plugins={"data": {"use": "newsroom", "prompts": 160}})
        start = add("warm_start", "start", plugins={"policy": POLICY}, data=data)  # as it comes: nothing is imitated

        asked = add(
            "questions", plugins={"selector": "random"}, settings={"questions": 40, "samples": 2, "overlap": 2},
            data=data, policy=start,
        )  # fmt: skip
        said = add("answers", plugins={"annotator": {"use": "simulated_panel", "raters": 3}}, questions=asked)
        snapshot = add("snapshot", data=data, questions=[asked], answers=[said])

        learnt_from = {"snapshot": snapshot, "base": start}
        gentle = add("reward", "reward_gentle", plugins={"reward": GENTLE}, **learnt_from)
        bold = add("reward", "reward_bold", plugins={"reward": BOLD}, **learnt_from)
        mean = {"use": "ensemble", "members": [GENTLE, BOLD]}
        reward = add(
            average, gives="reward", like="reward", plugins={"reward": mean},
            gentle=gentle, bold=bold, snapshot=snapshot,
        )  # fmt: skip

        policies = {"data": data, "policy": start, "reference": start}
        optimizer = {"use": "ppo", "steps": 4, "batch": 16}
        better = add("optimize", plugins={"optimizer": optimizer}, reward=reward, **policies)

        size = {"prompts": 12, "samples": 2}
        before = add("samples", "samples_before", settings=size, data=data, policy=start)
        after = add("samples", "samples_after", settings=size, data=data, policy=better)
        seen = {"samples_challenger": after, "samples_champion": before, "samples_warm_start": before}
        found = add(
            "evaluate", plugins={"evaluator": {"use": "win_rate", "judge": "gold"}, "gold": GOLD}, settings=size,
            reward=reward, **{**policies, "policy": better}, **seen,
        )  # fmt: skip
        gate = add("gate", plugins={"gate": {"use": "better", "win_rate": 0.5}}, policy=better, challenger=[found])

        decision = flow.run(round_)[gate.stage]
        return bool(decision.info["promote"])


if __name__ == "__main__":
    promoted = main(*sys.argv[1:])
    print("promote" if promoted else "keep the policy as it is")  # noqa: T201
