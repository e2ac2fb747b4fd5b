"""Our losses and advantages against the functions of TRL's own trainers, called on the same numbers."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from rlhf_core.rl.groups import spread_over_tokens, token_weights
from rlhf_core.rl.losses import divergence_loss, policy_loss
from rlhf_core.rl.preferences import dpo_loss, ipo_loss, margins

LIMIT = 9


def numbers():
    random = torch.Generator().manual_seed(5)
    mask = torch.arange(6) < torch.randint(1, 7, (4, 1), generator=random)
    logprobs, old, reference = (-3 * torch.rand(4, 6, generator=random) for _ in range(3))
    return mask, logprobs, old, reference, torch.randn(4, generator=random)


class Accelerator:
    num_processes = 1
    device = "cpu"

    def gather(self, value):
        return value

    def reduce(self, value, reduction):
        return value

    gather_for_metrics = gather


def trainer(logprobs, **settings):
    """What TRL's losses read of their trainer."""
    args = SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1, report_to=[])
    options = {
        "top_entropy_quantile": 1.0, "off_policy_mask_threshold": None, "importance_sampling_level": "token",
        "epsilon_low": 0.2, "epsilon_high": 0.2, "use_vllm": False, "_entropy_bonus_enabled": False,
        "aux_loss_enabled": False, "current_gradient_accumulation_steps": 1, "max_completion_length": LIMIT,
        "accelerator": Accelerator(), "model": SimpleNamespace(training=True), "beta": 0.0,
        "_metrics": defaultdict(lambda: defaultdict(list)), "args": args,
    }  # fmt: skip
    options["_get_per_token_logps_and_entropies"] = lambda *a, **k: (logprobs, torch.zeros_like(logprobs), None)
    options |= settings
    if "delta" in options:
        args.delta = options["delta"]
    return SimpleNamespace(**options)


@pytest.mark.parametrize(("loss_type", "ours"), [("grpo", "answer"), ("dapo", "token"), ("dr_grpo", "limit")])
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_grpo_and_its_normalisations(loss_type, ours, beta):
    from trl import GRPOTrainer

    mask, logprobs, old, reference, advantages = numbers()
    inputs = {
        "prompt_ids": torch.ones(4, 1), "prompt_mask": torch.ones(4, 1), "completion_ids": torch.ones(4, 6),
        "completion_mask": mask.float(), "advantages": advantages, "old_per_token_logps": old,
        "ref_per_token_logps": reference, "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    theirs = logprobs.clone().requires_grad_()
    fake = trainer(theirs, loss_type=loss_type, beta=beta, epsilon_high=0.28)
    expected = GRPOTrainer._compute_loss(fake, None, inputs)
    expected.backward()

    mine = logprobs.clone().requires_grad_()
    tokens, weights = float(mask.sum()), token_weights(mask, ours, LIMIT)
    spread = spread_over_tokens(advantages, mask) * weights
    loss = policy_loss(mine, old, spread, mask, clip=0.2, clip_high=0.28, tokens=tokens).loss
    if beta:
        options = {"estimator": "k3", "weights": beta * weights, "tokens": tokens}
        loss = loss + divergence_loss(mine, reference, mask, **options)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(mine.grad, theirs.grad)


def test_the_dual_clip_where_all_advantages_are_negative():
    """TRL's `delta` caps the ratio itself, which is the same thing there."""
    from trl import GRPOTrainer

    mask, logprobs, old, _, advantages = numbers()
    advantages = -advantages.abs()
    inputs = {
        "prompt_ids": torch.ones(4, 1), "prompt_mask": torch.ones(4, 1), "completion_ids": torch.ones(4, 6),
        "completion_mask": mask.float(), "advantages": advantages, "old_per_token_logps": old,
        "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    expected = GRPOTrainer._compute_loss(trainer(logprobs, loss_type="dapo", delta=1.5), None, inputs)
    spread = spread_over_tokens(advantages, mask)
    result = policy_loss(logprobs, old, spread, mask, clip=0.2, dual_clip=1.5, tokens=float(mask.sum()))
    torch.testing.assert_close(result.loss, expected)
    plain = policy_loss(logprobs, old, spread, mask, clip=0.2, tokens=float(mask.sum()))
    assert plain.loss > result.loss, "the clip must bite for this test to say anything"


@pytest.mark.parametrize(("name", "wins"), [("dpo", 1.0), ("dpo", 0.8), ("ipo", 1.0)])
def test_preference_losses(name, wins):
    from trl import DPOTrainer

    mask, logprobs, _, reference, _ = numbers()
    if name == "ipo":
        # TRL divides by the answers' lengths, against the paper; at length one that changes nothing.
        mask = torch.arange(6) < torch.ones(4, 1)
    padded = torch.cat([torch.zeros(4, 1, dtype=torch.bool), mask], dim=1).long()
    model = torch.nn.Module()
    model.is_gradient_checkpointing = False
    nothing = torch.zeros(4, 6)

    def outputs(values):
        zeroed = torch.where(mask, values, 0.0)
        return lambda **_: SimpleNamespace(
            log_probs=zeroed, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool()
        )

    smooth = name == "dpo" and wins != 1.0
    fake = trainer(
        logprobs, beta=0.4, model=model, precompute_ref_logps=False, ld_alpha=None, f_divergence_type="reverse_kl",
        loss_types=["robust" if smooth else "sigmoid" if name == "dpo" else "ipo"], loss_weights=[1.0],
        label_smoothing=1 - wins, ref_model=outputs(reference), use_weighting=False, _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    fake.args.gradient_checkpointing_kwargs = None
    inputs = {"input_ids": torch.ones(4, 7).long(), "attention_mask": torch.ones(4, 7), "completion_mask": padded}
    expected = DPOTrainer._compute_loss(fake, outputs(logprobs), inputs, return_outputs=False)
    margin = margins(logprobs, reference, mask)
    if smooth:
        # "robust" is the unbiased form of the smoothed loss: ((1 - e) l(m) - e l(-m)) / (1 - 2 e).
        sure = torch.ones(2)
        mine = (wins * dpo_loss(margin, sure, beta=0.4) - (1 - wins) * dpo_loss(margin, 0 * sure, beta=0.4)) / (
            2 * wins - 1
        )
    else:
        mine = {"dpo": dpo_loss, "ipo": ipo_loss}[name](margin, torch.full((2,), wins), beta=0.4)
    torch.testing.assert_close(mine.mean(), expected.float())
