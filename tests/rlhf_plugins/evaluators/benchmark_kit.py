"""A tiny language-model policy that answers, and log-probabilities computed the plain way."""

from __future__ import annotations

import math

import torch

from rlhf_core.lm.model import LanguageModel
from rlhf_core.lm.starter import Starter, make_starter
from rlhf_core.plugins import EvaluateJob, LanguageModelPolicy
from rlhf_core.records import Sample

TEXTS = [
    "the town council voted on a plan for the old bridge",
    "a storm came over the river and the school closed",
] * 30


def tiny_model(tokens=120):
    shape = Starter(vocab_size=300, layers=1, width=32, heads=2)
    return make_starter(TEXTS, shape=shape, max_prompt_tokens=tokens - 30, max_new_tokens=30, seed=1)


class Speaker(LanguageModelPolicy):
    """A language model that always says what it is told to; `says` maps prompt and number of the sample to a text."""

    def __init__(self, lm: LanguageModel, says=lambda prompt, i: "a plan for the bridge"):
        super().__init__()
        self.lm, self.says = lm, says

    def sample(self, prompts, n, seed):
        return [
            [
                Sample(prompt_id=prompt.id, text=self.says(prompt.content, i), tokens=(5, 6), policy="x")
                for i in range(n)
            ]
            for prompt in prompts
        ]


def job(policy, prompts=(), samples=None, **parts):
    named = {"reference": policy, "reward": None, "gold": None, **parts}
    return EvaluateJob(list(prompts), samples or {"challenger": []}, policy=policy, **named)


def plain_logprob(lm, context, continuation):
    """Sum of log-probabilities of the tokens, one forward pass, without any padding."""
    ids = torch.tensor([[*context, *continuation]])
    with torch.no_grad():
        logits = lm.model(ids).logits[0].double().log_softmax(-1)
    return sum(float(logits[len(context) - 1 + i, token]) for i, token in enumerate(continuation))


def tokens(lm, text):
    return lm.tokenizer(text, add_special_tokens=False)["input_ids"]


def bos(lm):
    return [lm.tokenizer.bos_token_id if lm.tokenizer.bos_token_id is not None else lm.eos_id]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))
