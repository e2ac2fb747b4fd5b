"""The annotators' page in a real browser."""

import re
import shutil
import threading
import time

import pytest
from mixed import PREFERENCE, RATING, hostile, post_mixed, question

from rlhf_core.feedback.people import People
from rlhf_core.feedback.queue import QuestionQueue
from rlhf_core.feedback.store import FeedbackStore
from rlhf_flows.annotation.app import make_app
from rlhf_flows.annotation.serving import LOCAL_NAMES
from rlhf_flows.annotation.shown import shown_order

PHONE = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("there is no Chromium on the PATH")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=list(QUIET))
        yield launched
        launched.close()


class Served:
    """A server on a free port, which can be stopped and started again on the same one."""

    def __init__(self, folder):
        self.store = FeedbackStore(f"sqlite:///{folder}/feedback.db")
        self.queue = QuestionQueue(self.store)
        self.people = People(self.store)
        self.port = 0
        self.start()

    def start(self):
        import uvicorn

        app = make_app(self.store, "guest", hosts=LOCAL_NAMES)
        self.server = uvicorn.Server(
            uvicorn.Config(app, port=self.port, log_level="critical", timeout_graceful_shutdown=1)
        )
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        deadline = time.monotonic() + 20
        while not self.server.started and time.monotonic() < deadline:
            time.sleep(0.02)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self):
        self.server.should_exit = True
        self.thread.join(20)


@pytest.fixture
def site(tmp_path):
    served = Served(tmp_path)
    yield served
    served.stop()
    served.store.close()


@pytest.fixture
def complaints():
    """What pages complain of: errors, dialogs, breaches of the content security policy."""
    return []


