"""Trajectories of control tasks as moving clips and as lines."""

import time

import pytest
from mixed import PREFERENCE
from watched import answered

from rlhf_core import Candidate
from rlhf_flows.annotation.shown import shown_order


def control_question(pictures):
    pytest.importorskip("gymnasium", reason="the control extra is not installed")
    from control_kit import policy, starts
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
