"""The annotators' server without a browser: who may do what, what is accepted, what is given away."""

import json
import re

import pytest
from fastapi.testclient import TestClient
from mixed import PREFERENCE, RATING, hostile, post_mixed, question

from rlhf_core.errors import RlhfError
from rlhf_core.feedback.people import People
from rlhf_core.feedback.queue import QuestionQueue
from rlhf_core.feedback.store import FeedbackStore
from rlhf_flows.annotation.access import CSRF_HEADER, SESSION, RateLimit
from rlhf_flows.annotation.app import make_app
from rlhf_flows.annotation.headers import BODY_LIMIT
from rlhf_flows.annotation.serving import LOCAL_NAMES, Address
from rlhf_flows.annotation.shown import shown_order
from rlhf_flows.annotation.words import LANGUAGES, words_in


@pytest.fixture
def store(tmp_path):
    with FeedbackStore(f"sqlite:///{tmp_path}/feedback.db") as opened:
        yield opened


@pytest.fixture
def queue(store):
    return QuestionQueue(store)


def app_for(store, guest="guest"):
    return make_app(store, guest, hosts=[*LOCAL_NAMES, "testserver"])


class Visitor:
    """A browser without a screen."""

    def __init__(self, app, token=None):
        self.client = TestClient(app)
        if token:
            assert self.client.get(f"/join/{token}", follow_redirects=False).status_code == 303
        page = self.client.get("/")
        self.csrf = re.search('name="csrf" content="(.*?)"', page.text)[1]

    def post(self, path, content, **headers):
        return self.client.post(path, json=content, headers={CSRF_HEADER: self.csrf, **headers})

    def next(self):
        return self.client.get("/api/next").json()["item"]

    def answer(self, item, **given):
        return self.post("/api/answer", {"form": item["form"], "question": item["question"], "given": given})


@pytest.fixture
def guest(store, queue):
    return Visitor(app_for(store))


def test_an_answer_is_in_the_store_with_the_order_that_was_shown(guest, store, queue):
    asked = [question(number, 2) for number in range(8)]
    queue.post(PREFERENCE, asked, campaign="c", round=4)
    for _ in asked:
        item = guest.next()
        said = guest.answer(item, view="pair", choice="first", strength="slightly", seconds=3.5, comment=" why ")
        assert said.json()["accepted"]
    answers = list(store.answers())
    assert len(answers) == 8
    for answer in answers:
        first, second = shown_order(answer.question, "guest")
        feedback = answer.feedback
        assert (feedback.first, feedback.second) == (first.id, second.id)
        assert (feedback.choice, feedback.strength, feedback.probability) == ("first", 0.5, 0.75)
        assert (feedback.annotator, feedback.source, feedback.seconds) == ("guest", "person", 3.5)
        assert feedback.comment == "why"
        assert store.feedback(feedback.id).round == 4
    # The order is as good as random: not always that of the question.
    assert 0 < sum(answer.feedback.first == answer.question.samples[0].id for answer in answers) < 8


def test_every_view_becomes_its_feedback(guest, store, queue):
    post_mixed(queue, 5)
    samples = {question.id: question for question in (question(0, 2), question(1, 2), question(2, 4), question(3, 2))}
    for _ in range(5):
        item = guest.next()
        given = {
            "pair": {"choice": "tie", "both_bad": True, "edited": "A better headline"},
            "ranking": {"ranks": [2, 1, 2, 4]},
            "rating": {"scores": [{"clear": 5, "lively": 1}, {"clear": 2, "lively": 3}]},
            "writing": {"text": "Bridge opens"},
        }[item["view"]]
        assert guest.answer(item, view=item["view"], **given).status_code == 200
    assert store.counts().kinds == {"comparison": 2, "demonstration": 3, "ranking": 1, "rating": 4}
    for answer in store.answers():
        shown = [sample.id for sample in shown_order(answer.question, "guest")]
        if answer.feedback.kind == "ranking":
            assert list(answer.feedback.samples) == shown
            assert answer.feedback.ranks == (2, 1, 2, 4)
        if answer.feedback.kind == "rating" and answer.feedback.criterion == "clear":
            assert answer.feedback.score == (5 if answer.feedback.sample == shown[0] else 2)
    assert samples.keys() <= {answer.question.id for answer in store.answers()}


