"""The annotator `mlflow_review` on MLflow's own database: what its user interface would write is written here."""

import pytest
from mlflow.entities import AssessmentSource, Feedback

from rlhf_core import Comparison, Demonstration, Prompt, Question, Ranking, Rating, Run, Sample, Skip
from rlhf_core.errors import DataError
from rlhf_core.feedback.lettered import by_letter
from rlhf_core.tracking import TrackingError
from rlhf_core.tracking.tracker import Tracker
from rlhf_plugins.annotators.mlflow_review import MlflowReview

HOSTILE = '<img src=x onerror="alert(1)"> **bold** \0'


def question(name, texts, **fields):
    prompt = Prompt(text=name)
    return Question(prompt=prompt, samples=tuple(Sample(prompt_id=prompt.id, text=text) for text in texts), **fields)


class Mlflow:
    """What a reviewer does in the user interface."""

    def __init__(self, tmp_path):
        self.uri = f"sqlite:///{tmp_path}/mlflow.db"
        self.tracker = Tracker(self.uri, None, "newsroom", lock=tmp_path / "mlflow.lock")
        self.store = self.tracker.client.store
        self.notes = []

    def annotator(self, **options):
        run = Run(0)
        run.mlflow_uri, run.pipeline, run.note = self.uri, "newsroom", self.notes.append
        return MlflowReview(MlflowReview.Config(**options), run=run)

    def queue(self, name):
        return self.store.get_review_queue_by_name(self.tracker.experiment_id, name=name)

    def traces(self, name):
        ids = [item.item_id for item in self.store.list_review_queue_items(self.queue(name).queue_id)]
        return {trace.info.tags["rlhf.item"]: trace for trace in self.store.batch_get_traces(ids)}

    def say(self, queue, question, reviewer, values, status="complete", rationale=None):
        trace = self.traces(queue)[question.id]
        for name, value in values.items():
            source = AssessmentSource(source_type="HUMAN", source_id=reviewer)
            given = Feedback(name=name, value=value, source=source, rationale=rationale, trace_id=trace.info.trace_id)
            self.store.create_assessment(given)
        if status:
            place = {"item_id": trace.info.trace_id, "status": status}
            if status != "pending":
                place["completed_by"] = reviewer
            self.store.set_review_queue_item_status(self.queue(queue).queue_id, **place)


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory):
    return Mlflow(tmp_path_factory.mktemp("mlflow"))


WHICH = "Which answer is better?"


def test_pairs(mlflow):
    asked = [question(f"pair {n}", ["one", HOSTILE], wanted=2 if n == 0 else 1) for n in range(4)]
    asking = mlflow.annotator(guidelines="Be fair.", reviewers=("ann", "ben"))
    assert list(asking.annotate(asked)) == []
    asking.post(asked)  # changes nothing
    name = "newsroom pair of 2"
    traces = mlflow.traces(name)
    assert sorted(traces) == sorted(each.id for each in asked)
    assert sorted(mlflow.queue(name).users) == ["ann", "ben"]
    (span,) = traces[asked[0].id].data.spans
    letters = by_letter(asked[0])
    assert span.outputs == {letter: sample.text.replace("\0", "\ufffd") for letter, sample in letters.items()}
    assert span.inputs["prompt"] == "pair 0"
    assert asked[0].samples[0].policy not in str(span.inputs)

    edit = "A better answer, if you have one"
    mlflow.say(name, asked[0], "ann", {WHICH: "B is better", edit: "new"}, status=None, rationale="why")
    assert list(asking.collect(asked)) == []  # not marked as complete yet
    mlflow.say(name, asked[0], "ben", {WHICH: "both are equally good"})
    mlflow.say(name, asked[1], "ann", {}, status="declined")
    mlflow.say(name, asked[2], "ann", {WHICH: "A is the best ever"})
    given = list(asking.collect(asked))
    found = {(each.question_id, each.annotator, type(each)): each for each in given}
    pair = found[asked[0].id, "ann", Comparison]
    assert (pair.first, pair.second, pair.choice) == (letters["A"].id, letters["B"].id, "second")
    assert "why" in pair.comment
    assert found[asked[0].id, "ann", Demonstration].text == "new"
    assert found[asked[0].id, "ben", Comparison].choice == "tie"
    assert (asked[1].id, "ann", Skip) in found
    assert len(given) == 4
    assert "1 answers cannot be read (the first is ann" in mlflow.notes[-1]
    assert asking.missing(asked, given) == 2
    assert [each.id for each in asking.collect(asked)] == [each.id for each in given]


