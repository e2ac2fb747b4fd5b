"""`rlhf plan` and `rlhf panel`: what follows from measured points, and the commands themselves."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from rlhf_core.errors import DataError, PipelineError
from rlhf_core.feedback.learning_curve import Curve
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.plugins import Use
from rlhf_core.plugins.registry import Registry
from rlhf_core.records import Answer, Question, Sample
from rlhf_flows.display import Silent
from rlhf_flows.planning import (
    best,
    budgets_up_to,
    fit_to_people,
    headline,
    panel_of,
    plans_of,
    table,
    write_report,
)
from rlhf_flows.session import Session

SMALL, ASKED = (Path(__file__).with_name(name) for name in ("small.yaml", "asked.yaml"))
SIZES = (25, 50, 100, 200, 400)


def rows(curve, overlap=1, raters=3, pairs=40000, repeats=3):
    """What a rehearsal writes, drawn from a known curve."""
    rng = np.random.default_rng(overlap)
    return [
        {
            "raters": raters, "overlap": overlap, "repeat": repeat, "questions": size, "answers": size * overlap,
            "right": (rng.random(pairs) < curve.at(size)).astype(float).tolist(), "agrees": 0.6,
        }
        for size in SIZES
        for repeat in range(repeats)
    ]  # fmt: skip


def test_budgets_halve():
    assert budgets_up_to(400) == SIZES
    assert budgets_up_to(24) == (10, 12, 24)


def test_the_questions_needed_are_found_with_an_interval_around_them():
    one, three = Curve(0.85, 1.5, 0.5), Curve(0.9, 1.6, 0.5)
    first, second = plans_of([*rows(one), *rows(three, overlap=3)], 0.78, seed=1)
    assert (first.overlap, second.overlap) == (1, 3)
    for found, true in ((first, one), (second, three)):
        needed = true.needed(0.78)
        assert found.needed_low <= needed <= (found.needed_high or 1e9)
        assert found.needed == pytest.approx(needed, rel=0.5)
        assert found.answers == found.needed * found.overlap
        assert all(low <= value <= high for _, value, low, high in found.band)
    assert best([first, second]) is first  # 459 answers against 3 * 178
    assert "questions with 1 answers each reach 0.78" in headline([first, second], 0.78)


def test_a_target_out_of_reach_is_said_to_be():
    (found,) = plans_of(rows(Curve(0.7, 1.5, 0.5)), 0.9)
    assert found.needed is None and found.answers is None
    assert best([found]) is None
    assert headline([found], 0.9) == "Nothing that was tried leads to an accuracy of 0.9"
    assert table([found])[1][0][2] == "not within 1,600"


def test_what_the_smallest_size_reaches_is_no_smaller():
    (found,) = plans_of(rows(Curve(0.9, 0.1, 0.5)), 0.6)
    assert found.needed == 25
    assert found.words(400) == "at most 25"


def test_one_size_makes_no_curve():
    assert list(plans_of([row for row in rows(Curve(0.9, 1, 0.5)) if row["questions"] == 25], 0.8)) == []


def session(tmp_path, path=SMALL, *overrides):
    return Session.open(path, overrides, tmp_path, Silent())


def test_the_page_holds_the_figures_and_nothing_from_elsewhere(tmp_path):
    plans = list(plans_of(rows(Curve(0.85, 1.5, 0.5)), 0.78))
    path = write_report(session(tmp_path), plans, 0.78, {"use": "simulated_panel", "prefix": "<script>"})
    page = path.read_text()
    assert page.count("<svg") == 1 and "<script" not in page
    assert "About" in re.search("<h1>(.*?)</h1>", page)[1]
    assert not re.search(r"(src|href)=", page)


def test_the_panel_is_the_pipelines_own_or_judged_by_its_gold(tmp_path):
    options, judge = panel_of(session(tmp_path))
    assert options["raters"] == 3 and judge == Use(use="principles")
    options, judge = panel_of(session(tmp_path, ASKED))
    assert options == {"use": "simulated_panel"} and judge == Use(use="principles")
    with pytest.raises(PipelineError, match="nobody says what is truly better"):
        panel_of(
            session(
                tmp_path,
                ASKED,
                "gold=null",
                "evaluate=[{use: generation}]",
                "gate={use: better, metric: kl, win_rate: 0}",
            )
        )


def answers_of(panel, n):
    source = Registry().create("data_sources", Use(use="newsroom", prompts=n, demonstrations=4 * n, seed=3))
    by_prompt = {}
    for answer in source.demonstrations():
        prompt = answer.question.prompt
        texts = by_prompt.setdefault(prompt.id, (prompt, []))[1]
        if answer.feedback.text not in texts:
            texts.append(answer.feedback.text)
    asked = {}
    for prompt, texts in by_prompt.values():
        if len(texts) > 1:
            question = Question(
                prompt=prompt, samples=tuple(Sample(prompt_id=prompt.id, text=t) for t in texts[:2]), wanted=3
            )
            asked[question.id] = question
    # The panel plays people here, which the test says by their source alone.
    return [
        Answer(question=asked[each.question_id], feedback=each.model_copy(update={"source": "person"}))
        for each in panel.annotate(list(asked.values()))
    ]


def test_the_plugins_own_answers_give_back_its_options(tmp_path):
    true = {"temperature": 0.8, "position_bias": 0.3, "tie_below": 0.25, "flip": 0.06, "skip": 0.05, "length_bias": 0.0}
    still = {"values_spread": 0.0, "drift": 0.0, "temperature_spread": 0.0}
    panel = Registry().create("annotators", Use(use="simulated_panel", raters=6, **true, **still))
    opened = session(tmp_path, ASKED)
    with pytest.raises(DataError, match="nobody has compared two samples yet"):
        fit_to_people(opened)
    with FeedbackStore.open(opened.workspace.store_url) as store:
        store.add(answers_of(panel, 500))
    found, config = fit_to_people(opened)
    for name, value in true.items():
        metric = found.options[name]
        reach = 0.5 * (metric.high - metric.low)
        assert metric.low - 0.3 * reach <= value <= metric.high + 0.3 * reach, (name, metric)
    assert found.raters == 6 and config["judge"] == {"use": "principles"}
    # All criteria count as they do for the judge, whose own weights these are.
    assert sum(metric.low <= 1 <= metric.high for metric in found.values.values()) >= len(found.values) - 1
    again = Registry().create("annotators", Use(**config))
    assert len(again.raters) == 6 and all(rater.person is not None for rater in again.raters)
    assert "temperature_spread" not in config


def rlhf(*arguments):
    command = [str(Path(sys.executable).with_name("rlhf")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_plan_is_made_shown_and_cached(tmp_path):
    options = ["plan", SMALL, "--workspace", tmp_path, "--target", "0.55", "--questions", "80", "--repeats", "2",
               "--overlap", "2", "--set", "data.0.prompts=400", "--json"]  # fmt: skip
    first = rlhf(*options)
    assert first.returncode == 0, first.stderr
    found = json.loads(first.stdout.splitlines()[-1])
    (plan,) = found["plans"]
    assert [point["questions"] for point in plan["points"]] == [10, 20, 40, 80]
    assert all(0.3 < point["accuracy"]["value"] <= 1 for point in plan["points"])
    assert plan["points"][-1]["answers"] == pytest.approx(160, abs=3)
    assert "<svg" in Path(found["report"]).read_text()
    assert json.loads(rlhf(*options).stdout.splitlines()[-1])["plans"] == found["plans"]
    run = rlhf("run", SMALL, "--workspace", tmp_path, "--set", "data.0.prompts=400", "--dry-run", "--json")
    states = {each["stage"]: each["state"] for each in json.loads(run.stdout.splitlines()[-1])}
    assert (states["data"], states["warm_start"]) == ("cached", "cached")
    nobody = rlhf("panel", SMALL, "--workspace", tmp_path)
    assert nobody.returncode == 2 and "nobody has compared two samples yet" in nobody.stderr


def test_a_panel_is_printed_as_it_is_configured(tmp_path):
    opened = session(tmp_path, ASKED)
    panel = Registry().create("annotators", Use(use="simulated_panel", raters=5))
    with FeedbackStore.open(opened.workspace.store_url) as store:
        store.add(answers_of(panel, 60))
    said = rlhf("panel", ASKED, "--workspace", tmp_path)
    assert said.returncode == 0, said.stderr
    (use,) = yaml.safe_load(said.stdout)
    assert use["use"] == "simulated_panel" and use["judge"] == {"use": "principles"}
    assert re.search(r"#   temperature +\d", said.stdout)
