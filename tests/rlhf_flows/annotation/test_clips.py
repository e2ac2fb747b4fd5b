"""Segments of episodes on the annotators' page."""

from datetime import UTC, datetime

from control_kit import policy, starts
from rlhf_core import Candidate
from rlhf_core.feedback.forms import Form
from rlhf_core.feedback.queue import Assigned
from rlhf_flows.annotation.shown import PairGiven, feedback_of, page_of, shown_order
from rlhf_plugins.selectors.segments import Segments

PREFERENCE = Form(guidelines="Prefer the pole that stands.")


def held(**options):
    prompts = starts(count=1)
    candidates = [Candidate(prompts[0], policy().sample(prompts, 2, seed=0)[0])]
    [question] = Segments(length=8, **options).select(candidates, 1, None)
    return Assigned(PREFERENCE, question, None, datetime.now(UTC), "asked")


def test_pictures_reach_the_page_as_data():
    asked = held(pictures={"every": 2, "height": 24})
    page = page_of(asked, "ann")
    for shown, sample in zip(page["samples"], shown_order(asked.question, "ann"), strict=True):
        assert shown["frames"] == list(sample.trajectory.frames) and shown["frames"]
        assert "environment_rewards" not in shown
    assert [sample["frames"] for sample in page_of(held(), "ann")["samples"]] == [[], []]


def test_pictures_elsewhere_are_not_fetched():
    asked = held()
    first, second = asked.question.samples
    strange = first.trajectory.model_copy(
        update={
            "frames": ("https://example.org/spy.png", "javascript:alert(1)", "data:text/html,x", "data:image/png;,")
        }
    )
    question = asked.question.model_copy(update={"samples": (first.model_copy(update={"trajectory": strange}), second)})
    page = page_of(asked._replace(question=question), "ann")
    assert sorted(sample["frames"] for sample in page["samples"]) == [[], ["data:image/png;,"]]


def test_segments_are_compared_like_texts():
    asked = held(pictures={"every": 2, "height": 24})
    order = shown_order(asked.question, "ann")
    given = PairGiven.model_validate({"choice": "first"})
    [feedback] = feedback_of(asked, "ann", given)
    assert (feedback.first, feedback.second, feedback.choice) == (order[0].id, order[1].id, "first")
