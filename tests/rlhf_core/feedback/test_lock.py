import signal
import subprocess
import sys
import time

import psycopg
import pytest

from databases import fresh_database
from rlhf_core.errors import Busy, StoreError
from rlhf_core.feedback import lock
from rlhf_core.feedback.lock import held

ABOUT = {"host": "box-1", "pid": "17", "command": "rlhf run it's 100%_*/.yaml", "since": "2030-01-01T00:00:00+00:00"}
OTHER = ABOUT | {"host": "box-2", "pid": "18"}


@pytest.fixture
def database(postgres, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.2)
    monkeypatch.setattr(lock, "PATIENCE", 0.3)
    return fresh_database(postgres, "rlhf_lock")


def end_connections(database):
    """What a restart of the server does to those that are connected."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def sessions(database):
    """The numbers of the connections that hold a lock."""
    with psycopg.connect(database) as connection:
        found = connection.execute("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted")
        return {pid for (pid,) in found}


def wait_until(true, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.05)


def test_the_second_is_told_who_the_first_is(database):
    with held(database, "tldr", ABOUT) as hold:
        with pytest.raises(Busy) as caught, held(database, "tldr", OTHER):
            pass
        assert caught.value.what == (
            "another run holds `tldr`: `rlhf run it's 100%_*/.yaml` (process 17 on box-1, "
            "since 2030-01-01T00:00:00+00:00)."
        )
        assert caught.value.exit_code == 4 and "Wait for it" in caught.value.remedy
        with held(database, "another", OTHER):
            pass
        assert not hold.lost
        hold.expect()
    with held(database, "tldr", OTHER):
        pass
    assert sessions(database) == set()


def test_the_holder_is_still_named_after_a_while(database):
    with held(database, "tldr", ABOUT):
        time.sleep(3 * lock.BEAT)
        with pytest.raises(Busy, match="process 17 on box-1"), held(database, "tldr", OTHER):
            pass


@pytest.mark.parametrize(
    "about", [{}, ABOUT | {"command": "长" * 5000}, ABOUT | {"command": "x" * 5000}], ids=["nobody", "wide", "long"]
)
def test_whatever_the_holder_says_of_itself(database, about):
    with (
        held(database, "tldr", about),
        pytest.raises(Busy, match="process 17" if about else "has not said who it is"),
        held(database, "tldr", OTHER),
    ):
        pass


def test_a_failure_of_the_body_frees_the_lock(database):
    with pytest.raises(RuntimeError, match="the run fails"), held(database, "tldr", ABOUT):
        raise RuntimeError("the run fails")
    with held(database, "tldr", OTHER):
        pass


HOLDER = """
import sys, time
from rlhf_core.feedback.lock import held
with held(sys.argv[1], "tldr", {"host": "h", "pid": "1", "command": "c", "since": "s"}):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_holder_holds_nothing(database):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, database], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(Busy, match="process 1 on h"), held(database, "tldr", ABOUT):
        pass
    process.send_signal(signal.SIGKILL)
    started = time.monotonic()
    with held(database, "tldr", ABOUT):
        assert time.monotonic() - started < 1
    process.communicate(timeout=10)


def test_a_lock_comes_back_after_the_connection_broke(database):
    with held(database, "tldr", ABOUT) as hold:
        before = sessions(database)
        end_connections(database)
        wait_until(lambda: len(sessions(database)) == 1 and sessions(database) != before)
        with pytest.raises(Busy, match="process 17 on box-1"), held(database, "tldr", OTHER):
            pass
        assert not hold.lost
    with held(database, "tldr", OTHER):
        pass


def test_a_lock_that_somebody_else_got_meanwhile_is_lost(database, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 1.0)
    with held(database, "tldr", ABOUT) as hold:
        end_connections(database)
        with held(database, "tldr", OTHER) as second:
            wait_until(lambda: hold.lost)
            assert not second.lost
        with pytest.raises(Busy, match=r"was lost: .*now it is held by .*process 18 on box-2"):
            hold.expect()


def test_a_lock_is_lost_where_the_server_does_not_come_back(database, monkeypatch):
    monkeypatch.setattr(lock, "GRACE", 0.5)
    with held(database, "tldr", ABOUT) as hold:
        with psycopg.connect(database.rsplit("/", 1)[0] + "/postgres", autocommit=True) as connection:
            connection.execute("DROP DATABASE rlhf_lock WITH (FORCE)")
        wait_until(lambda: hold.lost)
        with pytest.raises(Busy, match="does not come back"):
            hold.expect()


def test_a_server_that_cannot_be_reached_is_named():
    address = "postgresql://me:secret@127.0.0.1:9/none"
    with pytest.raises(StoreError, match="cannot be asked for") as caught, held(address, "tldr", ABOUT):
        pass
    assert "127.0.0.1:9" in caught.value.where and "secret" not in str(caught.value)


def test_an_sqlite_file_has_no_such_lock(url):
    with held(url, "tldr", ABOUT) as first, held(url, "tldr", OTHER) as second:
        assert not first.lost and not second.lost
