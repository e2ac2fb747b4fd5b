"""The annotator `label_studio`, against a real server (slow) and against what that server said (recorded).

`RLHF_TEST_LABEL_STUDIO` names the program `label-studio` of an environment of its own (it wants other versions of
shared packages than we do), or the address of a running server whose token is in `LABEL_STUDIO_TOKEN`. The slow test
writes what it exchanged to `recorded/label_studio.json`, where RLHF_RECORD is set.
"""

import json
import os
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from exchanges import Exchanges, serving
from rlhf_core import Answer, Comparison, Demonstration, Message, Prompt, Question, Ranking, Rating, Run, Sample, Skip
from rlhf_core.errors import ServerError
from rlhf_core.feedback.export import label_studio_tasks
from rlhf_core.feedback.lettered import by_letter
from rlhf_plugins.annotators.label_studio import LabelStudio, label_config
from rlhf_plugins.data_sources.label_studio import LabelStudioExport

RECORDED = Path(__file__).parent / "recorded" / "label_studio.json"
TOKEN = "5f5b7e6c0d1a4b3f8e2d9c7a6b5f4e3d2c1b0a99"
HOSTILE = '<img src=x onerror="alert(1)">"/></View><script>alert(2)</script> $prompt {{ s3://bucket \0'
CRITERIA = {"clear": "easy & quick to read", 'no "clickbait"': ""}


class Notes(Run):
    def __init__(self):
        super().__init__()
        self.pipeline, self.notes = "newsroom", []

    def note(self, text):
        self.notes.append(text)


def question(name, texts, **fields):
    prompt = Prompt(text=name)
    return Question(prompt=prompt, samples=tuple(Sample(prompt_id=prompt.id, text=text) for text in texts), **fields)


PAIRS = [question(f"pair {n}", [f"one {n}", HOSTILE]) for n in range(3)]
TRIPLE = question("three", ["一", "two", "three"])
RATED = question("rated", ["good", "bad"])
CHAT = Prompt(messages=(Message(role="user", content=HOSTILE),))
WRITTEN = Question(prompt=CHAT)


def annotator(url, **options):
    return LabelStudio(LabelStudio.Config(url=url, **options), run=Notes())


def tasks(client, title):
    (project,) = (
        each
        for each in client.get("/api/projects", params={"title": title}).json()["results"]
        if each["title"] == title
    )
    found = client.get("/api/tasks", params={"project": project["id"], "fields": "all"}).json()["tasks"]
    return {task["data"]["question"]: task for task in found}


def result(name, kind, value, to="prompt"):
    return {"from_name": name, "to_name": to, "type": kind, "value": value}


def give(client, task, *results, **fields):
    reply = client.post(f"/api/tasks/{task['id']}/annotations/", json={"result": list(results), **fields})
    assert reply.status_code == 201, reply.text
    return reply.json()


