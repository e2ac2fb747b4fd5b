"""The annotators' pages in a real browser, served by this process."""

import shutil
import threading
import time

import pytest

from rlhf_core.feedback.people import People
from rlhf_core.feedback.queue import QuestionQueue
from rlhf_core.feedback.store import FeedbackStore
from rlhf_flows.annotation.app import make_app
from rlhf_flows.annotation.serving import LOCAL_NAMES

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
