"""What a test looks for on a page and in the store behind it."""

import re
import time

PHONE = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}


def answered(site, count):
    deadline = time.monotonic() + 15
    while site.store.counts().total < count and time.monotonic() < deadline:
        time.sleep(0.02)
    return list(site.store.answers())


def standing(page, left):
    page.locator("#standing", has_text=re.compile(rf"\b{left} left")).wait_for()


def shown_view(page):
    return page.locator("#task").get_attribute("class").removeprefix("view-")
