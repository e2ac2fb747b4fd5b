"""A Prefect server's HTTP interface, as tests need it."""

import json
import socket
import time
import urllib.request


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(found, seconds, what):
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(1)
    return result


class Api:
    """The server's HTTP interface."""

    def __init__(self, url):
        self.url = url

    def post(self, path, **body):
        request = urllib.request.Request(
            f"{self.url}/{path}", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)

    def runs(self, *names):
        """The runs of these flows that have begun; those that are only scheduled are many."""
        begun = {"start_time": {"is_null_": False}}
        return self.post("flow_runs/filter", flows={"name": {"any_": list(names)}}, flow_runs=begun, limit=100)

    def alive(self):
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=10):
                return True
        except OSError:
            return False
