"""A causal language model on this machine as the judge: the log-probabilities of A and B, nothing to be parsed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from rlhf_core.lm.dtypes import Dtype
from rlhf_plugins.judging.case import Case, Opinion

if TYPE_CHECKING:
    from rlhf_core.lm.model import LanguageModel

DECIMALS = 4
"""Log-odds are rounded, because the other cases of a batch change the last digits."""


class LocalJudge:
    """Loads the model when it is first asked."""

    form = "letter"

    def __init__(
        self, model: str, principles: str, *, max_tokens: int, batch_size: int, dtype: Dtype, trust_remote_code: bool
    ) -> None:
        self.model, self.principles, self.batch_size = model, principles, batch_size
        self.max_tokens, self.dtype, self.trust_remote_code = max_tokens, dtype, trust_remote_code

    @cached_property
    def lm(self) -> LanguageModel:
        """The model, with frozen weights in the type that it computes in."""
        from rlhf_core.lm.model import LanguageModel

        lm = LanguageModel.from_pretrained(
            self.model, max_prompt_tokens=self.max_tokens, max_new_tokens=2, dtype=self.dtype,
            trust_remote_code=self.trust_remote_code,
        )  # fmt: skip
        lm.model.to(lm.compute_dtype).requires_grad_(False)
        return lm

    def opinions(self, cases: Sequence[Case]) -> list[Opinion]:
        """log P(A) - log P(B) as what the judge says next. A case that is too long for the model has no opinion."""
        from rlhf_plugins.evaluators._likelihood import continuation_scores

        chats = [case.messages(self.principles, self.form) for case in cases]
        contexts = self.lm.format.prompt_tokens(chats)
        fits = [i for i, chat in enumerate(chats) if chat.id not in self.lm.format.cut]
        # The end token is not part of the letter.
        letters = [self.lm.format.answer_tokens([letter] * len(chats), chats) for letter in "AB"]
        asked = [(contexts[i], said[i][:-1]) for i in fits for said in letters]
        scores = continuation_scores(
            self.lm, [context for context, _ in asked], [said for _, said in asked], batch_size=self.batch_size
        )
        opinions = [Opinion(None, f"longer than the judge's {self.max_tokens} tokens")] * len(cases)
        for place, i in enumerate(fits):
            (a, _), (b, _) = scores[2 * place : 2 * place + 2]
            opinions[i] = Opinion(round(a - b, DECIMALS))
        return opinions
