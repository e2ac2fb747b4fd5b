"""Cards of a ranking are dragged into order."""

from mixed import PREFERENCE, question
from watched import PHONE, answered

from rlhf_flows.annotation.shown import shown_order


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
