"""The panel: exact without noise, with each fault measurable, and stable when a rater leaves."""

import math
from collections import Counter
from random import Random

import pytest
from scipy.stats import kstest, spearmanr

from rlhf_core import Comparison, Prompt, Question, Ranking, RewardModel, Sample, Scores, Skip
from rlhf_core.errors import PipelineError
from rlhf_plugins.annotators.simulated_panel import SimulatedPanel, gumbel, uniform
from rlhf_plugins.data_sources.newsroom import Newsroom
from rlhf_plugins.newsroom.generator import make_headline
from rlhf_plugins.newsroom.languages import languages
from rlhf_plugins.reward_models.principles import PrinciplesReward

EXACT = {
    "values_spread": 0.0,
    "temperature": 0.0,
    "flip": 0.0,
    "skip": 0.0,
    "position_bias": 0.0,
    "length_bias": 0.0,
    "tie_below": 0.0,
}


class Says(RewardModel):
    """Scores a text `3.5|whatever` with 3.5."""

    def score(self, prompts, samples):
        return Scores([float(sample.text.split("|")[0]) for sample in samples])


class Remembers(RewardModel):
    """The newsroom's judge, asked once about each sample."""

    def set_up(self):
        self.known = {}
        self.judge = PrinciplesReward()

    def score(self, prompts, samples):
        for prompt, sample in zip(prompts, samples, strict=True):
            if sample.id not in self.known:
                self.known[sample.id] = self.judge.score([prompt], [sample])
        each = [self.known[sample.id] for sample in samples]
        names = list(each[0].criteria)
        return Scores([s.mean[0] for s in each], None, {name: [s.criteria[name][0] for s in each] for name in names})


def ask(*texts: str, number: int = 0, wanted: int = 1, rounds: int = 0) -> Question:
    prompt = Prompt(text=f"prompt {number}")
    samples = tuple(Sample(prompt_id=prompt.id, text=text, round=rounds) for text in texts)
    return Question(prompt=prompt, samples=samples, wanted=wanted)


def panel(judge: RewardModel | None = None, **config) -> SimulatedPanel:
    made = SimulatedPanel(**config)
    made.judge = judge or Says()
    return made


def share(answers, choice: str) -> float:
    return sum(answer.choice == choice for answer in answers) / len(answers)


