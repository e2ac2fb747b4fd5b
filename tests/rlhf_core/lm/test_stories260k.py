import re

import pytest
import torch

from rlhf_core.lm.logprobs import sequence_logprobs
from rlhf_core.lm.model import LanguageModel
from rlhf_core.lm.rollout import rollout
from rlhf_core.records import Prompt

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def stories(stories_folder):
    return LanguageModel.from_pretrained(stories_folder, max_prompt_tokens=64, max_new_tokens=120)


def tell(lm, beginnings, **options):
    ids, mask = lm.encode([Prompt(text=beginning) for beginning in beginnings])
    settings = {"max_new_tokens": 60, "eos_id": lm.eos_id, "pad_id": lm.pad_id, "seeds": range(len(beginnings))}
    return rollout(lm.model, ids, mask, **settings | options)


def test_the_vocabulary_is_read_as_sentencepiece_reads_it(stories):
    assert stories.tokenizer.convert_ids_to_tokens(stories.tokenizer.encode("Once upon a time")) == [
        "▁Once", "▁upon", "▁a", "▁time",
    ]  # fmt: skip
    text = 'Lily\'s mum said: "Où est le café?" 北京'
    assert stories.decode([stories.tokenizer.encode(text)]) == [text]
    assert stories.format.joint(Prompt(text="Once")) == "", "the tokenizer brings a space of its own"


def test_it_tells_a_story(stories):
    (text,) = stories.decode(tell(stories, ["Once upon a time"], top_k=1).tokens)
    assert text.startswith(", there was a little girl named Lily. She loved to play")


def test_real_text_is_likely_and_shuffled_text_is_not(stories):
    def perplexity(text):
        ids, mask = stories.encode([Prompt(text=text)])
        with torch.no_grad():
            logprobs, _ = sequence_logprobs(stories.model, ids, mask, 1)
        return float((-logprobs.mean()).exp())

    story = (
        "Once upon a time, there was a little dog named Max. Max loved to play with his ball in the park. "
        "One day, he saw a big cat. The cat was sad, so Max gave the ball to the cat."
    )
    words = story.split()
    assert perplexity(story) < 8
    assert perplexity(" ".join(words[::-1])) > 40


def test_samples_are_mostly_words_of_children(stories):
    rollouts = tell(stories, ["Once upon a time"] * 8, temperature=0.7)
    words = re.findall(r"[a-z]+", " ".join(stories.decode(rollouts.tokens)).lower())
    common = re.findall(r"[a-z]+", "a the and to was he she it they with in of on said had his her day one so that")
    assert len(words) > 200
    assert sum(word in common for word in words) / len(words) > 0.35
    assert len({tuple(row) for row in rollouts.tokens.tolist()}) == 8


def test_saving_and_loading_tell_the_same_story(stories, stories_folder, tmp_path):
    stories.save(tmp_path)
    again = LanguageModel.load(tmp_path)
    first, second = (tell(lm, ["The dog"], top_k=1).tokens.tolist() for lm in (stories, again))
    assert first == second
