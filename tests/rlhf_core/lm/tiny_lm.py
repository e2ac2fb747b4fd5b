"""A language model of a few thousand weights for tests."""

from rlhf_core.lm.model import LanguageModel
from rlhf_core.lm.starter import Starter, make_starter

TEXTS = [
    "Article: the tram line was approved by the senate on Monday.",
    "Headline: Senate approves tram line",
    "文章：市政府周一批准了电车线路。",
    "标题：市政府批准电车线路",
]


def make_tiny(seed: int = 0, max_prompt_tokens: int = 48, max_new_tokens: int = 24, layers: int = 2) -> LanguageModel:
    return make_starter(
        TEXTS,
        shape=Starter(vocab_size=320, layers=layers, width=32, heads=2),
        max_prompt_tokens=max_prompt_tokens,
        max_new_tokens=max_new_tokens,
        seed=seed,
    )
