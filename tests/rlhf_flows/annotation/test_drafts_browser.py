"""What is not answered yet is kept: drafts, and answers while the server is away."""

from mixed import PREFERENCE, RATING, question
from watched import answered, standing


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
