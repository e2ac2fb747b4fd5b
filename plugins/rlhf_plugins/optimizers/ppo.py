"""Proximal policy optimisation of a language model: what can be set. The work is done in the modules beside it."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from rlhf_core.metrics import Metric
from rlhf_core.plugins import TEXT, LanguageModelPolicy, OptimizeJob, Optimizer, PluginConfig, Policy
from rlhf_core.records import Modality


class Kl(PluginConfig):
    """How hard the policy is held near the reference."""

    coefficient: float = Field(0.05, ge=0)
    """Reward lost for each nat that an answer diverges from the reference; where it starts, if there is a target."""
    target: float | None = Field(None, gt=0)
    """Divergence in nats an answer that the coefficient is steered to (Ziegler et al. 2019); fixed where none is given.
    """
    horizon: int = Field(640, ge=1)
    """Answers in which the coefficient changes by at most about a fifth; smaller steers faster."""


class Ppo(Optimizer):
    """Proximal policy optimisation (Schulman et al. 2017) for language models (Ziegler 2019, Ouyang 2022, Huang 2024).

    Every step: answer a batch of prompts, score the answers with the reward model and the reference in one pass each,
    fit the values, improve the policy in several epochs of minibatches. Dropout is off everywhere.
    """

    modality: ClassVar[frozenset[Modality]] = TEXT
    trains: ClassVar[type[Policy]] = LanguageModelPolicy

    class Config(PluginConfig):
        """How long, how fast, how far from the reference."""

        steps: int = Field(20, ge=1)
        """Batches of experience to learn from."""
        batch: int = Field(64, ge=1)
        """Prompts a step, each answered once."""
        epochs: int = Field(2, ge=1)
        """Times that the policy goes through each batch."""
        minibatches: int = Field(4, ge=1)
        """Optimizer steps an epoch."""
        micro_batch: int | None = Field(None, ge=1)
        """Answers in one forward pass, where memory is short; changes nothing but rounding. None: a whole minibatch."""
        lr: float = Field(3e-4, gt=0)
        """Learning rate of the policy, falling linearly to 0. 3e-4 suits a few million parameters; take 1e-5 for
        adapters on billions, 1e-6 for all of their weights."""
        kl: Kl = Kl()
        """The divergence from the reference: penalty and target."""
        clip: float = Field(0.2, gt=0)
        """How far the probability ratio of a token may leave 1 before its gradient stops."""
        early_stop_kl: float | None = Field(0.1, gt=0)
        """End the epochs of a step where a minibatch finds the policy this many nats a token from where the step began.
        """
        gamma: float = Field(1.0, ge=0, le=1)
        """Discount a token."""
        lam: float = Field(0.95, ge=0, le=1)
        """Trust in rewards seen (1) against values predicted (0) in generalised advantage estimation."""
        whiten: bool = True
        """Scale the advantages of each batch to mean 0 and variance 1."""
        temperature: float | None = Field(None, gt=0)
        """What logits are divided by, in sampling and in all log-probabilities. None: what the policy answers with."""
        normalise_reward: bool = True
        """Shift and scale the reward so that answers of the reference have mean 0 and standard deviation 1."""
        reward_clip: float | None = Field(10.0, gt=0)
        """Limit of the (normalised) reward in both directions, against outliers."""
        missing_eos_penalty: float = Field(1.0, ge=0)
        """Taken from the (normalised) reward of an answer that was cut at the length limit."""
        value_model: Literal["head", "network"] = "head"
        """`head`: a small network on the reference's hidden states, almost free. `network`: a transformer of its own
        that starts as a copy of the policy; a better critic at twice the time and memory."""
        value_lr: float = Field(1e-3, gt=0)
        """Learning rate of the value model, falling linearly to 0. 1e-3 suits a head; give a network the policy's."""
        value_epochs: int = Field(4, ge=1)
        """Times that the value model goes through each batch."""
        value_clip: float | None = Field(0.2, gt=0)
        """How far a value may move in one step before its gradient stops."""
        max_grad_norm: float = Field(1.0, gt=0)
        """Norm that gradients are clipped to."""
        ptx: float = Field(0.0, ge=0)
        """Weight of imitating demonstrations beside the reward (PPO-ptx); each update sees as many as answers."""
        checkpoint_every: int = Field(5, ge=1)
        """Steps between checkpoints."""

        @model_validator(mode="after")
        def _a_row_in_each_minibatch(self) -> Self:
            if self.minibatches > self.batch:
                raise ValueError(f"{self.minibatches} minibatches of a batch of {self.batch}: some would be empty")
            return self

    def optimize(self, job: OptimizeJob) -> dict[str, Metric]:
        """Train `job.policy` in place, going on from the newest checkpoint.

        The metrics are those of the last batch: proxy `reward`, `kl` to the reference (nats an answer), `eos_rate`,
        `answer_tokens`. Raises TrainingError where rewards, losses or probabilities are not finite (before they reach
        the weights), where there are no prompts, and where `ptx` has nothing to imitate.
        """
        from rlhf_plugins.optimizers._training import Training

        return Training(self.config, self.run, job).train()