@pytest.mark.parametrize(
    ("asked", "form", "given"),
    [
        (question(0, 2), PREFERENCE, {"view": "pair", "choice": "third"}),
        (question(0, 2), PREFERENCE, {"view": "ranking", "ranks": [1, 2]}),
        (question(0, 2), PREFERENCE, {"view": "pair", "choice": "tie", "policy": "x"}),
        (question(0, 2), PREFERENCE, {"view": "pair", "choice": "tie", "seconds": -1}),
        (question(0, 2), PREFERENCE, {"view": "pair", "choice": "tie", "comment": "x" * 50_001}),
        (question(0, 2), PREFERENCE, {"view": "skip", "reason": "<b>"}),
        (question(0, 4), PREFERENCE, {"view": "ranking", "ranks": [1, 2]}),
        (question(0, 4), PREFERENCE, {"view": "ranking", "ranks": [2, 2, 3, 4]}),
        (question(0, 4), PREFERENCE, {"view": "ranking", "ranks": [1, 2, 3, 0]}),
        (question(0, 2), RATING, {"view": "rating", "scores": [{"clear": 5}, {"clear": 2, "lively": 3}]}),
        (question(0, 2), RATING, {"view": "rating", "scores": [{"clear": 6, "lively": 1}] * 2}),
        (question(0, 0), PREFERENCE, {"view": "writing", "text": "  "}),
    ],
)
def test_what_is_no_answer_is_refused_and_stored_nowhere(guest, store, queue, asked, form, given):
    queue.post(form, [asked])
    said = guest.answer(guest.next(), **given)
    assert said.status_code == 422
    assert said.json()["error"]
    assert store.counts().total == 0


def test_the_page_is_told_nothing_of_the_policy(guest, queue):
    queue.post(PREFERENCE, [question(0, 2)])
    told = guest.client.get("/api/next").text + guest.client.get("/").text
    assert "SECRET" not in told
    assert not {sample.id for sample in question(0, 2).samples} & set(re.findall("[0-9a-f]{32}", told))


def test_changes_need_the_csrf_token_and_our_own_page(guest, queue, store):
    queue.post(PREFERENCE, [question(0, 2)])
    item = guest.next()
    content = {"form": item["form"], "question": item["question"], "given": {"view": "pair", "choice": "tie"}}
    assert guest.client.post("/api/answer", json=content).status_code == 403
    assert guest.post("/api/answer", content, **{CSRF_HEADER: "guess"}).status_code == 403
    assert guest.post("/api/answer", content, **{"sec-fetch-site": "cross-site"}).status_code == 403
    assert guest.client.post("/api/undo", json={}).status_code == 403
    headers = {CSRF_HEADER: guest.csrf, "content-type": "text/plain"}
    assert guest.client.post("/api/answer", content=json.dumps(content), headers=headers).status_code == 422
    assert store.counts().total == 0


def test_every_response_forbids_scripts_that_are_not_ours(guest):
    for path in ("/", "/static/answer.js", "/api/next", "/nowhere"):
        headers = guest.client.get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    page = guest.client.get("/").text
    assert not re.search(r"<script(?![^>]*src=)", page)
    assert not re.search(r"\son\w+=|style=", page)
    assert "//" not in re.sub(r"data-words=\"[^\"]*\"", "", page).replace("<!doctype html>", "")


def test_only_invited_people_are_let_in_beyond_this_machine(store, queue):
    app = app_for(store, guest=None)
    client = TestClient(app)
    assert client.get("/api/next").status_code == 401
    assert "invited" in client.get("/").text
    assert client.get("/join/guess").status_code == 401
    token = People(store).invite("ann")
    visitor = Visitor(app, token)
    cookie = next(iter(visitor.client.cookies.jar))
    assert (cookie.name, cookie.has_nonstandard_attr("HttpOnly")) == (SESSION, True)
    queue.post(PREFERENCE, [question(0, 2)])
    visitor.answer(visitor.next(), view="pair", choice="tie")
    assert store.counts().annotators == {"ann": 1}
    People(store).invite("ann")
    assert visitor.client.get("/api/next").status_code == 401


