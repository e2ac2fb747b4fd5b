"""Sampling by a vLLM server: against a stand-in of its API (see `fake_vllm`), for lack of a GPU."""

import pytest
import torch

from fake_vllm import FakeVllm
from rlhf_core.errors import TrainingError
from rlhf_core.lm.logprobs import sequence_logprobs
from rlhf_core.lm.starter import Starter, make_starter
from rlhf_core.plugins import OptimizeJob, RewardModel, Scores
from rlhf_core.records import Prompt
from rlhf_core.run import Run
from rlhf_plugins.optimizers.grpo import Grpo
from rlhf_plugins.optimizers.ppo import Ppo
from rlhf_plugins.policies.causal_lm import CausalLm

PROMPTS = [Prompt(text=text) for text in ("rain:", "wind and snow:", "very very long hail:", "fog:")]


class ShareOfVowels(RewardModel):
    def score(self, prompts, samples):
        return Scores(mean=[sum(c in "aeiou" for c in s.text) / max(len(s.text), 1) for s in samples])


class Recorder(Run):
    def __init__(self):
        super().__init__()
        self.rows, self.notes = [], []

    def log(self, metrics, step):
        self.rows.append(metrics)

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def base(tmp_path):
    shape = Starter(vocab_size=300, layers=1, width=32, heads=2)
    texts = [prompt.text for prompt in PROMPTS]
    make_starter(texts, shape=shape, max_prompt_tokens=24, max_new_tokens=8, seed=1).save(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def server(base):
    fake = FakeVllm(base)
    yield fake
    fake.close()


@pytest.fixture
def policy(base, server):
    def make(url=server.url, **options):
        made = CausalLm(
            model=str(base), max_prompt_tokens=24, max_new_tokens=8, dtype="float32", lora={"r": 2},
            vllm={"url": url, "connections": 4}, **options,
        )  # fmt: skip
        made.prepare([], [])
        random = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, weight in made.lm.model.named_parameters():
                if "lora_B" in name:
                    weight.copy_(torch.randn(weight.shape, generator=random) / 5)
        return made

    return make


def test_the_server_samples_what_the_policy_would(policy):
    """Its log-probabilities are those of the policy with its adapters, at the temperature of the request."""
    lm = policy().lm
    rolled = lm.rollout(PROMPTS, seeds=[1, 2, 3, 4], temperature=0.7)
    ids = torch.cat([rolled.prompt_ids, rolled.tokens], dim=1)
    mask = torch.cat([rolled.prompt_mask, rolled.mask.long()], dim=1)
    with torch.no_grad():
        ours, _ = sequence_logprobs(lm.model, ids, mask, rolled.prompt_ids.shape[1], 0.7)
    torch.testing.assert_close(torch.where(rolled.mask, ours, 0.0), rolled.logprobs, rtol=1e-4, atol=1e-4)
    assert rolled.mask.any(dim=1).all()
    lengths = rolled.mask.sum(dim=1)
    for row, length in enumerate(lengths.tolist()):
        ended = rolled.tokens[row, length - 1] == lm.eos_id
        assert bool(rolled.finished[row]) == bool(ended)
        assert ended or length == 8


def test_seeds_repeat_and_sampling_options_arrive(policy, server):
    made = policy(temperature=0.5, top_p=0.9, top_k=7, min_new_tokens=2, stop=("x",))
    first = made.sample(PROMPTS, 2, seed=5)
    again = made.sample(PROMPTS, 2, seed=5)
    assert [s.text for group in first for s in group] == [s.text for group in again for s in group]
    assert all(len(s.tokens) >= 2 for group in first for s in group)
    body = next(body for path, body, _ in server.requests if path == "/v1/completions")
    wanted = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_tokens": 2, "stop": ["x"], "max_tokens": 8}
    assert {name: body[name] for name in wanted} == wanted
    assert len({body["seed"] for path, body, _ in server.requests if path == "/v1/completions"}) == 8


def test_training_sends_the_adapters_whenever_they_change(policy, server):
    run = Recorder()
    job = OptimizeJob(policy(), policy(), ShareOfVowels(), PROMPTS)
    options = {"steps": 3, "batch": 4, "minibatches": 1, "lr": 1e-2}
    Ppo(run=run, temperature=0.8, **options).optimize(job)
    loaded = [body["lora_name"] for path, body, _ in server.requests if path == "/v1/load_lora_adapter"]
    # The reference once, for the scale of the reward; the policy as it was before each step.
    assert len(loaded) == len(set(loaded)) == 4
    assert len(server.models) == 2, "older adapters are unloaded"
    assert max(row["logprob_mismatch"] for row in run.rows) < 1e-4
    assert run.rows[0]["kl"] == pytest.approx(0, abs=1e-3)
    assert run.rows[2]["kl"] != pytest.approx(0, abs=1e-3)
    assert not run.notes


def test_an_engine_that_disagrees_is_measured_noted_and_corrected(policy, server):
    server.raw = True
    found = {}
    for correction in (None, 2.0):
        run = Recorder()
        job = OptimizeJob(policy(), policy(), ShareOfVowels(), PROMPTS)
        Grpo(run=run, temperature=0.5, steps=1, batch=4, answers=2, correction=correction).optimize(job)
        found[correction] = run
        assert run.rows[0]["logprob_mismatch"] > 0.1
        assert "sampling and training disagree by" in run.notes[-1]
    assert abs(found[None].rows[0]["ratio"] - 1) > 0.01
    assert found[2.0].rows[0]["ratio"] == pytest.approx(1, abs=1e-3), "the ratio is the trainer's own"


def test_clear_errors(policy, server, base, monkeypatch):
    lm = policy(url="http://127.0.0.1:9").lm
    with pytest.raises(TrainingError, match="no vLLM server answers") as caught:
        lm.rollout(PROMPTS, seeds=range(4))
    assert "vllm serve" in caught.value.remedy
    lm = policy().lm
    server.answer_with = (400, {"error": {"message": "LoRA is not enabled"}})
    with pytest.raises(TrainingError, match=r"refuses /v1/completions with 400: .*LoRA is not enabled"):
        lm.rollout(PROMPTS, seeds=range(4))
    server.answer_with = (200, {"choices": [{"text": "hello", "finish_reason": "stop"}]})
    with pytest.raises(TrainingError, match="no token ids"):
        lm.rollout(PROMPTS, seeds=range(4))
    choice = {"token_ids": [1] * 9, "logprobs": {"token_logprobs": [-1.0] * 9}, "finish_reason": "length"}
    server.answer_with = (200, {"choices": [choice]})
    with pytest.raises(TrainingError, match="gave 9 tokens"):
        lm.rollout(PROMPTS, seeds=range(4))
    with pytest.raises(ValueError, match="add lora, or drop vllm"):
        CausalLm(model=str(base), vllm={"url": "http://127.0.0.1:8000"})


def test_the_token_comes_from_the_environment(policy, server, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    policy().lm.rollout(PROMPTS[:1], seeds=[1])
    assert all(authorization == "Bearer secret" for _, _, authorization in server.requests)