@pytest.mark.parametrize("size", [3, 5])
def test_rankings_are_chosen_or_written_down(mlflow, size):
    asked = question(f"rank {size}", [f"text {n}" for n in range(size)])
    asking = mlflow.annotator()
    asking.post([asked])
    order = "BCAED"[:size] if size == 5 else "BCA"
    words = " > ".join(order) if size == 3 else "b, c a E d"
    mlflow.say(f"newsroom ranking of {size}", asked, "ann", {f"Rank {size} answers": words})
    (ranking,) = asking.collect([asked])
    assert isinstance(ranking, Ranking)
    letters = by_letter(asked)
    assert ranking.samples == tuple(letters[letter].id for letter in order)


def test_ratings_and_own_answers(mlflow):
    rated, bare = question("rated", ["good", "bad"]), Question(prompt=Prompt(text="write"))
    asking = mlflow.annotator(form="rating", criteria={"clear": "", "short": "few words"}, low=0, high=3)
    writing = mlflow.annotator()
    asking.post([rated])
    writing.post([bare])
    scores = {f"{x}: {c} (0 to 3)": n for n, (x, c) in enumerate((x, c) for x in "AB" for c in ("clear", "short"))}
    mlflow.say(asking.place("newsroom", ("rating", 2)), rated, "ann", scores)
    mlflow.say("newsroom writing", bare, "ann", {"Your answer": "mine"})
    ratings = list(asking.collect([rated]))
    assert all(isinstance(each, Rating) and (each.low, each.high) == (0, 3) for each in ratings)
    names = {sample.id: letter for letter, sample in by_letter(rated).items()}
    assert {f"{names[r.sample]}: {r.criterion} (0 to 3)": r.score for r in ratings} == scores
    (own,) = writing.collect([bare])
    assert own.text == "mine"


def test_machines_and_what_was_taken_back_do_not_count(mlflow):
    asked = question("machine", ["one", "two"])
    asking = mlflow.annotator()
    asking.post([asked])
    trace = mlflow.traces("newsroom pair of 2")[asked.id].info.trace_id
    judge = AssessmentSource(source_type="LLM_JUDGE", source_id="judge")
    mlflow.store.create_assessment(Feedback(name=WHICH, value="A is better", source=judge, trace_id=trace))
    mlflow.say("newsroom pair of 2", asked, "ann", {WHICH: "A is better"})
    assert [each.annotator for each in asking.collect([asked])] == ["ann"]
    mlflow.say("newsroom pair of 2", asked, "ann", {}, status="pending")
    assert list(asking.collect([asked])) == []


def test_a_scale_that_the_experiment_has_otherwise(mlflow):
    asked = question("other", ["one", "two"])
    mlflow.store.create_label_schema(
        mlflow.tracker.experiment_id, name="A: style (1 to 5)", type="feedback", input=text_input()
    )
    with pytest.raises(TrackingError, match="in another way already"):
        mlflow.annotator(form="rating", criteria={"style": ""}, queue="another").post([asked])


def text_input():
    from mlflow.genai.label_schemas import InputText

    return InputText()


def test_no_store_and_no_server():
    with pytest.raises(DataError, match="this run has none"):
        MlflowReview().post([question("p", ["a", "b"])])
    run = Run(0)
    run.mlflow_uri = "http://127.0.0.1:9"
    with pytest.raises(TrackingError, match="does not answer"):
        MlflowReview(run=run).post([question("p", ["a", "b"])])


def test_it_keeps_the_contract(rlhf_conformance):
    rlhf_conformance(MlflowReview)