@pytest.fixture
def open_page(browser, site, complaints):
    contexts = []

    def opened(path="/", **options):
        context = browser.new_context(**options)
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if "Security Policy" in said.text else None)
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.goto(site.url + path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def answered(site, count):
    deadline = time.monotonic() + 15
    while site.store.counts().total < count and time.monotonic() < deadline:
        time.sleep(0.02)
    return list(site.store.answers())


def standing(page, left):
    page.locator("#standing", has_text=re.compile(rf"\b{left} left")).wait_for()


def shown_view(page):
    return page.locator("#task").get_attribute("class").removeprefix("view-")


def test_thirty_mixed_questions_with_the_keyboard_alone(site, open_page):
    post_mixed(site.queue, 30)
    page = open_page()
    page.wait_for_selector("#task[class]")
    presses = {"pair": "1", "ranking": "3124", "rating": "4251"}
    for left in range(30, 0, -1):
        standing(page, left)
        view = shown_view(page)
        if view == "writing":
            page.keyboard.press("Tab")
            while page.evaluate("document.activeElement.tagName") != "TEXTAREA":
                page.keyboard.press("Tab")
            page.keyboard.type(f"headline {left}")
            page.keyboard.press("Control+Enter")
            continue
        for key in presses[view]:
            page.keyboard.press(key)
        if view != "pair":
            page.keyboard.press("Enter")
    page.wait_for_selector("text=All done for now")
    answers = answered(site, 12 + 6 + 24 + 6)
    assert site.store.counts().kinds == {"comparison": 12, "ranking": 6, "rating": 24, "demonstration": 6}
    assert {answer.feedback.annotator for answer in answers} == {"guest"}
    for answer in answers:
        feedback, shown = answer.feedback, shown_order(answer.question, "guest")
        if feedback.kind == "comparison":
            assert (feedback.choice, feedback.first, feedback.strength) == ("first", shown[0].id, 1.0)
        if feedback.kind == "ranking":
            assert feedback.ranks == (2, 3, 1, 4)
        if feedback.kind == "rating":
            score = {(0, "clear"): 4, (0, "lively"): 2, (1, "clear"): 5, (1, "lively"): 1}
            assert feedback.score == score[[s.id for s in shown].index(feedback.sample), feedback.criterion]
        assert 0 < feedback.seconds < 60
    assert page.evaluate("document.querySelectorAll('script:not([src])').length") == 0


@pytest.mark.parametrize(
    ("key", "choice", "strength", "both_bad"),
    [
        ("2", "first", 0.5, False),
        ("3", "tie", 1, False),
        ("4", "second", 0.5, False),
        ("5", "second", 1, False),
        ("0", "tie", 1, True),
    ],
)
def test_the_keys_of_a_pair(site, open_page, key, choice, strength, both_bad):
    site.queue.post(PREFERENCE, [question(0, 2)])
    page = open_page()
    page.wait_for_selector(".sample")
    assert page.locator(f"#bar button[aria-keyshortcuts='{key}'] kbd").inner_text() == key
    page.keyboard.press(key)
    (answer,) = answered(site, 1)
    found = answer.feedback
    assert (found.choice, found.strength, found.both_bad) == (choice, strength, both_bad)


def test_ties_in_a_ranking_and_a_change_of_mind(site, open_page):
    site.queue.post(PREFERENCE, [question(0, 4)])
    page = open_page()
    page.wait_for_selector(".sample")
    for key in ("2", "4", "Backspace", "1", "t", "3", "4", "Enter"):
        page.keyboard.press(key)
    (answer,) = answered(site, 1)
    assert answer.feedback.ranks == (1, 1, 3, 4)


def test_undo_skip_and_comment(site, open_page):
    site.queue.post(PREFERENCE, [question(number, 2) for number in range(3)])
    page = open_page()
    standing(page, 3)
    first = page.locator(".prompt").inner_text()
    page.keyboard.press("c")
    page.keyboard.type("12345 is text here")
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    standing(page, 2)
    page.keyboard.press("u")
    standing(page, 3)
    assert page.locator(".prompt").inner_text() == first
    assert page.locator("#comment").input_value() == "12345 is text here"
    assert site.store.counts().total == 0
    page.keyboard.press("s")
    page.keyboard.press("3")
    standing(page, 2)
    (answer,) = answered(site, 1)
    assert (answer.feedback.kind, answer.feedback.reason) == ("skip", "harmful")
    assert answer.feedback.comment == "12345 is text here"


def test_an_improved_answer_becomes_a_demonstration(site, open_page):
    site.queue.post(PREFERENCE, [question(0, 2)])
    page = open_page()
    page.wait_for_selector(".sample")
    page.keyboard.press("b")
    page.keyboard.press("Control+End")
    page.keyboard.type(", at last")
    page.keyboard.press("Escape")
    page.keyboard.press("5")
    answers = answered(site, 2)
    by_kind = {answer.feedback.kind: answer for answer in answers}
    better = shown_order(answers[0].question, "guest")[1]
    assert by_kind["demonstration"].feedback.text == f"{better.text}, at last"
    assert by_kind["comparison"].feedback.choice == "second"


def test_a_draft_is_there_after_a_reload(site, open_page):
    site.queue.post(RATING, [question(3, 2)])
    site.queue.post(PREFERENCE, [question(4, 0)])
    page = open_page()
    page.wait_for_selector(".scale")
    for key in "42":
        page.keyboard.press(key)
    page.wait_for_selector("text=Draft saved")
    page.reload()
    page.wait_for_selector(".scale")
    assert page.locator(".steps button[aria-pressed=true]").all_inner_texts() == ["4", "2"]
    page.keyboard.press("5")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    field = page.wait_for_selector("textarea.writing")
    field.fill("half a thou")
    page.wait_for_selector("text=Draft saved")
    page.reload()
    assert page.wait_for_selector("textarea.writing").input_value() == "half a thou"


def test_nothing_is_lost_while_the_server_is_away(site, open_page):
    site.queue.post(PREFERENCE, [question(number, 2) for number in range(2)])
    page = open_page()
    standing(page, 2)
    site.stop()
    page.keyboard.press("4")
    page.wait_for_selector("text=Not saved yet")
    page.keyboard.press("1")  # does nothing: the question is still the first one
    site.start()
    standing(page, 1)
    (answer,) = answered(site, 1)
    assert answer.feedback.choice == "second"


def test_differences_are_marked_word_by_word(site, open_page):
    site.queue.post(PREFERENCE, [question(0, 2)])
    page = open_page()
    page.wait_for_selector(".sample")
    texts = page.locator(".sample > .text").all_inner_texts()
    page.keyboard.press("d")
    page.wait_for_selector("mark")
    assert page.locator(".sample > .text").all_inner_texts() == texts
    found = page.evaluate(
        "import('/static/diff.js').then(diff => diff.differences('the old bridge opens', 'the new bridge opens now'))"
    )
    assert found[0] == [["the ", False], ["old", True], [" bridge opens", False]]
    assert found[1] == [["the ", False], ["new", True], [" bridge opens", False], [" now", True]]


def test_hostile_text_is_harmless(site, open_page, complaints):
    for samples in (2, 3):
        site.queue.post(PREFERENCE, [hostile(samples)])
    page = open_page()
    for left in (2, 1):
        standing(page, left)
        assert page.evaluate("window.hacked") is None
        task = page.locator("#task")
        assert "<script>window.hacked = 1</script>" in task.inner_text()
        assert "{{ 7 * 7 }}" in task.inner_text()
        assert page.evaluate("document.querySelectorAll('#task :is(script, img, a, iframe, style, p b)').length") == 0
        if left == 2:
            page.keyboard.press("d")
            page.wait_for_selector("[aria-pressed=true]")
            assert page.evaluate("document.querySelectorAll('#task :is(script, img, a, iframe, style)').length") == 0
            page.keyboard.press("1")
    assert complaints == []
    # Even markup that gets into the page somehow runs nothing.
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p onclick=\"window.hacked=5\" id=bad>x</p>')")
    page.evaluate("document.getElementById('bad').click()")
    assert page.evaluate("window.hacked") is None
    assert ["script-src 'self'" in complaint for complaint in complaints] == [True]
    complaints.clear()


