"""The annotator `argilla` against a server written by hand for this test.

A real Argilla server needs Elasticsearch and was not run. The exchanges follow the HTTP requests and the models of the
official client, `argilla` 2.8 on PyPI (`argilla/_api`, `argilla/_models`).
"""

import json
import re
from urllib.parse import parse_qs, urlsplit

import pytest

from exchanges import serving
from rlhf_core import Comparison, Demonstration, Prompt, Question, Ranking, Rating, Run, Sample, Skip
from rlhf_core.errors import ServerError
from rlhf_core.feedback.lettered import by_letter
from rlhf_plugins.annotators.argilla import Argilla

KEY = "owner.apikey"
HOSTILE = '<img src=x onerror="alert(1)"> [x](javascript:alert(2)) \0'
NAME = re.compile(r"^(?=.*[a-z0-9])[a-z0-9_-]+$")


class HandWritten:
    """What we need of Argilla."""

    def __init__(self):
        self.datasets, self.fields, self.questions, self.records, self.refused = {}, {}, {}, {}, None

    def answer(self, method, path, headers, body):
        if headers.get("x-argilla-api-key") != KEY:
            return 401, '{"detail": {"code": "argilla.api.errors::UnauthorizedError"}}'
        url, content = urlsplit(path), json.loads(body) if body else None
        status, said = self.handle(method, url.path.removeprefix("/api/v1"), parse_qs(url.query), content)
        return status, json.dumps(said)

    def handle(self, method, path, query, content):
        if path == "/me/workspaces":
            return 200, {"items": [{"id": "w0", "name": "other"}, {"id": "w1", "name": "team"}]}
        if path == "/users":
            return 200, {"items": [{"id": "u1", "username": "ann"}, {"id": "u2", "username": "ben"}]}
        if path == "/me/datasets":
            return 200, {"items": list(self.datasets.values())}
        if path == "/datasets":
            assert NAME.match(content["name"]), content
            made = {**content, "id": f"d{len(self.datasets)}", "status": "draft"}
            self.datasets[made["id"]] = made
            return 201, made
        _, _, dataset, part, *rest = path.split("/")
        if part in ("fields", "questions"):
            kept = getattr(self, part).setdefault(dataset, {})
            if method == "GET":
                return 200, {"items": list(kept.values())}
            assert NAME.match(content["name"]) and content["name"] not in kept
            if self.refused == content["name"]:
                return 500, {"detail": "killed"}
            kept[content["name"]] = content
            return 201, content
        if part == "publish":
            self.datasets[dataset]["status"] = "ready"
            return 200, self.datasets[dataset]
        assert self.datasets[dataset]["status"] == "ready"
        kept = self.records.setdefault(dataset, {})
        if rest == ["bulk"]:
            for item in content["items"]:
                assert set(item["fields"]) <= set(self.fields[dataset])
                kept.setdefault(item["external_id"], {"responses": []}).update(item)
            return 200, {"items": list(kept.values()), "updated_item_ids": []}
        start, stop = int(query["offset"][0]), int(query["offset"][0]) + int(query["limit"][0])
        assert query["include"] == ["responses"]
        return 200, {"items": list(kept.values())[start:stop]}

    def dataset(self, name):
        (found,) = (each for each in self.datasets.values() if each["name"] == name)
        return found["id"]

    def respond(self, name, question, user, values, status="submitted", at="2026-03-01T10:00:00"):
        dataset = self.dataset(name)
        unknown = set(values) - set(self.questions[dataset])
        assert not unknown, unknown
        responses = self.records[dataset][question.id]["responses"]
        responses[:] = [each for each in responses if each["user_id"] != user]
        given = {field: {"value": value} for field, value in values.items()}
        responses.append({"user_id": user, "status": status, "values": given, "updated_at": at})


def question(name, texts, **fields):
    prompt = Prompt(text=name)
    return Question(prompt=prompt, samples=tuple(Sample(prompt_id=prompt.id, text=text) for text in texts), **fields)


class Notes(Run):
    def __init__(self):
        super().__init__()
        self.pipeline, self.notes = "News Room", []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("ARGILLA_API_KEY", KEY)
    server = HandWritten()
    with serving(server) as url:
        server.url = url
        yield server


def annotator(server, **options):
    return Argilla(Argilla.Config(url=server.url, workspace="team", **options), run=Notes())