def test_the_guest_is_nobody_behind_a_proxy_or_under_another_name(store, queue):
    client = TestClient(app_for(store))
    assert client.get("/api/next").status_code == 200
    assert client.get("/api/next", headers={"x-forwarded-for": "1.2.3.4"}).status_code == 401
    assert client.get("/api/next", headers={"host": "rebound.example"}).status_code == 400
    assert client.get("/api/next", headers={"cookie": f"{SESSION}=stale"}).status_code == 401


def test_a_paused_annotator_is_told_so(store, queue, guest):
    queue.post(PREFERENCE, [question(0, 2)])
    item = guest.next()
    People(store).pause("guest")
    assert guest.client.get("/api/next").json()["paused"]
    said = guest.answer(item, view="pair", choice="tie")
    assert (said.status_code, said.json()["error"]) == (409, "you are paused; the lead can say why")


def test_undo_and_drafts(store, queue, guest):
    queue.post(PREFERENCE, [question(0, 2), question(1, 2)])
    item = guest.next()
    place = {"form": item["form"], "question": item["question"]}
    assert guest.post("/api/draft", {**place, "draft": {"comment": "half"}}).json() == {"saved": True}
    assert guest.next()["draft"] == {"comment": "half"}
    guest.answer(item, view="pair", choice="tie")
    assert guest.next()["question"] != item["question"]
    back = guest.post("/api/undo", {}).json()
    assert (back["undone"], back["item"]["question"]) == (True, item["question"])
    assert store.counts().total == 0
    assert guest.post("/api/undo", {}).json()["undone"] is False
    assert guest.post("/api/draft", {**place, "draft": "x" * 300_000}).status_code == 422


def test_too_much_is_refused(store, queue, guest):
    large = "x" * (BODY_LIMIT + 1)
    assert guest.post("/api/draft", {"draft": large}).status_code == 413
    chunks = (b"{}" for _ in range(2))
    assert guest.client.post("/api/draft", content=chunks, headers={CSRF_HEADER: guest.csrf}).status_code == 413
    codes = [guest.client.get("/api/next") for _ in range(60)]
    refused = [response for response in codes if response.status_code == 429]
    assert refused
    assert int(refused[0].headers["retry-after"]) >= 1
    guesses = [guest.client.get(f"/join/{number}").status_code for number in range(12)]
    assert guesses[0] == 401
    assert guesses[-1] == 429


def test_a_bucket_refills():
    time = [0.0]
    limit = RateLimit(per_second=2, burst=3, clock=lambda: time[0])
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert limit.take("b") == 0
    time[0] = 0.5
    assert [limit.take("a"), limit.take("a")] == [0, 0.5]
    time[0] = 100
    assert [limit.take("a") for _ in range(4)][-1] > 0


def test_hostile_text_travels_as_data(guest, queue):
    queue.post(PREFERENCE, [hostile()])
    response = guest.client.get("/api/next")
    assert response.headers["content-type"] == "application/json"
    assert "<script>" in response.json()["item"]["samples"][0]["text"]
    page = guest.client.get("/?lang=<script>alert(1)</script>").text
    assert "<script>alert" not in page


def test_both_languages_have_all_the_words(guest):
    english, chinese = words_in("en"), words_in("zh")
    assert english.keys() == chinese.keys()
    assert set(LANGUAGES) == {"en", "zh"}
    assert english["skip"] == "Skip"
    assert "跳过" in guest.client.get("/?lang=zh").text
    assert "跳过" in guest.client.get("/").text  # remembered
    fresh = TestClient(guest.client.app)
    assert "跳过" in fresh.get("/", headers={"accept-language": "fr, zh-CN;q=0.9"}).text


@pytest.mark.parametrize(
    ("address", "url", "hosts"),
    [
        (Address(), "http://127.0.0.1:8765", LOCAL_NAMES),
        (Address("0.0.0.0", 80, without_tls=True), "http://0.0.0.0:80", ["*"]),
        (Address(name="ask.example.org", without_tls=True), "https://ask.example.org", ["ask.example.org"]),
    ],
)
def test_addresses(address, url, hosts):
    address.check()
    assert (address.url, address.hosts) == (url, hosts)


def test_a_public_address_demands_tls(tmp_path):
    with pytest.raises(RlhfError, match="everybody on the way reads along"):
        Address("0.0.0.0").check()
    with pytest.raises(RlhfError, match="both a certificate and its key"):
        Address(certificate=tmp_path).check()


