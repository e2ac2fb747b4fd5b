import math

import pytest
import torch

from rlhf_core.errors import TrainingError
from rlhf_core.lm.model import weights_digest
from rlhf_core.records import Answer as Answered
from rlhf_core.records import Demonstration, Message, Prompt, Question
from rlhf_core.run import Run
from rlhf_plugins.policies._streams import row_seed
from rlhf_plugins.policies.causal_lm import CausalLm

SHAPE = {"vocab_size": 320, "layers": 2, "width": 32, "heads": 2}
PROMPTS = [
    Prompt(text=f"Article: the {thing} was approved on Monday.\nHeadline:")
    for thing in ("tram", "zoo", "old town hall")
]
PROMPTS.append(Prompt(messages=(Message(role="user", content="Write a headline about the tram."),)))


def demonstration(prompt, text):
    question = Question(prompt=prompt)
    return Answered(question=question, feedback=Demonstration(question_id=question.id, text=text))


class Notes(Run):
    def __init__(self, **options):
        super().__init__(**options)
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def policy(seed=0, **options):
    made = CausalLm(run=Notes(seed=seed), **{"max_prompt_tokens": 64, "max_new_tokens": 12, "starter": SHAPE} | options)
    made.prepare(PROMPTS, [demonstration(PROMPTS[0], "Tram approved")])
    return made


def test_samples_say_where_they_come_from():
    made = policy()
    made.version, made.round = "abc", 3
    groups = made.sample(PROMPTS, 2, seed=1)
    assert [len(group) for group in groups] == [2] * 4
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for sample in group:
            assert sample.prompt_id == prompt.id
            assert (sample.policy, sample.round) == ("abc", 3)
            assert sample.text == made.lm.decode([sample.tokens])[0]
            assert 1 <= len(sample.tokens) == len(sample.logprobs) <= 12
            assert all(logprob <= 0 for logprob in sample.logprobs)
            assert sample.finished == (sample.tokens[-1] == made.lm.eos_id)


def test_a_sample_is_a_function_of_seed_prompt_and_number():
    made = policy()
    everything = made.sample(PROMPTS, 3, seed=1)
    some = made.sample([PROMPTS[2], PROMPTS[0]], 2, seed=1)
    assert [sample.tokens for sample in some[0]] == [sample.tokens for sample in everything[2][:2]]
    assert [sample.tokens for sample in some[1]] == [sample.tokens for sample in everything[0][:2]]
    in_small_batches = policy(batch_size=2).sample(PROMPTS, 3, seed=1)
    assert [[s.tokens for s in group] for group in in_small_batches] == [[s.tokens for s in g] for g in everything]
    other = made.sample(PROMPTS, 3, seed=2)
    assert [s.tokens for s in other[0]] != [s.tokens for s in everything[0]]
    assert len({sample.tokens for sample in everything[0]}) == 3


def test_row_seeds_are_spread_and_stable():
    seeds = {row_seed(seed, prompt, number) for seed in range(3) for prompt in PROMPTS for number in range(3)}
    assert len(seeds) == 36
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert row_seed(1, Prompt(text="a"), 0) == 14139164884609540398


def test_temperature_reaches_the_sampler():
    cold = policy(temperature=1e-4).sample(PROMPTS[:1], 4, seed=1)[0]
    assert len({sample.tokens for sample in cold}) == 1
    assert sum(cold[0].logprobs) > math.log(0.5)


def test_save_and_load(tmp_path):
    made = policy()
    made.save(tmp_path)
    loaded = CausalLm(starter=SHAPE)
    loaded.load(tmp_path)
    assert weights_digest(loaded.lm) == weights_digest(made.lm)
    assert loaded.sample(PROMPTS, 1, seed=1) == made.sample(PROMPTS, 1, seed=1)


def test_the_runs_seed_makes_the_starter():
    assert weights_digest(policy(seed=1).lm) == weights_digest(policy(seed=1).lm) != weights_digest(policy(seed=2).lm)


def test_a_folder_is_loaded(tmp_path):
    policy().lm.save(tmp_path)
    made = CausalLm(model=str(tmp_path), max_prompt_tokens=20, max_new_tokens=5)
    made.prepare([], [])
    assert CausalLm.reads(made.config) == (tmp_path,)
    assert CausalLm.reads(CausalLm.Config()) == ()
    assert weights_digest(made.lm) == weights_digest(policy().lm)
    assert max(len(sample.tokens) for group in made.sample(PROMPTS, 2, seed=0) for sample in group) <= 5


def test_long_prompts_are_noted_once():
    made = policy(max_prompt_tokens=8)
    made.sample(PROMPTS, 1, seed=0)
    made.sample(PROMPTS, 1, seed=1)
    (note,) = made.run.notes
    assert "max_prompt_tokens (8)" in note
    assert note.endswith(": 4")


def test_damaged_weights_do_not_make_samples():
    made = policy()
    with torch.no_grad():
        next(made.lm.model.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        made.sample(PROMPTS, 1, seed=0)


def test_a_starter_takes_no_adapters():
    with pytest.raises(ValueError, match="drop one"):
        CausalLm.Config(lora={"r": 4})


def test_the_module_is_light():
    import subprocess
    import sys

    program = "import sys, rlhf_plugins.policies.causal_lm as _; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_sampling_options_reach_the_sampler():
    free = policy().sample(PROMPTS[:2], 6, seed=1)
    greedy = policy(top_k=1).sample(PROMPTS[:2], 3, seed=1)
    assert all(len({sample.tokens for sample in group}) == 1 for group in greedy)
    nucleus = policy(top_p=1e-6).sample(PROMPTS[:2], 3, seed=1)
    assert nucleus[0][0].tokens == greedy[0][0].tokens
    assert len({sample.tokens for sample in free[0]}) > 1
    letter = next(c for c in free[0][0].text if c.isascii() and c.isalpha())
    stopped = policy(stop=[letter]).sample(PROMPTS[:2], 6, seed=1)
    for before, after in zip(free[0], stopped[0], strict=True):
        assert after.text == before.text.partition(letter)[0].strip()
        assert after.finished == (before.finished or letter in before.text)
    with pytest.raises(ValueError, match="at least 1 character"):
        policy(stop=[""])
