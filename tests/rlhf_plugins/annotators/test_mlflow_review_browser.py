"""A reviewer in MLflow's real user interface, through Chromium; the annotator reads what the page wrote."""

import os
import shutil
import socket
import subprocess
import sys
import time

import httpx
import pytest

from rlhf_core import Prompt, Question, Run, Sample
from rlhf_core.feedback.lettered import by_letter
from rlhf_plugins.annotators.mlflow_review import MlflowReview

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>alert(1)</script>"


@pytest.fixture
def page():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("there is no Chromium on the PATH")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(120_000)
        yield page
        browser.close()


@pytest.fixture
def served(tmp_path):
    """(store, address) of an MLflow server on it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store, address = f"sqlite:///{tmp_path}/mlflow.db", f"http://127.0.0.1:{port}"
    started = []

    def start():
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
        with (tmp_path / "log").open("w") as log:
            started.append(
                subprocess.Popen(
                    [*command, "--port", str(port), "--backend-store-uri", store],
                    env={**os.environ, **quiet}, cwd=tmp_path, stdout=log, stderr=log,
                )
            )  # fmt: skip
        deadline = time.monotonic() + 180
        while True:
            try:
                httpx.get(f"{address}/health", timeout=5).raise_for_status()
                return address
            except httpx.HTTPError:
                assert started[0].poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.5)

    yield store, start
    for process in started:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_reviewer_answers_and_hostile_text_stays_text(page, served):
    store, start = served
    run = Run(0)
    run.pipeline, run.mlflow_uri = "newsroom", store
    prompt = Prompt(text="Write a headline.")
    asked = Question(prompt=prompt, samples=tuple(Sample(prompt_id=prompt.id, text=text) for text in ("ok", HOSTILE)))
    MlflowReview(run=run).post([asked])
    address = start()
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(f"{address}/#/experiments/1/review-queue")
    page.get_by_text("newsroom pair of 2").first.click()
    page.get_by_text("Start review").first.click()
    page.get_by_text("Select an option").first.click()
    page.get_by_text("B is better", exact=True).first.click()
    assert "<img src=x onerror=" in page.inner_text("body")
    page.get_by_role("button", name="Submit").click()

    run.mlflow_uri = address  # what the page wrote, through the server
    deadline = time.monotonic() + 60
    while not (given := list(MlflowReview(run=run).collect([asked]))) and time.monotonic() < deadline:
        time.sleep(1)
    (said,) = given
    letters = by_letter(asked)
    assert (said.first, said.second, said.choice) == (letters["A"].id, letters["B"].id, "second")
    assert dialogs == []
    assert "owned" not in page.title()
