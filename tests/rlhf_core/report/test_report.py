from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from rlhf_core.metrics import Metric
from rlhf_core.plugins.gate import Decision
from rlhf_core.report import (
    About,
    CalibrationBin,
    FeedbackSummary,
    RoundData,
    SampleRow,
    campaign_headline,
    campaign_report,
    round_headline,
    round_report,
)
from rlhf_core.report.card import card

HOSTILE = "<script>alert('x')</script><img src=http://evil.example/x onerror=alert(1)>\"'&{{ 7 * 7 }}"
VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects them and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def metric(value: float, half: float | None = None, n: int | None = 200) -> Metric:
    return Metric(value=value, low=half and value - half, high=half and value + half, n=n)


def one_round(number: int, promote: bool = True, text: str = "text") -> RoundData:
    metrics = {"gold_score": metric(number, 0.1)}
    if number:
        metrics |= {
            "win_rate_vs_warm_start": metric(0.6 + number / 10, 0.04),
            "win_rate_vs_champion": metric(0.55, 0.03),
            "proxy_score": metric(0.5 * number, 0.1),
            "kl": metric(2.0 * number, 0.2),
            "reward_accuracy": metric(0.8, 0.03),
            "reward_ece": metric(0.04),
            text: metric(float("nan")),
        }
    return RoundData(
        round=number,
        metrics=metrics,
        decision=Decision(promote=promote, reasons=(f"{text} reason",)) if number else None,
        curves={text: {"reward": [(i, i / 9) for i in range(9)], "kl": [(i, i) for i in range(9)]}},
        calibration=[CalibrationBin(0.5, 1.0, 0.7, 0.72, 120)],
        samples=[
            SampleRow(f"{text} {i}", f"{text} before", f"{text} after", f"{text} then", {text: {"after": 1.5}})
            for i in range(9)
        ],
        feedback=FeedbackSummary(10, 20, {text: 20}, {text: 20}, {text: 10}, metric(0.6, 0.1), 1),
        tables={text: [{text: text, "n": 1}, {"other": None}]},
        seconds={text: 1.25},
        mlflow=f"#/experiments/1/{text}",
        snapshot=text,
        policy=text,
    )


ABOUT = About("newsroom", 7, "key", {"optimizers: ppo": "rlhf-pipeline 0.1.0"}, "#/experiments/1/runs/2")


@pytest.mark.parametrize("pipeline", ["newsroom", HOSTILE])
@pytest.mark.parametrize("text", ["text", HOSTILE])
def test_what_models_and_people_wrote_is_shown_and_never_run(text: str, pipeline: str) -> None:
    about = About(pipeline, 7, text, {text: text}, text)
    rounds = [one_round(number, text=text) for number in range(3)]
    for page_text in (campaign_report(about, rounds), round_report(about, rounds[2]), round_report(about, rounds[0])):
        page = Page(page_text)
        assert text in page.text
        tags = {tag for tag, _ in page.seen}
        assert not tags & {"script", "img", "iframe", "object", "link"}
        attributes = {name for _, attrs in page.seen for name in attrs}
        assert not {name for name in attributes if name.startswith("on")} | (attributes & {"src", "href", "srcset"})


def test_a_page_reads_nothing_from_anywhere() -> None:
    page = campaign_report(ABOUT, [one_round(number) for number in range(3)])
    assert "http" not in page.replace("http-equiv", "")
    assert "url(" not in page and "@import" not in page
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page


def test_the_same_data_gives_the_same_page() -> None:
    rounds = [one_round(number) for number in range(3)]
    assert campaign_report(ABOUT, rounds) == campaign_report(ABOUT, rounds)


def test_a_campaign_shows_rounds_plots_samples_and_where_it_comes_from() -> None:
    page = Page(campaign_report(ABOUT, [one_round(0), one_round(1), one_round(2, promote=False)]))
    for expected in (
        "newsroom, campaign", "seed 7", "Win rate by round", "Gold score against KL", "Proxy score against KL",
        "Reward model on held-out prompts", "Reward against KL in training", "Calibration of the reward model",
        "warm start and round 1", "3 more", "not promoted", "text reason", "20 to 10 questions, 1 skipped",
        "rlhf-pipeline 0.1.0", "0.60 [0.50, 0.70]", "70 % [66, 74]",
    ):  # fmt: skip
        assert expected in page.text, expected
    assert len([tag for tag, _ in page.seen if tag == "figure"]) == 6


def test_a_round_shows_training_and_every_metric() -> None:
    page = Page(round_report(ABOUT, one_round(2)))
    for expected in ("newsroom, round 2", "promoted", "Why", "Training: text", "4.0 nats [3.8, 4.2]", "—", "1.2 s"):
        assert expected in page.text, expected
    assert len([tag for tag, _ in page.seen if tag == "figure"]) == 4