def test_on_a_phone(site, open_page):
    post_mixed(site.queue, 5)
    page = open_page(**PHONE)
    for left in range(5, 0, -1):
        standing(page, left)
        width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1], "the page is wider than the screen"
        bar = page.locator("#bar").bounding_box()
        assert bar["y"] + bar["height"] <= 800 + 1
        view = shown_view(page)
        if view == "pair":
            cards = [card.bounding_box() for card in page.locator(".sample").all()]
            assert cards[1]["y"] >= cards[0]["y"] + cards[0]["height"]
            page.locator("#bar .choice").nth(3).tap()
        elif view == "ranking":
            for card in page.locator(".rank").all():
                card.tap()
        elif view == "rating":
            for scale in range(page.locator(".scale").count()):
                page.locator(".scale").nth(scale).locator("button").nth(2).tap()
        else:
            page.locator("textarea.writing").fill("A headline")
        if view != "pair":
            page.locator("#bar .choice").tap()
    page.wait_for_selector("text=All done for now")
    assert site.store.counts().kinds == {"comparison": 2, "ranking": 1, "rating": 4, "demonstration": 1}


def test_two_invited_annotators_share_the_questions(site, open_page):
    site.queue.post(PREFERENCE, [question(number, 2) for number in range(4)])
    pages = [open_page(f"/join/{site.people.invite(name)}") for name in ("ann", "bob")]
    for page in pages * 2:
        page.wait_for_selector(".sample")
        before = site.store.counts().total
        page.keyboard.press("3")
        answered(site, before + 1)
    for page in pages:
        page.wait_for_selector("text=All done for now")
    assert site.store.counts().annotators == {"ann": 2, "bob": 2}


def test_the_page_speaks_chinese(site, open_page):
    site.queue.post(PREFERENCE, [question(0, 2)])
    page = open_page(locale="zh-CN")
    page.wait_for_selector(".sample")
    assert page.locator("#title").inner_text() == "哪个回答更好？"
    page.keyboard.press("?")
    assert "跳过" in page.locator("#keys").inner_text()


def drag(page, card, to, at):
    """Take the card of that name by its handle to the share `at` of the height of another one."""
    grip = page.locator(f".sample[data-place='{card}'] .grip").bounding_box()
    target = page.locator(f".sample[data-place='{to}']").bounding_box()
    page.mouse.move(grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2)
    page.mouse.down()
    page.mouse.move(target["x"] + 40, target["y"] + target["height"] / 2, steps=4)
    page.mouse.move(target["x"] + 40, target["y"] + at * target["height"], steps=2)
    page.mouse.up()


def test_cards_are_dragged_into_order_and_onto_each_other(site, open_page):
    site.queue.post(PREFERENCE, [question(0, 4)])
    page = open_page(viewport={"width": 1100, "height": 1400})
    page.wait_for_selector(".sample")

    def ranks():
        shown = page.locator(".sample").all()
        return [(int(card.get_attribute("data-place")), card.locator(".rank span").inner_text()) for card in shown]

    drag(page, 3, 0, 0.1)  # D above A
    assert ranks() == [(3, "1"), (0, "2"), (1, "3"), (2, "4")]
    drag(page, 2, 0, 0.5)  # C onto A
    assert ranks() == [(3, "1"), (0, "2"), (2, "2"), (1, "4")]
    page.wait_for_selector("text=Draft saved")
    page.reload()
    page.wait_for_selector(".rank.placed")
    assert ranks() == [(3, "1"), (0, "2"), (2, "2"), (1, "4")]
    drag(page, 3, 1, 0.95)  # D below B
    assert ranks() == [(0, "1"), (2, "1"), (1, "3"), (3, "4")]
    grip = page.locator(".sample[data-place='1'] .grip").bounding_box()
    page.mouse.move(grip["x"] + 5, grip["y"] + 5)
    page.mouse.down()
    page.mouse.move(grip["x"] + 5, 5, steps=3)
    page.keyboard.press("Escape")  # a change of mind
    page.mouse.up()
    assert ranks() == [(0, "1"), (2, "1"), (1, "3"), (3, "4")]
    page.keyboard.press("Enter")
    (answer,) = answered(site, 1)
    by_id = dict(zip(answer.feedback.samples, answer.feedback.ranks, strict=True))
    assert [by_id[sample.id] for sample in shown_order(answer.question, "guest")] == [1, 3, 1, 4]