def test_pairs(server):
    asked = [question(f"pair {n}", ["one", HOSTILE], wanted=2) for n in range(4)]
    asking = annotator(server, guidelines="Be fair.")
    assert list(asking.annotate(asked)) == []
    asking.post(asked)
    name = "news-room-pair-of-2"
    dataset = server.dataset(name)
    assert server.datasets[dataset]["distribution"] == {"strategy": "overlap", "min_submitted": 2}
    assert server.datasets[dataset]["workspace_id"] == "w1"
    assert all(each["settings"] == {"type": "text", "use_markdown": False} for each in server.fields[dataset].values())
    letters = by_letter(asked[0])
    assert server.records[dataset][asked[0].id]["fields"] == {
        "prompt": "pair 0",
        **{letter.lower(): sample.text.replace("\0", "\ufffd") for letter, sample in letters.items()},
    }
    assert len(server.records[dataset]) == 4

    server.respond(name, asked[0], "u1", {"better": "A is slightly better", "edited": "new", "comment": "why"})
    server.respond(name, asked[0], "u2", {"better": "both are bad"})
    server.respond(name, asked[1], "u1", {}, status="discarded")
    server.respond(name, asked[1], "u2", {"better": "B is better"}, status="draft")
    server.respond(name, asked[2], "u3", {"better": ["A"]})
    given = list(asking.collect(asked))
    found = {(each.question_id, each.annotator, type(each)): each for each in given}
    pair = found[asked[0].id, "ann", Comparison]
    assert (pair.first, pair.second) == (letters["A"].id, letters["B"].id)
    assert (pair.choice, pair.strength, pair.comment) == ("first", 0.5, "why")
    assert pair.given_at == "2026-03-01T10:00:00.000000+00:00"
    assert found[asked[0].id, "ann", Demonstration].text == "new"
    assert found[asked[0].id, "ben", Comparison].both_bad
    assert (asked[1].id, "ann", Skip) in found
    assert len(given) == 4
    assert asking.run.notes == [
        f"1 answers cannot be read (the first is argilla u3 on {asked[2].id}: this is no answer to a pair: "
        "unhashable type: 'list')"
    ]
    assert asking.missing(asked, given) == 5
    server.respond(name, asked[0], "u2", {"better": "B is better"}, at="2026-03-02T10:00:00")
    changed = {each.annotator: each for each in asking.collect(asked[:1]) if isinstance(each, Comparison)}
    assert changed["ben"].choice == "second"


def test_rankings_with_ties_ratings_and_own_answers(server):
    ranked, rated, bare = question("r", "abc"), question("q", "ab"), Question(prompt=Prompt(text="write"))
    asking = annotator(server)
    rating = annotator(server, form="rating", criteria={"clear": "", "short": "few words"}, low=0, high=3)
    asking.post([ranked, bare])
    rating.post([rated])
    order = [{"value": "B", "rank": 1}, {"value": "A", "rank": 2}, {"value": "C", "rank": 2}]
    server.respond("news-room-ranking-of-3", ranked, "u1", {"ranking": order})
    server.respond("news-room-writing", bare, "u1", {"answer": "mine"})
    scores = {("A", 0): 3, ("A", 1): 0, ("B", 0): 1, ("B", 1): 2}
    place = next(each["name"] for each in server.datasets.values() if "rating-of-2" in each["name"])
    server.respond(place, rated, "u1", {f"rating_{x.lower()}_{n}": v for (x, n), v in scores.items()})
    ranking, own = sorted(asking.collect([ranked, bare]), key=lambda each: each.kind, reverse=True)
    assert isinstance(ranking, Ranking)
    letters = by_letter(ranked)
    assert dict(zip(ranking.samples, ranking.ranks, strict=True)) == {
        letters["B"].id: 1, letters["A"].id: 2, letters["C"].id: 2,
    }  # fmt: skip
    assert own.text == "mine"
    ratings = list(rating.collect([rated]))
    assert all(isinstance(each, Rating) and (each.low, each.high) == (0, 3) for each in ratings)
    names = {sample.id: letter for letter, sample in by_letter(rated).items()}
    assert {(names[r.sample], ["clear", "short"].index(r.criterion)): r.score for r in ratings} == scores
    options = server.questions[server.dataset(place)]["rating_a_0"]["settings"]["options"]
    assert options == [{"value": step} for step in range(4)]


def test_another_scale_is_another_dataset(server):
    rated = question("q", "ab")
    for options in ({"high": 5}, {"high": 7}, {"high": 5}, {"high": 5, "criteria": {"style": ""}}):
        annotator(server, form="rating", **options).post([rated])
    assert len(server.datasets) == 3


def test_a_dataset_that_was_left_half_made_is_completed(server):
    asked, server.refused = [question("p", "ab")], "edited"
    with pytest.raises(ServerError, match=r"is in trouble \(500\)"):
        annotator(server).post(asked)
    assert server.datasets["d0"]["status"] == "draft"
    server.refused = None
    annotator(server).post(asked)
    assert server.datasets["d0"]["status"] == "ready"
    assert set(server.questions["d0"]) == {"better", "edited", "comment"}
    assert list(server.records["d0"]) == [asked[0].id]


def test_many_records_are_read_page_by_page(server):
    asked = [question(f"p{n}", "ab") for n in range(1003)]
    asking = annotator(server)
    asking.post(asked)
    for each in (asked[0], asked[700], asked[1002]):
        server.respond("news-room-pair-of-2", each, "u1", {"better": "A is better"})
    assert len(list(asking.collect(asked))) == 3


def test_wrong_key_and_workspace(server, monkeypatch):
    with pytest.raises(ServerError, match="no workspace 'nowhere'"):
        Argilla(url=server.url, workspace="nowhere").post([question("p", "ab")])
    monkeypatch.setenv("ARGILLA_API_KEY", "wrong")
    with pytest.raises(ServerError, match="refuses the token") as error:
        annotator(server).post([question("p", "ab")])
    assert "ARGILLA_API_KEY" in error.value.remedy
    monkeypatch.delenv("ARGILLA_API_KEY")
    with pytest.raises(ServerError, match="is not set"):
        list(annotator(server).collect([question("p", "ab")]))


def test_answers_of_another_form(monkeypatch):
    monkeypatch.setenv("ARGILLA_API_KEY", KEY)

    class Strange:
        def answer(self, *_):
            return 200, "[]"

    with serving(Strange()) as url, pytest.raises(ServerError, match="answers something unexpected"):
        list(Argilla(url=url).collect([question("p", "ab")]))


def test_it_keeps_the_contract(server, rlhf_conformance):
    rlhf_conformance(Argilla, url=server.url)
