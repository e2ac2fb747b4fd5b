"""Logs of impressions and reactions as comparisons, through the data source `table`."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from rlhf_core.errors import DataError
from rlhf_core.feedback.convert import clicks_to_probability
from rlhf_core.records import Comparison, Reaction
from rlhf_core.run import Run
from rlhf_plugins.data_sources.table import Table

LOG = {"prompt": "query", "text": "title", "action": "event", "impression": "view", "position": "slot"}


class Notes(Run):
    def __init__(self):
        super().__init__()
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def event(event, view, title, slot=1, query="q", **more):
    return {"event": event, "view": view, "title": title, "slot": slot, "query": query, **more}


def table(tmp_path, rows, columns=LOG, **options):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Table(Table.Config(path=path, columns=columns, **options), run=Notes())


def judged(answer):
    """(better, worse) texts, strength and annotator."""
    feedback, texts = answer.feedback, {sample.id: sample.text for sample in answer.question.samples}
    pair = (texts[feedback.first], texts[feedback.second])
    return (*(pair if feedback.choice == "first" else pair[::-1]), feedback.strength, feedback.annotator)


def shown(title, slot, times, clicks, start=0, query="q"):
    """`times` impressions of a title at a position, the first of them clicked."""
    for number in range(times):
        view = f"{title}-{slot}-{start + number}"
        yield event("impression", view, title, slot, query)
        if number < clicks:
            yield event("click", view, title, slot, query)


def test_clicks_are_compared_after_their_positions(tmp_path):
    """`late` is clicked half as often as `early`, but only where half as many look."""
    rows = [*shown("early", 1, 100, 20), *shown("early", 2, 100, 10), *shown("late", 2, 100, 10)]
    (answer,) = table(tmp_path, rows).feedback()
    assert isinstance(answer.feedback, Comparison)
    probability = clicks_to_probability(30, 150, 10, 50)
    assert probability == pytest.approx(0.5)
    assert answer.feedback.strength < 1e-6 or answer.feedback.choice == "tie"
    plain = {role: column for role, column in LOG.items() if role != "position"}
    (naive,) = table(tmp_path, rows, plain).feedback()
    assert judged(naive)[:2] == ("early", "late")
    assert naive.feedback.strength == pytest.approx(2 * clicks_to_probability(30, 200, 10, 100) - 1)


def test_the_correction_finds_more_of_what_is_really_better(tmp_path):
    """Clicks drawn from the position-based model, where the better one mostly stood second."""
    dice = np.random.default_rng(5)
    looks, rows, truth = {1: 1.0, 2: 0.4}, [], {}
    for query in range(40):
        liking = sorted(dice.uniform(0.1, 0.5, 2))
        truth[f"q{query}"] = f"good {query}"
        for name, liked, often in (("bad", liking[0], 1), ("good", liking[1], 2)):
            for slot, times in ((often, 180), (3 - often, 20)):
                clicks = int(dice.binomial(times, liked * looks[slot]))
                rows += shown(f"{name} {query}", slot, times, clicks, query=f"q{query}")

    def right(columns):
        answers = list(table(tmp_path, rows, columns).feedback())
        assert len(answers) == 40
        return sum(judged(answer)[0] == truth[answer.question.prompt.text] for answer in answers)

    corrected = right(LOG)
    naive = right({role: column for role, column in LOG.items() if role != "position"})
    assert corrected >= 30 > 20 >= naive, (corrected, naive)


def test_what_comes_twice_counts_once_and_strays_count_nothing(tmp_path):
    rows = [
        event("click", "v1", "a"),  # before its impression
        event("impression", "v1", "a"), event("impression", "v1", "a"), event("click", "v1", "a"),
        event("impression", "v1", "b", 2),  # the same view of a list
        event("click", "v9", "b"),
    ]  # fmt: skip
    source = table(tmp_path, rows, {**LOG, "position": None}, clicks_as="reactions")
    found = {a.question.samples[0].text: (a.feedback.count, a.feedback.exposures) for a in source.feedback()}
    assert found == {"a": (1, 1), "b": (0, 1)}
    assert source.run.notes == [f"{source.place()}: 1 reactions to impressions that the log does not hold left out"]


def test_every_action_speaks_for_itself(tmp_path):
    rows = []
    for title, likes, dislikes in (("a", 9, 1), ("b", 2, 6)):
        for number in range(10):
            view = f"{title}{number}"
            rows.append(event("view", view, title))
            rows += [event("thumbs_up", view, title)] * (number < likes)
            rows += [event("DISLIKE", view, title)] * (number < dislikes)
    names = {"view": "impression", "thumbs_up": "like"}
    source = table(tmp_path, rows, {**LOG, "position": None}, action_names=names, annotator="readers")
    found = [judged(answer) for answer in source.feedback()]
    assert found == [
        ("a", "b", pytest.approx(2 * clicks_to_probability(9, 10, 2, 10) - 1), "readers (like)"),
        ("a", "b", pytest.approx(2 * clicks_to_probability(6, 10, 1, 10) - 1), "readers (dislike)"),
    ]
    counts = table(
        tmp_path, rows, {**LOG, "position": None}, action_names=names, clicks_as="reactions", annotator="readers"
    )
    reactions = [answer.feedback for answer in counts.feedback()]
    assert all(isinstance(each, Reaction) for each in reactions)
    assert [(each.action, each.count) for each in reactions] == [
        ("like", 9), ("dislike", 1), ("like", 2), ("dislike", 6),
    ]  # fmt: skip


def test_edits_are_better_than_the_original_and_can_be_imitated(tmp_path):
    rows = [
        event("impression", "v1", "teh cat", new=""),
        event("edit", "", "teh cat", new="The cat"),
        event("impression", "v2", "fine", 2, new=""),
    ]
    source = table(tmp_path, rows, {**LOG, "edited": "new"}, demonstrations="new")
    (answer,) = source.feedback()
    assert judged(answer) == ("The cat", "teh cat", 1.0, "log")
    assert [each.feedback.text for each in source.demonstrations()] == ["The cat"]


def test_texts_that_never_shared_a_position_are_not_compared(tmp_path):
    rows = [*shown("a", 1, 50, 10), *shown("b", 2, 50, 2)]
    assert list(table(tmp_path, rows).feedback()) == []
    rows += shown("a", 2, 50, 5, start=50)
    assert len(list(table(tmp_path, rows).feedback())) == 1


def test_a_minimum_of_exposures_counts_raw_impressions(tmp_path):
    rows = [*shown("a", 1, 30, 3), *shown("a", 2, 30, 1), *shown("b", 2, 59, 3), *shown("c", 1, 60, 3)]
    names = {text for a in table(tmp_path, rows, min_exposures=60).feedback() for text in judged(a)[:2]}
    assert names == {"a", "c"}


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (event("hover", "v1", "a"), "`event` is not an action"),
        (event("impression", "", "a"), "empty `view`"),
        (event("impression", "v1", "a", -1), "`slot` is not a count: -1"),
        (event("edit", "v1", "a", new="a"), "`new` is what stood there before"),
        (event("edit", "v1", "a", new=" "), "empty `new`"),
    ],
)
def test_broken_events_are_named(tmp_path, row, complaint):
    rows = [event("impression", "v0", "x", new=""), row]
    with pytest.raises(DataError) as error:
        list(table(tmp_path, rows, {**LOG, "edited": "new"}).feedback())
    assert f"line 2: {complaint}" in str(error.value)


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"prompt": "q", "text": "t", "action": "a"}, "`action` and `impression` only make sense together"),
        ({"prompt": "q", "action": "a", "impression": "i"}, "need `text`"),
        ({**LOG, "clicks": "c", "impressions": "n"}, "either `clicks` and `impressions`"),
        ({"prompt": "q", "text": "t", "position": "p"}, "`position` is about exposures"),
        ({"prompt": "q", "text": "t", "edited": "p"}, "`edited` needs `action`"),
        ({**LOG, "prompt": None}, "needs `group`, or a `prompt`"),
    ],
)
def test_columns_that_do_not_fit(columns, complaint):
    with pytest.raises(ValidationError, match=complaint):
        Table.Config(path="log.csv", columns=columns)


def test_it_keeps_the_contract(tmp_path, rlhf_conformance):
    path = tmp_path / "log.jsonl"
    rows = [*shown("a", 1, 5, 2), *shown("a", 2, 5, 1), *shown("b", 2, 5, 3), event("edit", "", "a", new="A")]
    path.write_text("".join(json.dumps({"new": "", **row}) + "\n" for row in rows))
    rlhf_conformance(Table, path=str(path), columns={**LOG, "edited": "new"}, demonstrations="new")