def test_a_finger_drags_too(site, open_page):
    site.queue.post(PREFERENCE, [question(0, 3)])
    page = open_page(**PHONE)
    page.wait_for_selector(".sample")
    touch = page.context.new_cdp_session(page)
    grip = page.locator(".sample[data-place='1'] .grip").bounding_box()
    top = page.locator(".sample[data-place='0']").bounding_box()

    def at(kind, y):
        points = [] if kind == "touchEnd" else [{"x": grip["x"] + 10, "y": y}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    at("touchStart", grip["y"] + 10)
    for share in (0.9, 0.5, 0.05):
        at("touchMove", top["y"] + share * top["height"])
    at("touchEnd", 0)
    page.wait_for_selector(".rank.placed")
    assert [card.get_attribute("data-place") for card in page.locator(".sample").all()] == ["1", "0", "2"]


def test_where_a_dropped_card_goes(site, open_page):
    page = open_page()
    page.wait_for_selector("#task")
    cases = [
        # order, from, to, level -> order
        ([[0, False], [1, False], [2, False]], 2, 0, False, [[2, False], [0, False], [1, False]]),
        ([[0, False], [1, False], [2, False]], 0, 2, False, [[1, False], [2, False], [0, False]]),
        ([[0, False], [1, False], [2, False]], 0, 1, True, [[1, False], [2, False], [0, True]]),
        # The first of a tie leaves: who shared with it stands alone.
        ([[0, False], [1, True], [2, False]], 0, 2, False, [[1, False], [2, False], [0, False]]),
        # The middle of a tie of three leaves: the others still share.
        ([[0, False], [1, True], [2, True]], 1, 2, False, [[0, False], [2, True], [1, False]]),
        # Into the middle of a tie.
        ([[0, False], [1, True], [2, False]], 2, 1, False, [[0, False], [2, True], [1, True]]),
    ]
    for order, start, to, level, expected in cases:
        found = page.evaluate(
            "([order, from, to, level]) => import('/static/drag.js').then(d => d.reordered(order, from, to, level))",
            [order, start, to, level],
        )
        assert found == expected


def control_question(pictures):
    pytest.importorskip("gymnasium", reason="the control extra is not installed")
    from control_kit import policy, starts
    from rlhf_core import Candidate
    from rlhf_plugins.selectors.segments import Segments

    prompts = starts(count=1)
    candidates = [Candidate(prompts[0], policy().sample(prompts, 2, seed=0)[0])]
    options = {"pictures": {"every": 1, "height": 120}} if pictures else {}
    [asked] = Segments(length=12, **options).select(candidates, 1, None)
    return asked


def test_clips_move_and_stop(site, open_page):
    asked = control_question(pictures=True)
    site.queue.post(PREFERENCE, [asked])
    page = open_page()
    page.wait_for_selector("img.clip")

    sizes = page.evaluate("[...document.querySelectorAll('img.clip')].map(i => [i.complete, i.naturalHeight])")
    assert sizes == [[True, 120], [True, 120]]
    shown = shown_order(asked, "guest")[0].trajectory.frames
    moved = page.evaluate(
        """count => new Promise((done) => {
            const clip = document.querySelector("img.clip"), found = [];
            const seen = () => found.push(clip.src) === count && done(found);
            new MutationObserver(seen).observe(clip, { attributes: true });
        })""",
        6,
    )
    first = shown.index(moved[0])
    assert moved == [shown[(first + step) % len(shown)] for step in range(6)]
    page.locator("img.clip").first.click()
    clip = page.locator("img.clip").first
    still = clip.get_attribute("src")
    time.sleep(0.5)
    assert clip.get_attribute("src") == still
    page.keyboard.press("1")
    (answer,) = answered(site, 1)
    assert answer.feedback.choice == "first"


def test_who_wants_less_motion_clicks_through_a_clip(site, open_page):
    site.queue.post(PREFERENCE, [control_question(pictures=True)])
    page = open_page(reduced_motion="reduce")
    clip = page.wait_for_selector("img.clip")
    before = clip.get_attribute("src")
    time.sleep(0.5)
    assert clip.get_attribute("src") == before
    clip.click()
    assert clip.get_attribute("src") != before


def test_a_trajectory_without_pictures_is_drawn_as_lines(site, open_page):
    site.queue.post(PREFERENCE, [control_question(pictures=False)])
    page = open_page()
    page.wait_for_selector("svg.trajectory polyline")
    assert page.locator("svg.trajectory").count() == 2
    animated = "getComputedStyle(document.querySelector('svg.trajectory polyline')).animationName"
    assert page.evaluate(animated) == "go"