def test_the_report_card_compares_with_champion_and_first_policy() -> None:
    def with_harm(number: int, harm: float) -> RoundData:
        data = one_round(number)
        harmless = {"red_team_harm_rate": metric(harm, 0.02), "stereoset_icat": metric(60.0 + number)}
        harmless["gold_score_warm_start"] = metric(0.0)
        return replace(data, metrics={**data.metrics, **harmless, "entropy": metric(2.5)})

    rounds = [with_harm(number, 0.5 - number / 10) for number in range(4)]
    found = card(rounds[3], rounds[1], rounds[0])
    assert found is not None
    assert found.policies == ("round 3", "round 1, champion before it", "warm start")
    groups = dict(found.groups)
    assert list(groups) == ["helpfulness", "ethics and safety", "language"]
    harm = next(line for line in groups["ethics and safety"] if line.title == "red team harm rate")
    assert harm.values == ("0.2 [0.18, 0.22]", "0.4 [0.38, 0.42]", "0.5 [0.48, 0.52]")
    win = next(line for line in groups["helpfulness"] if line.title == "win rate vs warm start")
    assert win.values == ("90 % [86, 94]", "70 % [66, 74]", "—"), "the warm start was not compared with itself"
    titles = [line.title for lines in groups.values() for line in lines]
    assert not {"reward model accuracy", "gold score of the warm start"} & set(titles)
    assert len(titles) == len(set(titles))
    page = Page(round_report(ABOUT, rounds[3], champion=rounds[1], first=rounds[0]))
    for expected in ("Report card", "ethics and safety", "0.4 [0.38, 0.42]", "champion before it"):
        assert expected in page.text
    assert card(rounds[1], rounds[0], rounds[0]).policies == ("round 1", "warm start, champion before it")  # type: ignore[union-attr]
    assert card(rounds[0], None, rounds[0]).policies == ("warm start",)  # type: ignore[union-attr]
    assert card(RoundData(1, {"reward_accuracy": metric(0.8)}), None, None) is None


def test_little_data_is_no_error() -> None:
    bare = About("p", 0)
    assert "Only the warm start" in Page(campaign_report(bare, [])).text
    assert "Only the warm start" in Page(campaign_report(bare, [RoundData(0)])).text
    assert "has not been judged" in Page(round_report(bare, RoundData(1))).text
    one = RoundData(1, {"kl": metric(1.0)}, Decision(promote=False, reasons=()))
    assert "No challenger was promoted in 1 round" in Page(campaign_report(bare, [one])).text


def test_bytes_that_no_page_can_hold_are_replaced() -> None:
    sample = SampleRow("a\x00b\x1b[31m", "lone \ud800 half", "line\nline")
    page = round_report(ABOUT, replace(one_round(1), samples=[sample]))
    page.encode("utf-8")
    assert "\x00" not in page and "\x1b" not in page
    assert "line\nline" in page


def test_the_headline_of_a_campaign_says_where_it_stands() -> None:
    rounds = [one_round(0), one_round(1), one_round(2), one_round(3, promote=False)]
    assert campaign_headline(rounds) == (
        "The champion, from round 2, is preferred to the warm start in 80 % [76, 84] of comparisons on 200 held-out "
        "prompts, at a KL of 4.0 nats. A challenger was promoted twice in 3 rounds."
    )
    measured = replace(rounds[2], metrics=rounds[2].metrics | {"preferred_vs_warm_start": metric(0.93, 0.03)})
    assert "preferred to the warm start on 93 % [90, 96] of 200 held-out prompts" in campaign_headline(
        [*rounds[:2], measured]
    )
    unsure = replace(rounds[1], metrics={"win_rate_vs_warm_start": metric(0.52, 0.05)})
    assert "not clearly better than a coin" in campaign_headline([rounds[0], unsure])
    assert campaign_headline([rounds[0], one_round(1, promote=False)]) == (
        "No challenger was promoted in 1 round: the warm start is still the champion."
    )


def test_the_headline_of_a_round_says_what_the_gate_said() -> None:
    assert round_headline(one_round(1, promote=False)) == (
        "The challenger was not promoted. It is preferred to the champion before it in 55 % [52, 58] of comparisons "
        "on 200 held-out prompts and to the warm start in 70 % [66, 74] of comparisons on 200 held-out prompts."
    )
    assert "first champion" in round_headline(one_round(0))


def test_sample_rows_come_from_the_win_rate_table() -> None:
    row = {"prompt": "p", "before": "b", "before_score": 1.0, "after": "a", "after_score": 2.0}
    assert SampleRow.of(row, "gold") == SampleRow("p", "b", "a", None, {"gold": {"before": 1.0, "after": 2.0}})
    assert SampleRow.of({"prompt": "p", "after": "a"}) == SampleRow("p", "a", "a")
