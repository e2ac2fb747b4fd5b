"""What can be set about the shared training step, in the words of the pipeline file. Light: imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlhf_core.plugins import PluginConfig, Use


class Sync(PluginConfig):
    """A reference that follows the policy slowly (TR-DPO's soft and hard updates; Gorbatovski et al. 2024).

    The policy may then go further than a fixed reference lets it, at no greater speed; `kl`, its target and budget
    speak of the reference as it stands. Every round begins again with the pipeline's `reference`.
    """

    every: int = Field(1, ge=1)
    """Steps between moves."""
    alpha: float = Field(0.05, gt=0, le=1)
    """How much of the way to the policy a move goes: small with `every: 1` is an exponential moving average of the
    policy's weights, 1 resets the reference to the policy. Of adapters, each of the two matrices moves by itself."""


class Kl(PluginConfig):
    """How hard the policy is held near the reference."""

    coefficient: float = Field(0.05, ge=0)
    """Reward lost for each nat that an answer diverges from the reference; where it starts, if there is a target."""
    target: float | None = Field(None, gt=0)
    """Divergence in nats an answer that the coefficient is steered to (Ziegler et al. 2019); fixed where none is given.
    """
    horizon: int = Field(640, ge=1)
    """Answers in which the coefficient changes by at most about a fifth; smaller steers faster."""
    budget: float | None = Field(None, gt=0)
    """Divergence in nats an answer at which training ends, whatever steps are left."""
    sync: Sync | None = None
    """Let the reference follow the policy. None: it stays where it is."""


class Watch(PluginConfig):
    """A guard against over-optimisation: the reward is a proxy, and beyond some point only the proxy still rises."""

    every: int = Field(5, ge=1)
    """Steps between looks."""
    answers: int = Field(64, ge=2)
    """Prompts that are answered at each look, always the same ones."""
    by: Annotated[Use | None, Use.of("reward_models")] = None
    """A held-out rater that needs no feedback, e.g. `{use: principles}`. None: the pipeline's own reward less its
    spread, what the members of an ensemble agree on; what all of them are blind to they agree on too, so a rater sees
    the turn that an ensemble misses (`benchmarks/over_optimisation.py`)."""
    caution: float = Field(1.0, ge=0)
    """Standard deviations of the ensemble that are taken off, where no rater is named (Coste et al. 2023)."""
    patience: int = Field(2, ge=0)
    """Looks in a row without a new best after which one more without ends the training."""


class Fsdp(PluginConfig):
    """Fully sharded data parallelism (Zhao et al. 2023), version 2, in the words of accelerate's plugin for it.

    While they sample, processes hold all weights of the policy in the type that it computes in, once, so what each of
    them must have room for are these and its part of the rest. What DeepSpeed calls ZeRO 3 is `{}`, ZeRO 2 is
    `{reshard_after_forward: false}`; DeepSpeed itself is asked for by `accelerate`.
    """

    reshard_after_forward: bool = True
    """Layers give their weights back after the forward pass and gather them again for the backward pass.
    False: they keep them in between; more memory, less to send."""
    transformer_cls_names_to_wrap: tuple[str, ...] = ()
    """Classes of the layers whose weights travel together. Empty: those that the model itself names."""


class Constraint(PluginConfig):
    """A bound on the mean cost of answers: a Lagrange multiplier takes from the reward what costs are too high (Dai et
    al. 2023, "Safe RLHF"), so that it matters as much as it must and no more."""

    by: Annotated[Use | None, Use.of("reward_models")] = None
    """What says how much an answer costs: a fitted `cost`, a `rule` with a word list. None: the pipeline's own reward.
    """
    folder: Path | None = None
    """Where a fitted one was saved."""
    criterion: str = "cost"
    """Which of its criteria is the cost."""
    limit: float = 0.0
    """Mean cost of an answer that is allowed; 0 is where a cost model sees the border of what is unsafe."""
    multiplier: float = Field(1.0, gt=0)
    """The first price of a unit of cost above the limit, in units of the (normalised) reward."""
    rate: float = Field(0.1, gt=0)
    """How fast the price follows; see `rlhf_core.rl.lagrange`."""
    most: float = Field(10.0, gt=0)
    """The highest price, against a bound that cannot be kept."""

    @model_validator(mode="after")
    def _a_folder_has_a_rater(self) -> Self:
        if self.folder is not None and self.by is None:
            raise ValueError("a `folder` needs `by`: which plugin was saved there")
        if self.multiplier > self.most:
            raise ValueError(f"the first multiplier ({self.multiplier:g}) is above the highest ({self.most:g})")
        return self


class Settings(PluginConfig):
    """What every optimizer of a language model asks of its training step."""

    steps: int = Field(20, ge=1)
    """Batches of experience to learn from."""
    batch: int = Field(64, ge=1)
    """Prompts a step."""
    answers: int = Field(1, ge=1)
    """Answers to each prompt of a step."""
    epochs: int = Field(1, ge=1)
    """Times that the policy goes through each batch."""
    minibatches: int = Field(1, ge=1)
    """Optimizer steps an epoch."""
    micro_batch: int | None = Field(None, ge=1)
    """Answers in one forward pass, where memory is short; changes nothing but rounding. None: a whole minibatch."""
    gradient_checkpointing: bool = False
    """Recompute activations instead of keeping them: less memory, a third more time."""
    lr: float = Field(3e-4, gt=0)
    """Learning rate of the policy, falling linearly to 0. 3e-4 suits a few million parameters; take 1e-5 for
    adapters on billions, 1e-6 for all of their weights."""
    kl: Kl = Kl()
    """The divergence from the reference: penalty, target and budget."""
    temperature: float | None = Field(None, gt=0)
    """What logits are divided by, in sampling and in all log-probabilities. None: what the policy answers with."""
    normalise_reward: bool | Literal["running"] = True
    """Shift and scale the reward so that answers of the reference have mean 0 and standard deviation 1; `running`:
    those of the reference and of all batches since."""
    reward_clip: float | None = Field(10.0, gt=0)
    """Limit of the (normalised) reward in both directions, against outliers."""
    missing_eos_penalty: float = Field(1.0, ge=0)
    """Taken from the (normalised) reward of an answer that was cut at the length limit."""
    overlong_margin: int = Field(0, ge=0)
    """Tokens before the length limit over which the missing_eos_penalty fades in, for finished answers too (soft
    overlong punishment; Yu et al. 2025). 0: only cut answers pay."""
    length_penalty: float = 0.0
    """Taken from the (normalised) reward for each token of an answer; below 0 it is a bonus."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Norm that gradients are clipped to."""
    checkpoint_every: int = Field(5, ge=1)
    """Steps between checkpoints."""
    watch: Watch | None = None
    """Looks at the policy with other eyes, keeps the best and stops after the turn. None: trains to the end."""
    constraint: Constraint | None = None
    """A bound on harm that holds while the reward rises."""

    processes: int = Field(1, ge=1)
    """Processes that train together, each on an accelerator of its own (on CPUs, on some of the cores): they share
    out every batch, and the policy becomes what one process would have made of it, up to rounding. Each holds the
    whole model, or with `fsdp` a part of it; the reward is computed by the process that started them."""
    fsdp: Fsdp | None = None
    """Spread the weights, gradients and moments of policy, reference and value model over the processes; `{}` is
    enough. None: every process holds them all."""
    accelerate: Path | None = None
    """Configuration file written by `accelerate config`, for whatever else its launcher should know (GPU ids, several
    machines on one file system, all settings of FSDP and of DeepSpeed); `processes` above 1 overrides its number of
    processes, and `fsdp` what it says of FSDP. With `distributed_type: DEEPSPEED` (the extra `deepspeed`) the stages 1
    to 3 of ZeRO, offloading and what a deepspeed_config_file says are DeepSpeed's; learning rate, clipping, batches and
    number formats stay the pipeline's."""

    @property
    def examples(self) -> int:
        """What a batch is cut into minibatches of: its answers."""
        return self.batch * self.answers

    @model_validator(mode="after")
    def _a_row_in_each_minibatch(self) -> Self:
        if self.minibatches > self.examples:
            raise ValueError(f"{self.minibatches} minibatches of a batch of {self.examples}: some would be empty")
        return self

    @model_validator(mode="after")
    def _a_bound_in_one_process(self) -> Self:
        if self.constraint is not None and (self.processes > 1 or self.accelerate is not None):
            raise ValueError("a constraint is kept by one process: leave `processes` and `accelerate` out")
        return self

    @model_validator(mode="after")
    def _a_prompt_for_each_process(self) -> Self:
        prompts = min(self.batch, self.watch.answers if self.watch is not None else self.batch)
        if self.processes > prompts:
            raise ValueError(f"{self.processes} processes and {prompts} prompts at a time: some would have none")
        return self

    @model_validator(mode="after")
    def _several_to_spread_over(self) -> Self:
        if self.fsdp is not None and self.processes == 1 and self.accelerate is None:
            raise ValueError("fsdp spreads weights over several processes: set processes, too")
        return self


class GradientSettings(Settings):
    """What policy gradients ask besides."""

    clip: float = Field(0.2, gt=0)
    """How far the probability ratio of a token may leave 1 before its gradient stops."""
    clip_high: float | None = Field(None, gt=0)
    """The same above 1 alone, where unlikely tokens shall rise further ("clip-higher"; Yu et al. 2025). None: `clip`.
    """
    dual_clip: float | None = Field(None, gt=1)
    """Ratio beyond which a token with a negative advantage has no gradient either (Ye et al. 2020)."""
    early_stop_kl: float | None = Field(0.1, gt=0)
    """End the epochs of a step where a minibatch finds the policy this many nats a token from where the step began."""
    correction: float | None = Field(None, ge=1)
    """Weigh tokens by how likely they are to the trainer against the sampling engine, at most by this much (truncated
    importance sampling; Yao et al. 2025), at the price of one more forward pass. None: trust the engine's
    log-probabilities; `logprob_mismatch` in the log says whether that is justified."""
    ptx: float = Field(0.0, ge=0)
    """Weight of imitating demonstrations beside the reward (PPO-ptx); each update sees as many as answers."""


class CriticSettings(PluginConfig):
    """What a learnt value model asks."""

    value_model: Literal["head", "adapters", "network"] = "head"
    """`head`: a small network on the reference's hidden states, almost free. `network`: a transformer of its own; a
    better critic at twice the time and memory. `adapters`: such a critic with the memory of adapters, on the base of a
    policy with `lora`."""
    value_start: Literal["policy", "reward"] = "policy"
    """What a `network` or `adapters` begins as: a copy of the policy that values everything at 0, so that the first
    advantages are the rewards themselves; or the reward model (Ouyang et al. 2022), which must be of the same kind and
    read the same tokens. A value model that the last round left goes before both."""
    value_lr: float = Field(1e-3, gt=0)
    """Learning rate of the value model, falling linearly to 0. 1e-3 suits a head; give the others the policy's."""
    value_epochs: int = Field(4, ge=1)
    """Times that the value model goes through each batch."""
    value_clip: float | None = Field(0.2, gt=0)
    """How far a value may move in one step before its gradient stops."""

    @model_validator(mode="after")
    def _a_head_starts_from_nothing(self) -> Self:
        if self.value_start == "reward" and self.value_model == "head":
            raise ValueError("a value_model `head` has nothing of a reward model's: use adapters or network")
        return self