def story(url, monkeypatch, token=TOKEN):
    """Post, answer as Label Studio's page does, collect."""
    monkeypatch.setenv("LABEL_STUDIO_TOKEN", token)
    client = httpx.Client(base_url=url, headers={"Authorization": f"Token {token}"}, timeout=60)
    asking = annotator(url, guidelines="Be <b>fair</b>.\nAlways.")
    rating = annotator(url, form="rating", criteria=CRITERIA, low=0, high=3)
    asked = [*PAIRS, TRIPLE, WRITTEN]
    assert list(asking.annotate(asked)) == []
    assert list(rating.annotate([RATED])) == []
    asking.post(asked)  # changes nothing

    pairs = tasks(client, "newsroom pair of 2")
    assert sorted(pairs) == sorted(each.id for each in PAIRS)
    letters = by_letter(PAIRS[0])
    data = pairs[PAIRS[0].id]["data"]
    assert {data["A"], data["B"]} == {"one 0", HOSTILE.replace("\0", "\ufffd")}
    assert data["A"] == letters["A"].text.replace("\0", "\ufffd")
    said = give(
        client, pairs[PAIRS[0].id], result("better", "choices", {"choices": ["A is slightly better"]}),
        result("edited", "textarea", {"text": ["Two & <b>", "lines"]}),
        result("comment", "textarea", {"text": ["why"]}),
        lead_time=4.5,
    )  # fmt: skip
    give(client, pairs[PAIRS[1].id], was_cancelled=True)
    give(client, pairs[PAIRS[2].id], result("better", "choices", {"choices": ["both are bad"]}))
    triple = tasks(client, "newsroom ranking of 3")[TRIPLE.id]
    give(client, triple, result("ranking", "ranker", {"ranker": ["B", "C", "A"]}, "items"))
    written = tasks(client, "newsroom writing")[WRITTEN.id]
    give(client, written, result("answer", "textarea", {"text": ["My answer"]}))
    rated = tasks(client, rating.place("newsroom", ("rating", 2)))[RATED.id]
    stars = {("A", 0): 1, ("A", 1): 4, ("B", 0): 2, ("B", 1): 3}
    give(client, rated, *(result(f"rating_{x}_{n}", "rating", {"rating": v}, x) for (x, n), v in stars.items()))

    given = {}
    for each in asking.collect(asked):
        given.setdefault(each.question_id, []).append(each)
    pair, edit = given[PAIRS[0].id]
    assert isinstance(pair, Comparison) and isinstance(edit, Demonstration)
    assert (pair.first, pair.second) == (letters["A"].id, letters["B"].id)
    assert (pair.choice, pair.strength, pair.comment, pair.seconds) == ("first", 0.5, "why", 4.5)
    assert pair.annotator == "lead@example.org"
    assert edit.text == "Two & <b>\nlines"
    (skip,) = given[PAIRS[1].id]
    assert isinstance(skip, Skip)
    (bad,) = given[PAIRS[2].id]
    assert (bad.choice, bad.both_bad) == ("tie", True)
    (ranking,) = given[TRIPLE.id]
    assert isinstance(ranking, Ranking)
    assert [ranking.samples[place] for place in range(3)] == [by_letter(TRIPLE)[x].id for x in "BCA"]
    assert ranking.ranks == (1, 2, 3)
    (own,) = given[WRITTEN.id]
    assert isinstance(own, Demonstration) and own.text == "My answer"
    assert asking.missing(asked, [each for several in given.values() for each in several]) == 0
    ratings = list(rating.collect([RATED]))
    assert all(isinstance(each, Rating) and (each.low, each.high) == (0, 3) for each in ratings)
    names = {sample.id: letter for letter, sample in by_letter(RATED).items()}
    assert {(names[r.sample], list(CRITERIA).index(r.criterion)): r.score for r in ratings} == {
        place: value - 1 for place, value in stars.items()
    }

    # What is changed later counts instead; the same answers again are the same.
    changed = {"result": [result("better", "choices", {"choices": ["B is better"]})]}
    assert client.patch(f"/api/annotations/{said['id']}/", json=changed).status_code == 200
    (again,) = (each for each in asking.collect(PAIRS[:1]) if isinstance(each, Comparison))
    assert (again.choice, again.strength) == ("second", 1.0)
    assert [each.id for each in asking.collect(PAIRS[1:])] == [skip.id, bad.id]

    # An answer that does not answer the question is left out, and said.
    client.patch(f"/api/annotations/{said['id']}/", json={"result": []})
    assert list(asking.collect(PAIRS[:1])) == []
    assert asking.run.notes[-1].startswith("1 answers cannot be read (the first is lead@example.org on")


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory):
    """(address, token) of a real server."""
    program = os.environ.get("RLHF_TEST_LABEL_STUDIO", "")
    if program.startswith("http"):
        yield program, os.environ["LABEL_STUDIO_TOKEN"]
        return
    if not Path(program).is_file():
        pytest.skip("RLHF_TEST_LABEL_STUDIO names no program `label-studio` and no address of a running server")
    folder = tmp_path_factory.mktemp("label-studio")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quiet = {"COLLECT_ANALYTICS": "False", "LATEST_VERSION_CHECK": "False", "SENTRY_DSN": "", "DJANGO_DB": "sqlite"}
    command = [
        program, "start", "-b", "--internal-host", "127.0.0.1", "-p", str(port), "--username", "lead@example.org",
        "--password", "a-password", "--user-token", TOKEN, "--enable-legacy-api-token",
    ]  # fmt: skip
    with (folder / "log").open("w") as log:
        environment = {**os.environ, **quiet, "LABEL_STUDIO_BASE_DATA_DIR": str(folder)}
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 240
        while True:
            try:
                httpx.get(f"{address}/health", timeout=5).raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
                time.sleep(1)
        yield address, TOKEN
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
def test_against_a_real_server(label_studio, monkeypatch):
    address, token = label_studio
    exchanges = Exchanges(token, target=address)
    with serving(exchanges) as url:
        story(url, monkeypatch, token)
    if os.environ.get("RLHF_RECORD"):
        exchanges.write(RECORDED)


@pytest.mark.slow
def test_exported_answers_go_into_a_real_server_and_out_again(label_studio, tmp_path):
    address, token = label_studio
    given = [
        Answer(question=PAIRS[0], feedback=PAIRS[0].compare([1, 0], strength=0.5, annotator="ann", comment="why")),
        Answer(question=PAIRS[1], feedback=PAIRS[1].compare([0, 1], annotator="ben")),
    ]
    client = httpx.Client(base_url=address, headers={"Authorization": f"Token {token}"}, timeout=60)
    made = {"title": "imported", "label_config": label_config(annotator(address), "pair", 2)}
    project = client.post("/api/projects", json=made).json()["id"]
    tasks = json.loads("".join(label_studio_tasks(given)))
    assert client.post(f"/api/projects/{project}/import", json=tasks).json()["annotation_count"] == 2
    path = tmp_path / "export.json"
    path.write_bytes(client.get(f"/api/projects/{project}/export", params={"exportType": "JSON"}).content)
    found = {each.feedback.annotator: each for each in LabelStudioExport(path=path).feedback()}
    assert found["ann"].feedback.strength == 0.5 and found["ann"].feedback.comment == "why"
    for answer in given:
        back = found[answer.feedback.annotator]
        assert better_text(back) == better_text(answer).replace("\0", "\ufffd")


