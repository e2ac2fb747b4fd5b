"""Text as an environment that Gymnasium and off-the-shelf agents accept."""

import hashlib

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as check_for_agents

from control_kit import starts
from rlhf_core import Policy, Prompt, RewardModel, Sample, Scores
from rlhf_core.errors import DataError
from rlhf_plugins.control.text_env import HashedWords, TextEnv, continued
from rlhf_plugins.data_sources.newsroom import Newsroom
from rlhf_plugins.newsroom.generator import make_headline
from rlhf_plugins.newsroom.languages import languages
from rlhf_plugins.reward_models.principles import PrinciplesReward


class Archive(Policy):
    """Writes newsroom headlines in a style drawn by lot."""

    styles = ("neutral", "sensational", "one_sided", "false")

    def sample(self, prompts, n, seed):
        return [[self._one(prompt, f"{seed} {prompt.id} {k}") for k in range(n)] for prompt in prompts]

    def _one(self, prompt, key):
        from random import Random

        rng = Random(hashlib.sha256(key.encode()).digest())
        facts = {name: str(value) for name, value in prompt.facts.items()}
        text = make_headline(rng, languages()[facts["language"]], facts, rng.choice(self.styles))
        return Sample(prompt_id=prompt.id, text=text, policy="archive")


class Length(RewardModel):
    def score(self, prompts, samples):
        return Scores([float(len(sample.text)) for sample in samples])


def articles(count=200):
    return list(Newsroom(prompts=count).prompts())


def picking(**options):
    return TextEnv(articles(), PrinciplesReward(), policy=Archive(), **options)


@pytest.mark.parametrize(
    "make",
    [
        picking,
        lambda: picking(turns=3, candidates=2),
        lambda: TextEnv(articles(), PrinciplesReward()),
        lambda: TextEnv(articles(), Length(), turns=2),
    ],
    ids=["one of k", "several turns", "free text", "free text, turns"],
)
def test_gymnasium_accepts_it(make, recwarn):
    check_env(make(), skip_render_check=True)
    assert [str(w.message) for w in recwarn if "observation" in str(w.message)] == []


def test_stable_baselines_accepts_it():
    check_for_agents(picking())


def test_the_reward_is_the_score_of_the_chosen_response():
    env, judge = picking(), PrinciplesReward()
    _, info = env.reset(seed=3)
    candidates, prompt = info["candidates"], env.prompt
    assert len(candidates) == 4 and info["prompt"] == prompt.content
    _, reward, terminated, truncated, info = env.step(2)
    assert (terminated, truncated, info["response"]) == (True, False, candidates[2])
    assert reward == judge.score([prompt], [Sample(prompt_id=prompt.id, text=candidates[2])]).mean[0]


def test_what_an_agent_writes_is_scored():
    env = TextEnv(articles(3), Length(), turns=2, follow_up="Longer!", render_mode="ansi")
    env.reset(seed=0, options={"prompt": 1})
    first = env.prompt
    assert first == articles(3)[1]
    _, reward, terminated, _, _ = env.step("你好 😱 <b>")
    assert (reward, terminated) == (8.0, False)
    assert [m.content for m in env.prompt.messages] == [first.content, "你好 😱 <b>", "Longer!"]
    assert env.prompt.facts == first.facts
    _, reward, terminated, _, _ = env.step("")
    assert (reward, terminated) == (0.0, True)
    assert env.render().endswith("user: Longer!\n")


def test_one_seed_one_course():
    def course(env):
        observations = [env.reset(seed=5)[0]]
        for _ in range(6):
            observation, reward, terminated, _, _ = env.step(1)
            observations += [observation, reward]
            if terminated:
                observations.append(env.reset()[0])
        return observations

    for one, other in zip(course(picking(turns=2)), course(picking(turns=2)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_continuing_a_conversation_adds_to_it():
    twice = continued(continued(Prompt(text="a"), "b", "c"), "d", "e")
    assert [(m.role, m.content) for m in twice.messages] == [
        ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e"),
    ]  # fmt: skip


def test_features_are_bounded_and_tell_shouting_apart():
    rows = HashedWords(32)(["", "Wow! A dog", "WOW! A DOG", "wow a dog"])
    assert rows.shape == (4, 32) and rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [0, 1, 1, 1], rtol=1e-6)
    assert len({row.tobytes() for row in rows}) == 4


def test_an_agent_learns_to_pick_the_best_of_k():
    held_out = list(Newsroom(prompts=200, seed=99).prompts())

    def mean_reward(pick):
        env, rewards, best = TextEnv(held_out, PrinciplesReward(), policy=Archive(), candidates=2), [], []
        judge = PrinciplesReward()
        for number in range(len(held_out)):
            observation, _ = env.reset(seed=number, options={"prompt": number})
            best.append(max(judge.score([env.prompt] * 2, env.written).mean))
            rewards.append(env.step(pick(observation))[1])
        return np.mean(rewards), np.mean(best)

    env = TextEnv(articles(), PrinciplesReward(), policy=Archive(), candidates=2)
    agent = PPO("MlpPolicy", env, n_steps=256, batch_size=64, learning_rate=1e-3, gamma=0.0, seed=1, device="cpu")
    rng = np.random.default_rng(0)
    by_lot, best = mean_reward(lambda _: int(rng.integers(2)))
    agent.learn(6_000)
    learnt, _ = mean_reward(lambda seen: int(agent.predict(seen, deterministic=True)[0]))
    # A third of what a perfect judge would add to picking by lot.
    assert learnt > by_lot + (best - by_lot) / 3


def test_what_it_cannot_be_is_said():
    with pytest.raises(DataError, match="needs prompts"):
        TextEnv([], Length())
    with pytest.raises(DataError, match="all of them texts"):
        TextEnv(starts(), Length())
    with pytest.raises(DataError, match="cannot have 0 turns"):
        TextEnv(articles(1), Length(), turns=0)
    with pytest.raises(DataError, match="1 candidates"):
        TextEnv(articles(1), Length(), policy=Archive(), candidates=1)
    with pytest.raises(DataError, match="render"):
        TextEnv(articles(1), Length(), render_mode="human")

    class Nothing(RewardModel):
        def score(self, prompts, samples):
            return Scores([float("nan")] * len(samples))

    env = TextEnv(articles(1), Nothing())
    env.reset(seed=0)
    with pytest.raises(DataError, match="gave nan to the response 'x'"):
        env.step("x")
