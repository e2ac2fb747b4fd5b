"""The annotators' page in a real browser: answering."""

import pytest
from mixed import PREFERENCE, hostile, post_mixed, question
from watched import PHONE, answered, shown_view, standing

from rlhf_flows.annotation.shown import shown_order


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
