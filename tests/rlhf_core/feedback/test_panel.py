import json
from datetime import UTC, datetime, timedelta

import pytest
from made_answers import made, one_of_each_kind

from rlhf_core.feedback.export import jsonl, trl_preferences
from rlhf_core.feedback.forms import Form
from rlhf_core.feedback.panel import panel
from rlhf_core.feedback.queue import QuestionQueue
from rlhf_core.records import Answer, Message, Prompt, Question, Sample


def asked(number, *texts):
    prompt = Prompt(text=f"p{number}")
    return Question(prompt=prompt, samples=tuple(Sample(prompt_id=prompt.id, text=text) for text in texts))


def said(question, who, *scores, **fields):
    return Answer(question=question, feedback=question.compare(scores, annotator=who, source="person", **fields))


def by_name(found):
    return {each.name: each for each in found.annotators}


def test_agreement_position_and_time_by_hand():
    pairs = [asked(number, "a", "b") for number in range(4)]
    answers = [said(pair, "x", 1, 0, seconds=2) for pair in pairs]
    answers += [said(pair, "y", 1, 0, seconds=4) for pair in pairs[:2]]
    answers += [said(pairs[2], "y", 0, 1, seconds=9), said(pairs[3], "y", 0, 0)]
    answers.append(Answer(question=asked(9, "a", "b"), feedback=asked(9, "a", "b").skip("unclear", annotator="y")))
    found = panel(answers)
    assert found.agreement == (0.5, 4)
    x, y = by_name(found).values()
    assert (x.questions, x.skips, x.seconds, x.shown_first) == (4, 0, 2, (1.0, 4))
    assert (y.questions, y.skips, y.seconds, y.shown_first) == (5, 1, 4, (2 / 3, 3))
    assert found.shown_first == (6 / 7, 7)
    assert [each.answers[0].question for each in found.disagreements] == [pairs[2], pairs[3]]
    assert [each.split for each in found.disagreements] == [1.0, 0.5]
    assert found.kappa is None  # four pairs in common are too few


def test_gold_makes_reliabilities_and_shares():
    gold = {pair.id: pair.compare((1, 0)) for pair in (asked(number, "a", "b") for number in range(12))}
    answers = []
    for number in range(12):
        pair = asked(number, "a", "b")
        answers += [said(pair, "right", 1, 0), said(pair, "wrong", 0, 1)]
    found = panel(answers, gold)
    people = by_name(found)
    assert people["right"].gold == (1.0, 12)
    assert people["wrong"].gold == (0.0, 12)
    assert people["right"].reliability > 0.85
    assert people["wrong"].reliability < 0.15


def test_ratings_on_gold_and_their_alpha():
    answers, gold = [], {}
    for number in range(6):
        question = asked(number, "a")
        gold[question.id] = question.rate(0, 3, criterion="clear")
        for who, score in (("near", 4), ("far", 1 + number % 5)):
            answers.append(
                Answer(question=question, feedback=question.rate(0, score, criterion="clear", annotator=who))
            )
    found = panel(answers, gold)
    assert by_name(found)["near"].gold == (1.0, 6)
    assert by_name(found)["far"].gold == (3 / 6, 6)
    assert set(found.alphas) == {"clear"}
    assert set(found.alphas["clear"]) == {"nominal", "ordinal", "interval"}


def test_steadiness_is_the_same_preference_the_other_way_round():
    answers, repeats = [], {}
    for number in range(4):
        once = asked(number, "a", "b")
        again = once.model_copy(update={"samples": once.samples[::-1]})
        repeats[again.id] = once.id
        answers += [said(once, "x", 1, 0), said(again, "x", *((0, 1) if number else (1, 0)))]
    found = panel(answers, repeats=repeats)
    assert by_name(found)["x"].steady == (0.75, 4)
    assert found.agreement is None


def test_nobody_has_answered():
    found = panel([])
    assert (found.annotators, found.alphas, found.disagreements, found.seconds) == ((), {}, (), None)


def test_progress_and_forecast(store):
    time = [datetime(2026, 1, 1, tzinfo=UTC)]
    queue = QuestionQueue(store, now=lambda: time[0])
    form = Form()
    questions = [asked(number, "a", "b").model_copy(update={"wanted": 2}) for number in range(6)]
    queue.post(form, questions, gold=made(1)[:1])
    assert queue.progress() == (12, 0, 6, 0, 0)
    assert queue.progress().seconds_left is None
    for _ in range(3):
        held = queue.next("ann")
        queue.answer("ann", form.id, held.question.id, [held.question.compare([1, 0])])
    assert queue.progress() == (12, 3, 6, 3, 3)
    assert queue.progress().seconds_left == pytest.approx(3 * 3600)
    time[0] += timedelta(hours=2)
    assert queue.progress().seconds_left == pytest.approx(9 / 3 * 86_400)


def test_exports_leave_nothing_out_and_read_back():
    answers = one_of_each_kind()
    lines = list(jsonl(answers))
    assert [Answer.model_validate_json(line) for line in lines] == answers
    assert all(line.count("\n") == 1 for line in lines)


def test_trl_format_of_texts_and_messages():
    plain = asked(1, "good", "bad")
    chat = Prompt(messages=(Message(role="user", content="Hi"),))
    talk = Question(prompt=chat, samples=tuple(Sample(prompt_id=chat.id, text=text) for text in ("bad", "good")))
    answers = [said(plain, "x", 1, 0), said(plain, "y", 1, 0), said(plain, "z", 0, 1), said(talk, "x", 0, 1)]
    answers.append(said(asked(2, "a", "b"), "x", 0, 0))
    rows = sorted((json.loads(line) for line in trl_preferences(answers)), key=lambda row: row["annotators"])
    assert rows[1] == {
        "prompt": "p1", "chosen": "good", "rejected": "bad", "probability": pytest.approx(2 / 3), "annotators": 3,
    }  # fmt: skip
    assert rows[0]["prompt"] == [{"role": "user", "content": "Hi"}]
    assert rows[0]["chosen"] == [{"role": "assistant", "content": "good"}]
    assert len(rows) == 2
