import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from rlhf_core.errors import StoreError
from rlhf_core.feedback.group_commit import GroupCommit
from rlhf_core.feedback.inserts import insert_new
from rlhf_core.feedback.schema import marks


def count(store):
    with store.database.read() as connection:
        return connection.execute(select(func.count()).select_from(marks)).scalar_one()


def test_what_fails_takes_none_of_the_others_along(store):
    commits, group = [], GroupCommit(store.database)
    write = store.database.write
    started, go = threading.Event(), threading.Event()

    def counted():
        commits.append(1)
        return write()

    store.database.write = counted

    def put(connection, number):
        insert_new(connection, marks, [{"key": str(number), "watermark": number}])
        if number == 0:
            started.set()
            go.wait(10)
        if number % 5 == 4:
            raise ValueError(number)
        return number

    with ThreadPoolExecutor(20) as threads:
        first = threads.submit(group.run, lambda connection: put(connection, 0))
        started.wait(10)
        rest = [threads.submit(group.run, lambda connection, n=n: put(connection, n)) for n in range(1, 20)]
        while len(group._waiting) < 19:
            pass
        go.set()
        assert first.result(10) == 0
        for number, future in enumerate(rest, start=1):
            if number % 5 == 4:
                with pytest.raises(ValueError, match=str(number)):
                    future.result(10)
            else:
                assert future.result(10) == number
    assert len(commits) == 2
    assert count(store) == 16


def test_when_nothing_can_be_committed_everybody_hears_of_it(store):
    group = GroupCommit(store.database)
    store.database.write = lambda: (_ for _ in ()).throw(StoreError("the disk is full"))
    for _ in range(2):
        with pytest.raises(StoreError, match="disk is full"):
            group.run(lambda connection: None)
