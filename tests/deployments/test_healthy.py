"""`healthy`, which the services' health checks call."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

HEALTHY = Path(__file__).parents[2] / "deployments/healthy.py"


@pytest.fixture
def service():
    """A service that answers to the name `public.example` only."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.headers["Host"] == "public.example" else 400)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/health"
    server.shutdown()
    server.server_close()


def healthy(*arguments):
    return subprocess.run([sys.executable, HEALTHY, *arguments], capture_output=True, text=True, timeout=30)


def test_a_service_that_answers_is_healthy(service):
    assert healthy(service, "public.example").returncode == 0


def test_a_service_that_refuses_is_not_and_the_reason_is_said(service):
    said = healthy(service)
    assert said.returncode == 1
    assert "400" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_service_that_is_away_is_not():
    assert healthy("http://127.0.0.1:9/health").returncode == 1
