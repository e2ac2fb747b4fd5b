"""Language models whose answers can all be listed, so that what an optimizer should reach is known exactly."""

import itertools

import torch

from rlhf_core.lm.logprobs import sequence_logprobs
from rlhf_core.lm.model import LanguageModel
from rlhf_core.plugins import RewardModel, Scores
from rlhf_core.records import Prompt
from rlhf_plugins.policies.causal_lm import CausalLm

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
LETTERS = "abcd"
PROMPT = Prompt(text="a")


def make_policy(length: int, *, peaked: float = 0.1) -> CausalLm:
    """A Llama of a few thousand weights that says at most `length` letters; 0.3 is `peaked`, 0.02 almost uniform."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate([PAD, BOS, EOS, *LETTERS])}, unk_token=PAD))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    words.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token=BOS, eos_token=EOS, pad_token=PAD)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=16, initializer_range=peaked, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    policy = CausalLm(max_prompt_tokens=4, max_new_tokens=length)
    policy.lm = LanguageModel(model, tokenizer, max_prompt_tokens=4, max_new_tokens=length, compute_dtype=torch.float32)
    return policy


class ByText(RewardModel):
    """The reward that `table` gives a text."""

    def __init__(self, table):
        super().__init__()
        self.table = table

    def score(self, prompts, samples):
        return Scores(mean=[self.table(sample.text) for sample in samples])


@torch.no_grad()
def distribution(lm: LanguageModel) -> tuple[list[str], torch.Tensor]:
    """The text and the exact probability of every answer to PROMPT."""
    vocabulary, length = len(lm.tokenizer), lm.max_new_tokens
    others = [token for token in range(vocabulary) if token != lm.eos_id]
    answers = [
        (*start, *end)
        for n in range(length + 1)
        for start in itertools.product(others, repeat=n)
        for end in ([(lm.eos_id,)] if n < length else [()])
    ]
    ids, _ = lm.encode([PROMPT])
    start = ids.shape[1]
    padded = torch.tensor([[*answer, *[lm.pad_id] * (length - len(answer))] for answer in answers])
    own = torch.arange(length) < torch.tensor([len(answer) for answer in answers])[:, None]
    rows = torch.cat([ids.expand(len(answers), -1), padded], dim=1)
    mask = torch.cat([torch.ones(len(answers), start), own], dim=1).long()
    logprobs, _ = sequence_logprobs(lm.model, rows, mask, start)
    probabilities = torch.where(own, logprobs, 0.0).sum(dim=1).double().exp()
    assert abs(float(probabilities.sum()) - 1) < 1e-5
    return lm.decode([list(answer) for answer in answers]), probabilities


def expected(lm: LanguageModel, table) -> float:
    """The exact mean reward of an answer."""
    texts, probabilities = distribution(lm)
    return float((probabilities * torch.tensor([table(text) for text in texts], dtype=torch.float64)).sum())