def better_text(answer):
    texts = {sample.id: sample.text for sample in answer.question.samples}
    return texts[answer.feedback.first if answer.feedback.choice == "first" else answer.feedback.second]


def test_against_what_a_real_server_said(monkeypatch):
    """Recorded by the slow test with Label Studio 1.23.2."""
    exchanges = Exchanges(TOKEN, known=json.loads(RECORDED.read_text("utf-8")))
    with serving(exchanges) as url:
        story(url, monkeypatch)
    assert exchanges.strange == []
    assert sum(each.startswith("POST /api/projects/") for each in exchanges.asked) == 4  # nothing was posted twice


class Says:
    """A server that answers everything with the same."""

    def __init__(self, status, text):
        self.said = (status, text)

    def answer(self, *_):
        return self.said


@pytest.mark.parametrize(
    ("status", "text", "what", "remedy"),
    [
        (401, '{"detail": "Invalid token."}', "refuses the token", "LABEL_STUDIO_TOKEN"),
        (500, "oops", r"is in trouble \(500\): oops", "Try again later"),
        (400, '{"title": ["no"]}', r"refuses \(400\)", ""),
        (200, "<html>Log in</html>", "does not answer with JSON but with '<html>", "Does `url` name the right server"),
        (200, '"yes"', "answers something unexpected", ""),
    ],
)
def test_servers_that_do_not_work(monkeypatch, status, text, what, remedy):
    monkeypatch.setenv("LABEL_STUDIO_TOKEN", TOKEN)
    with serving(Says(status, text)) as url:
        for act in (lambda: annotator(url).post(PAIRS), lambda: list(annotator(url).collect(PAIRS))):
            with pytest.raises(ServerError, match=what) as error:
                act()
            assert remedy in error.value.remedy
            assert TOKEN not in str(error.value)
            assert error.value.where.startswith(url)


def test_a_server_that_is_not_there(monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_TOKEN", TOKEN)
    with pytest.raises(ServerError, match="cannot be reached") as error:
        annotator("http://127.0.0.1:9").post(PAIRS)
    assert "goes on from here" in error.value.remedy


def test_no_token(monkeypatch):
    monkeypatch.delenv("LABEL_STUDIO_TOKEN", raising=False)
    with pytest.raises(ServerError, match="LABEL_STUDIO_TOKEN is not set"):
        annotator("http://127.0.0.1:9").post(PAIRS)


def test_a_personal_access_token_buys_another_one(monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_TOKEN", "head.body.tail")
    seen = []

    class Bank:
        def answer(self, method, path, headers, body):
            seen.append((method, path, headers.get("authorization"), body))
            return 200, '{"access": "short"}' if path.endswith("refresh") else '{"results": [], "next": null, "id": 1}'

    with serving(Bank()) as url, pytest.raises(ServerError, match="unexpected"):
        annotator(url).post(PAIRS)
    assert seen[0] == ("POST", "/api/token/refresh", None, b'{"refresh":"head.body.tail"}')
    assert {authorization for _, _, authorization, _ in seen[1:]} == {"Bearer short"}


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("labels.example.org", "begins with http"),
        ("http://labels.example.org", "use https, or say `without_tls`"),
        ("https://me:secret@labels.example.org", "holds no password"),
        ("ftp://labels.example.org", "begins with http"),
    ],
)
def test_addresses_that_are_refused(url, what):
    with pytest.raises(ValidationError, match=what):
        LabelStudio.Config(url=url)
    LabelStudio.Config(url="http://labels.example.org", without_tls=True)


def test_it_keeps_the_contract(monkeypatch, rlhf_conformance):
    """On a server that has a project of every look, in which nobody has answered."""
    monkeypatch.setenv("LABEL_STUDIO_TOKEN", TOKEN)
    titles = [f"rlhf {view} of {size}" for view, size in (("pair", 2), ("ranking", 3))]

    class Empty:
        def answer(self, method, path, headers, body):
            if path.startswith("/api/projects?"):
                return 200, json.dumps({"results": [{"id": n, "title": t} for n, t in enumerate(titles)], "next": None})
            return 200, '{"tasks": [], "total": 0}' if path.startswith("/api/tasks") else "[]"

    with serving(Empty()) as url:
        rlhf_conformance(LabelStudio, url=url)