def within(observed: float, expected: float, n: int) -> bool:
    """Whether a share is within four standard deviations of a binomial."""
    return abs(observed - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


@pytest.fixture(scope="module")
def judge():
    return Remembers()


@pytest.fixture(scope="module")
def news():
    """400 questions over pairs of headlines in mixed styles, three answers wanted."""
    shares = {"neutral": 0.2, "sensational": 0.35, "one_sided": 0.25, "false": 0.2}
    questions = []
    for number, prompt in enumerate(Newsroom(prompts=420).prompts()):
        rng = Random(f"panel/{number}")
        texts = [
            make_headline(rng, languages()["en"], prompt.facts, rng.choices(list(shares), list(shares.values()))[0])
            for _ in range(2)
        ]
        samples = tuple(Sample(prompt_id=prompt.id, text=text) for text in texts)
        if texts[0] != texts[1]:
            questions.append(Question(prompt=prompt, samples=samples, wanted=3))
    return questions


def test_draws_are_uniform_and_gumbel():
    assert kstest([uniform("u", n) for n in range(5000)], "uniform").pvalue > 0.001
    assert kstest([gumbel("g", n) for n in range(5000)], "gumbel_r").pvalue > 0.001


def test_draws_are_the_same_everywhere():
    assert uniform(0, "simulated-1", "abc", "flip") == pytest.approx(0.9047739893200751, abs=1e-15)


def test_without_noise_the_panel_is_the_judge(news, judge):
    answers = list(panel(judge, **EXACT).annotate(news))
    assert len(answers) == 3 * len(news)
    for question, answer in zip([q for q in news for _ in range(3)], answers, strict=True):
        first, second = judge.score([question.prompt] * 2, question.samples).mean
        assert answer.choice == ("first" if first > second else "second" if second > first else "tie")
        assert answer.question_id == question.id
        assert answer.source == "simulated"


def test_without_noise_rankings_are_the_judges():
    (answer,) = panel(**EXACT).annotate([ask("2|a", "9|b", "-1|c", "2|d")])
    assert isinstance(answer, Ranking)
    assert answer.ranks == (2, 1, 4, 2)


def test_defaults_agree_with_the_judge_in_three_quarters_to_four_fifths(news, judge):
    truth = {}
    for question in news:
        first, second = judge.score([question.prompt] * 2, question.samples).mean
        truth[question.id] = "first" if first > second else "second"
    answers = [answer for answer in panel(judge).annotate(news) if isinstance(answer, Comparison)]
    decided = [answer for answer in answers if answer.choice != "tie"]
    agreement = sum(answer.choice == truth[answer.question_id] for answer in decided) / len(decided)
    assert 0.74 <= agreement <= 0.83
    assert 0 < 1 - len(decided) / len(answers) < 0.1


def test_answers_follow_bradley_terry():
    config = {**EXACT, "temperature": 0.5, "temperature_spread": 0.0}
    answers = list(panel(**config).annotate([ask("1|a", "0.6|b", number=n) for n in range(2000)]))
    assert within(share(answers, "first"), 1 / (1 + math.exp(-0.4 / 0.5)), 2000)


def test_rankings_follow_plackett_luce():
    config = {**EXACT, "temperature": 1.0, "temperature_spread": 0.0}
    texts = ("1|a", "0|b", "0.5|c")
    weights = [math.exp(value) for value in (1, 0, 0.5)]
    answers = list(panel(**config).annotate([ask(*texts, number=n) for n in range(2000)]))
    for place in range(3):
        best = sum(answer.ranks[place] == 1 for answer in answers) / 2000
        assert within(best, weights[place] / sum(weights), 2000)
    # P(a, then c, then b) = w_a / (w_a + w_b + w_c) * w_c / (w_b + w_c)
    order = sum(answer.ranks == (1, 3, 2) for answer in answers) / 2000
    assert within(order, weights[0] / sum(weights) * weights[2] / (weights[1] + weights[2]), 2000)


@pytest.mark.parametrize("flip", [0.0, 0.1, 0.5, 1.0])
def test_flips_occur_at_their_rate(flip):
    answers = list(panel(**{**EXACT, "flip": flip}).annotate([ask("1|a", "0|b", number=n) for n in range(1500)]))
    observed = share(answers, "second")
    assert observed == flip if flip in (0, 1) else within(observed, flip, 1500)


def test_a_flipped_ranking_is_turned_round():
    (answer,) = panel(**{**EXACT, "flip": 1.0}).annotate([ask("2|a", "9|b", "-1|c")])
    assert answer.ranks == (2, 3, 1)


def test_skips_occur_at_their_rate():
    answers = list(panel(**{**EXACT, "skip": 0.2}).annotate([ask("1|a", "0|b", number=n) for n in range(1500)]))
    assert within(sum(isinstance(answer, Skip) for answer in answers) / 1500, 0.2, 1500)


def test_close_samples_tie():
    asked = [ask("1|a", "0.8|b"), ask("1|a", "0.7|b")]
    answers = list(panel(**{**EXACT, "tie_below": 0.25}).annotate(asked))
    assert [answer.choice for answer in answers] == ["tie", "first"]


def test_position_bias():
    config = {**EXACT, "temperature": 1.0, "temperature_spread": 0.0, "position_bias": 0.5}
    answers = list(panel(**config).annotate([ask("0|a", "0|b", number=n) for n in range(2000)]))
    assert within(share(answers, "first"), 1 / (1 + math.exp(-0.5)), 2000)
    (ranking,) = panel(**{**EXACT, "position_bias": 0.5}).annotate([ask("0|a", "0|b", "0|c")])
    assert ranking.ranks == (1, 2, 3)


def test_length_bias():
    config = {**EXACT, "temperature": 1.0, "temperature_spread": 0.0, "length_bias": 0.01}
    short, long = "0|" + "x" * 8, "0|" + "x" * 98
    answers = list(panel(**config).annotate([ask(short, long, number=n) for n in range(2000)]))
    assert within(share(answers, "second"), 1 / (1 + math.exp(-0.9)), 2000)


def test_raters_tire_from_round_to_round():
    config = {**EXACT, "temperature": 0.5, "temperature_spread": 0.0, "drift": 0.5}
    for rounds in (0, 4):
        asked = [ask("1|a", "0|b", number=n, rounds=rounds) for n in range(1500)]
        expected = 1 / (1 + math.exp(-1 / (0.5 * (1 + 0.5 * rounds))))
        assert within(share(list(panel(**config).annotate(asked)), "first"), expected, 1500)


def test_raters_have_their_own_values(news, judge):
    config = {**EXACT, "values_spread": 1.0}
    questions = [question.model_copy(update={"wanted": 5}) for question in news]
    by_rater: dict[str, list[str]] = {}
    for answer in panel(judge, **config).annotate(questions):
        by_rater.setdefault(answer.annotator, []).append(answer.choice)
    assert set(by_rater) == {f"simulated-{n}" for n in range(1, 6)}
    assert len({tuple(choices) for choices in by_rater.values()}) == 5
    factors = [rater.factor(name) for rater in panel(**config).raters for name in ("faithful", "neutral", "balanced")]
    assert len(set(factors)) == len(factors)
    assert min(factors) > 0


def test_own_factors_weigh_the_points_of_each_criterion():
    made = panel(**{**EXACT, "values_spread": 0.7})
    rater = made.raters[0]
    scores = Scores([3.0, 1.0], None, {"calm": [2.0, 0.0], "short": [1.0, 1.0]})
    expected = 2.0 * rater.factor("calm") + 1.0 * rater.factor("short")
    utilities = rater.utilities(ask("a", "b"), scores)
    assert utilities[0] == pytest.approx(expected)
    assert utilities[1] == pytest.approx(rater.factor("short"))


def test_a_question_is_answered_by_as_many_raters_as_wanted_each_once():
    questions = [ask("1|a", "0|b", number=n, wanted=3) for n in range(500)]
    made = panel(**EXACT)
    by_question: dict[str, list[str]] = {}
    for answer in made.annotate(questions):
        by_question.setdefault(answer.question_id, []).append(answer.annotator)
    assert all(len(set(raters)) == len(raters) == 3 for raters in by_question.values())
    load = Counter(rater for raters in by_question.values() for rater in raters)
    assert len(load) == 5
    assert all(within(count / 500, 3 / 5, 500) for count in load.values())
    assert len(list(made.annotate([ask("1|a", "0|b", wanted=9)]))) == 5


def test_without_one_rater_the_answers_of_the_others_stay_as_they_are(news, judge):
    before = {(a.question_id, a.annotator): a.id for a in panel(judge).annotate(news)}
    after = {(a.question_id, a.annotator): a.id for a in panel(judge, absent=["simulated-3"]).annotate(news)}
    others = {key for key in before if key[1] != "simulated-3"}
    assert 0 < len(others) < len(before)
    assert all(after[key] == before[key] for key in others)
    assert not any(rater == "simulated-3" for _, rater in after)
    stepped_in = {key[0] for key in after.keys() - before.keys()}
    assert stepped_in == {key[0] for key in before if key[1] == "simulated-3"}


def test_an_answer_depends_on_its_question_alone(news, judge):
    together = {(a.question_id, a.annotator): a.id for a in panel(judge).annotate(news[:40])}
    alone = {
        (a.question_id, a.annotator): a.id
        for question in reversed(news[:40])
        for a in panel(judge).annotate([question])
    }
    assert together == alone


def test_two_panels_are_different_people(news, judge):
    one = [answer.choice for answer in panel(judge, seed=1, skip=0.0).annotate(news)]
    two = [answer.choice for answer in panel(judge, seed=2, skip=0.0).annotate(news)]
    assert one != two


def test_care_differs_between_raters():
    made = panel(**{**EXACT, "temperature": 0.5, "temperature_spread": 0.5})
    asked = [ask("1|a", "0|b", number=n, wanted=5) for n in range(1500)]
    right: Counter[str] = Counter(a.annotator for a in made.annotate(asked) if a.choice == "first")
    temperatures = [rater.temperature(asked[0]) for rater in made.raters]
    assert spearmanr(temperatures, [right[rater.name] for rater in made.raters]).statistic < -0.8


def test_nothing_to_compare_is_skipped():
    answers = list(panel(**EXACT).annotate([ask(), ask("1|a")]))
    assert all(isinstance(answer, Skip) for answer in answers)


def test_a_rater_who_is_not_on_the_panel_cannot_be_absent():
    with pytest.raises(PipelineError, match="simulated-9"):
        SimulatedPanel(absent=["simulated-9"])
    with pytest.raises(PipelineError, match="all raters"):
        SimulatedPanel(raters=1, absent=["simulated-1"])


def test_trajectories_are_compared_by_their_return():
    from rlhf_core import Episode, Trajectory

    prompt = Prompt(episode=Episode(environment="CartPole-v1", seed=1))
    samples = tuple(
        Sample(
            prompt_id=prompt.id,
            trajectory=Trajectory(observations=((0.0,),) * n, actions=((0.0,),) * n, environment_rewards=(1.0,) * n),
        )
        for n in (3, 7)
    )
    judge = PrinciplesReward(list={"principles": [{"name": "return", "checks": [{"check": "environment_return"}]}]})
    (answer,) = panel(judge, **EXACT).annotate([Question(prompt=prompt, samples=samples)])
    assert answer.choice == "second"


def test_the_judge_is_made_from_the_config_when_first_needed():
    pytest.importorskip("rlhf_core.plugins.registry")
    made = SimulatedPanel(judge={"use": "principles", "list": "newsroom"})
    assert made.judge is None
    prompt = next(Newsroom(prompts=1).prompts())
    samples = tuple(Sample(prompt_id=prompt.id, text=text) for text in prompt.references)
    assert len(list(made.annotate([Question(prompt=prompt, samples=samples)]))) == 1
    assert made.judge is not None


def test_a_judge_that_must_be_trained_is_refused():
    pytest.importorskip("rlhf_core.plugins.registry")
    made = SimulatedPanel(judge={"use": "pairwise"})
    with pytest.raises(PipelineError, match="trained"):
        list(made.annotate([ask("1|a", "0|b")]))


def test_a_known_team_answers_as_its_members_do():
    team = [
        {"noise": 0.001, "share": 3.0},
        {"noise": 0.001, "ties": 1000.0},
        {"noise": 0.001, "lean": 50.0},
    ]
    asked = [ask("1|a", "0|b", number=number) for number in range(1200)]
    asked += [ask("0|a", "1|b", number=number) for number in range(1200, 2400)]
    made = panel(**EXACT | {"temperature": 1.0, "tie_below": 0.01}, raters=3, team=team)
    by = {name: [] for name in ("simulated-1", "simulated-2", "simulated-3")}
    for question, answer in zip(asked, made.annotate(asked), strict=True):
        by[answer.annotator].append((question.samples[0].text[0], answer.choice))
    careful, undecided, leaning = by.values()
    assert set(careful) == {("1", "first"), ("0", "second")}
    assert {choice for _, choice in undecided} == {"tie"}
    assert {choice for _, choice in leaning} == {"first"}
    assert within(len(careful) / len(asked), 0.6, len(asked))
    # More raters than are known: the fourth is as the first.
    names = [rater.person for rater in panel(raters=4, team=team).raters]
    assert names[3] is names[0]


def test_what_is_alike_is_seen_surely_where_people_do():
    asked = [ask("1|a", "0|b", number=number) for number in range(800)]
    exact = EXACT | {"temperature": 1.0, "temperature_spread": 0.0, "tie_below": 0.5, "alike": 1.0}
    for clear in (1.0, 0.2):
        ties = share(list(panel(**exact, alike_noise=clear).annotate(asked)), "tie")
        # The difference of two perceptions is logistic: P(|x| <= 0.5 / clear).
        assert within(ties, math.tanh(0.25 / clear), 800), clear


def test_raters_lean_differently():
    asked = [ask("0|a", "0|b", number=number) for number in range(400)]
    made = panel(**EXACT | {"temperature": 1.0, "temperature_spread": 0.0}, raters=30, position_spread=2.0)
    leans = [rater.lean() for rater in made.raters]
    assert 1.4 < (sum(lean**2 for lean in leans) / 30) ** 0.5 < 2.6
    for rater, lean in zip(made.raters[:6], leans, strict=False):
        first = share([rater.answer(question, Scores([0.0, 0.0])) for question in asked], "first")
        assert within(first, 1 / (1 + math.exp(-lean)), 400)
