import pytest
import torch
from optimizer_kit import LENGTH, PROMPTS, ShareOfVowels

from rlhf_core.lm.model import LanguageModel
from rlhf_core.lm.starter import Starter, make_starter
from rlhf_core.plugins import OptimizeJob
from rlhf_plugins.policies.causal_lm import CausalLm


@pytest.fixture(scope="session")
def starter(tmp_path_factory):
    """A folder with a tiny, random language model."""
    folder = tmp_path_factory.mktemp("tiny")
    texts = [prompt.text for prompt in PROMPTS]
    shape = Starter(vocab_size=300, layers=1, width=32, heads=2)
    make_starter(texts, shape=shape, max_prompt_tokens=24, max_new_tokens=LENGTH, seed=1).save(folder)
    return folder


@pytest.fixture
def policy(starter):
    """Makes a policy from the tiny model."""

    def make(folder=starter, **config):
        made = CausalLm(max_prompt_tokens=24, max_new_tokens=LENGTH, **config)
        made.lm = LanguageModel.load(folder)
        return made

    return make


@pytest.fixture
def job(policy):
    """Makes a job on fresh copies of the tiny model; fields can be replaced."""

    def make(**fields):
        fields = {"policy": policy(), "reference": policy(), "reward": ShareOfVowels(), "prompts": PROMPTS} | fields
        return OptimizeJob(**fields)

    return make


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny matrices are slower on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