@pytest.fixture
def answered(store, queue):
    """Ten pairs, compared by three: ann and ben agree on all, con differs on the first four; ben skips the last."""
    asked = [question(number, 2, wanted=3) for number in range(10)]
    queue.post(PREFERENCE, asked, campaign="c", round=1)
    for name in ("ann", "ben", "con"):
        for number, each in enumerate(asked):
            held = queue.next(name)
            assert held.question == each
            scores = (0, 1) if name == "con" and number < 4 else (1, 0)
            said = each.compare(scores, seconds=2.0 + number, comment="<i>why</i>" if number == 0 else "")
            given = each.skip("unclear") if name == "ben" and number == 9 else said
            queue.answer(name, held.form.id, each.id, [given])
    return asked


def test_the_lead_sees_how_everybody_is_doing(store, queue, guest, answered):
    queue.post(PREFERENCE, [question(20, 2)])
    page = guest.client.get("/lead").text
    assert "30 <small>/ 31</small>" in page
    assert "&lt;i&gt;why&lt;/i&gt;" in page and "<i>why" not in page
    assert [name in page for name in ("ann", "ben", "con")] == [True] * 3
    # 4 of 9 pairs with three answers and the last with two: 4 * 2 + 0 = 8 unequal of 9 * 3 + 1 = 28 pairs.
    assert f"{20 / 28:.2f} <small>n=10</small>" in page
    assert page.count('class="said"') == 4


def test_the_lead_page_is_for_leads(store, queue, answered):
    people = People(store)
    app = app_for(store, guest=None)
    ann = Visitor(app, people.invite("ann"))
    assert ann.client.get("/lead").status_code == 403
    assert ann.client.get("/lead/export/answers.jsonl").status_code == 403
    assert ann.post("/lead/api/withdraw", {"name": "con"}).status_code == 403
    assert ann.post("/lead/api/invite", {"name": "me", "role": "lead"}).status_code == 403
    boss = Visitor(app, people.invite("boss", "lead"))
    assert boss.client.get("/lead").status_code == 200
    assert boss.client.post("/lead/api/pause", json={"name": "ann", "paused": True}).status_code == 403  # no CSRF token
    assert boss.post("/lead/api/pause", {"name": "ann", "paused": True}).json() == {"paused": True}
    assert ann.client.get("/api/next").json()["paused"]
    assert boss.post("/lead/api/withdraw", {"name": "con"}).json() == {"withdrawn": 10}
    assert store.counts().annotators == {"ann": 10, "ben": 10}
    link = boss.post("/lead/api/invite", {"name": "dora", "role": "annotator"}).json()["link"]
    assert people.holder(link.rsplit("/", 1)[1]).name == "dora"
    assert boss.post("/lead/api/invite", {"name": "<b>"}).status_code == 503


def test_exports(guest, answered, store, tmp_path):
    import pyarrow.parquet as pq

    from rlhf_core.records import Answer

    lines = guest.client.get("/lead/export/answers.jsonl").text.splitlines()
    assert [Answer.model_validate_json(line).id for line in lines] == [answer.id for answer in store.answers()]
    (tmp_path / "a.parquet").write_bytes(guest.client.get("/lead/export/answers.parquet").content)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table["feedback_id"].to_pylist() == [answer.feedback.id for answer in store.answers()]
    rows = [json.loads(line) for line in guest.client.get("/lead/export/preferences-trl.jsonl").text.splitlines()]
    assert len(rows) == 10
    texts = {sample.text for each in answered for sample in each.samples}
    assert all(row["chosen"] in texts and row["rejected"] in texts and row["chosen"] != row["rejected"] for row in rows)
    first = {each.prompt.text: each.samples[0].text for each in answered}
    assert all(row["chosen"] == first[row["prompt"]] for row in rows)
    lead = guest.client.get("/lead").text
    for name in ("preferences-hh.jsonl", "label-studio.json", "argilla.json"):
        reply = guest.client.get(f"/lead/export/{name}")
        assert reply.headers["content-disposition"] == f'attachment; filename="{name}"'
        assert f'href="/lead/export/{name}"' in lead
        assert reply.text.count("prompt") if name.endswith(".json") else reply.text.count("Human:")
    assert guest.client.get("/lead/export/secrets").status_code == 422
