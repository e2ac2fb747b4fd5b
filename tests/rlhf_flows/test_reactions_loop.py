"""A campaign that waits for the users of a product: they react, and the same command goes on."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_core.feedback.events import Event, EventLog
from rlhf_core.feedback.store import FeedbackStore

RLHF = str(Path(sys.executable).with_name("rlhf"))
ASKED = Path(__file__).with_name("asked.yaml")


def rlhf(*arguments):
    return subprocess.run([RLHF, *map(str, arguments)], capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_clicks_become_comparisons_that_the_campaign_learns_from(tmp_path):
    text = ASKED.read_text()
    people = next(line for line in text.splitlines() if "use: people" in line)
    clicked = text.replace(people, "    - {use: reactions, min_exposures: 20}")
    (tmp_path / "p.yaml").write_text(clicked)
    unfit = rlhf("check", tmp_path / "p.yaml")
    assert unfit.returncode == 2
    assert "Convert them with `ask.convert: {use: clicks_to_comparisons}`" in unfit.stderr
    (tmp_path / "p.yaml").write_text(clicked.replace("reward:", "  convert: {use: clicks_to_comparisons}\nreward:", 1))
    first = rlhf("run", tmp_path / "p.yaml", "--workspace", tmp_path)
    assert first.returncode == 3, first.stderr
    assert "waiting for 12 answers from `reactions`" in first.stderr
    assert "Products report to `rlhf annotate`" in first.stderr

    dice = random.Random(0)
    with FeedbackStore(f"sqlite:///{tmp_path}/feedback.db") as store:
        log = EventLog(store)
        for _, question in log.offered():
            best = min(question.samples, key=lambda sample: len(sample.text))
            for sample in question.samples:
                for number in range(30):
                    id = f"{question.id} {sample.id} {number}"
                    place = {"question": question.id, "sample": sample.id, "position": dice.choice([1, 2])}
                    events = [Event(id=id, action="impression", **place)]
                    if dice.random() < (0.5 if sample is best else 0.1):
                        events.append(Event(id=f"click {id}", action="click", impression=id))
                    log.append("site", events)
    done = rlhf("run", tmp_path / "p.yaml", "--json", "--workspace", tmp_path)
    assert done.returncode == 0, done.stderr
    lineage = json.loads(rlhf("lineage", "asked-policy/2", "--json", "--workspace", tmp_path).stdout)
    (snapshot,) = lineage["snapshots"].values()
    assert snapshot["by_kind"] == {"comparison": 12, "reaction": 24}
    assert snapshot["by_annotator"] == {"site": 36}
