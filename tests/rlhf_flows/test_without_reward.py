"""A campaign on recorded pairs, without a reward model and without anybody to ask, with steps of both kinds."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient

RLHF = str(Path(sys.executable).with_name("rlhf"))
PIPELINE = """\
pipeline: direct
seed: 5
data:
  - use: table
    path: pairs.jsonl
    columns: {prompt: prompt, chosen: chosen, rejected: rejected, split: split, annotator: who}
policy:
  use: causal_lm
  model: starter
  max_prompt_tokens: 48
  max_new_tokens: 8
  starter: {layers: 1, width: 32, heads: 2}
optimize: {use: trl_dpo, batch: 8, checkpoint_every: 4}
test: {prompts: 6, samples: 2}
evaluate:
  - {use: generation}
gate: {use: better, metric: entropy, win_rate: 0}
steps:
  - {use: deduplicate, after: data}
  - {use: notify, after: gate, url: "$${DIRECT_WEBHOOK}"}
"""
THINGS = ("bridge", "school", "harbour", "library", "market", "railway", "museum", "garden", "theatre", "stadium")
PLACES = ("by the river", "in the north", "on the hill", "near the old town", "at the crossing")


def write_pairs(folder):
    """39 training prompts, 6 test and 6 validation prompts; one training prompt is nearly a test prompt."""
    prompts = [f"Write a short headline about the new {thing} {place}." for thing in THINGS for place in PLACES]
    splits = ["test"] * 6 + ["validation"] * 6 + ["train"] * (len(prompts) - 12)
    rows = [*zip(prompts, splits, strict=True), (prompts[0].replace("river.", "river!"), "train")]
    with (folder / "pairs.jsonl").open("w") as file:
        for number, (prompt, split) in enumerate(rows):
            words = prompt.split()
            row = {
                "prompt": prompt,
                "chosen": f"New {words[7]} opens",
                "rejected": f"You will not believe this {words[7]}!!!",
                "split": split,
                "who": f"editor-{number % 3}",
            }
            file.write(json.dumps(row) + "\n")


@pytest.fixture(scope="module")
def webhook():
    """An address that takes messages, and the messages."""
    heard = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hook", heard
        server.shutdown()


@pytest.fixture(scope="module")
def campaign(tmp_path_factory, webhook):
    """The folder of a finished campaign, how to give commands in it, and what the first one printed."""
    folder = tmp_path_factory.mktemp("direct")
    write_pairs(folder)
    (folder / "direct.yaml").write_text(PIPELINE)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DIRECT_WEBHOOK": webhook[0]}

    def rlhf(*arguments):
        done = subprocess.run(
            [RLHF, *arguments], capture_output=True, text=True, env=environment, cwd=folder, check=False, timeout=280
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    return folder, rlhf, rlhf("run", "direct.yaml")


def last_line(printed):
    return json.loads(printed.strip().splitlines()[-1])


def test_it_learns_from_the_pairs(campaign):
    folder, rlhf, printed = campaign
    assert "nearly equal prompts are left out (1 train like test)" in printed
    start, done = last_line(rlhf("compare", "--json"))["rounds"]
    assert start["policy"] != done["policy"]
    assert {"kl", "entropy"} <= set(done["metrics"])
    reports = sorted(path.name for path in (folder / ".rlhf" / "reports").glob("*/*.html"))
    assert reports == ["campaign.html", "round-0.html", "round-1.html"]


def test_its_feedback_stands_in_the_report(campaign):
    (report,) = (campaign[0] / ".rlhf" / "reports").glob("*/round-1.html")
    page = report.read_text()
    assert "editor-1" in page and "comparison" in page
    assert "steps/deduplicate" in page and "optimizers/trl_dpo" in page and "steps/notify" in page
    assert "reward model" not in page.lower().partition("<body")[2]


def test_the_graph_has_no_reward_and_everything_is_cached(campaign):
    _, rlhf, _ = campaign
    found = last_line(rlhf("graph", "direct.yaml", "--format", "json"))
    text = json.dumps(found)
    assert '"1/optimize"' in text and "step_deduplicate" in text and "1/reward" not in text
    rows = last_line(rlhf("run", "direct.yaml", "--dry-run", "--json"))
    assert {row["state"] for row in rows} == {"cached"}
    takes = {row["stage"]: row["inputs"] for row in rows if row["round"] == 1}
    assert "snapshot" in takes["optimize"] and "reward" not in takes["optimize"]


def test_the_champion_is_traced_to_the_pairs(campaign):
    _, rlhf, _ = campaign
    found = last_line(rlhf("lineage", "direct-policy/2", "--json"))
    assert found["missing"] == ""
    assert [link["policy"]["round"] for link in found["links"]] == [1, 0]
    (snapshot,) = found["snapshots"].values()
    assert snapshot["total"] == 50  # the pair whose prompt is a test prompt's twin is left out


def test_mlflow_has_the_policy_and_no_reward_model(campaign):
    client = MlflowClient(f"sqlite:///{campaign[0] / '.rlhf' / 'mlflow.db'}")
    assert [model.name for model in client.search_registered_models()] == ["direct-policy"]
    (experiment,) = (each for each in client.search_experiments() if each.name == "direct")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert "step_deduplicate (round 0)" in {run.info.run_name for run in runs}


def test_the_webhook_is_told_once_however_often_the_command_runs(campaign, webhook):
    _, rlhf, _ = campaign
    assert "cached" not in rlhf("run", "direct.yaml")  # nothing is gone through again
    assert [message["event"] for message in webhook[1]] in (["promoted"], ["kept"])
    assert webhook[1][0]["round"] == 1 and webhook[1][0]["data"]["reasons"]
