"""What a store's errors are taken for, and what the reader is told."""

import errno
import sys

import pytest
from artifact_samples import FILES, publish

from rlhf_core.errors import ServerError, WorkspaceError
from rlhf_flows.artifact_store import ArtifactStore, connection
from rlhf_flows.artifact_store.connection import Connection
from rlhf_flows.artifact_store.trouble import is_transient


def named(name, module="botocore.exceptions", **attributes):
    return type(name, (Exception,), {"__module__": module, **attributes})("said")


def answered(status, code="X"):
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = OSError(errno.EIO, "translated")
    error.__cause__ = named("ClientError", response=response)
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (named("EndpointConnectionError"), True),
        (named("ReadTimeoutError"), False),  # botocore's is an HTTPClientError, below
        (type("ReadTimeoutError", (type("HTTPClientError", (Exception,), {}),), {})(), True),
        (type("SSLError", (ConnectionError,), {})(), False),
        (answered(503), True),
        (answered(500), True),
        (answered(429), True),
        (answered(501), False),
        (answered(403), False),
        (answered(400), False),
        (answered(404, "NoSuchUpload"), True),
        (named("HttpError", "gcsfs.retry", code=502), True),
        (named("HttpResponseError", "azure.core.exceptions", status_code=409), False),
        (OSError(errno.EBUSY, "Please reduce your request rate"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (PermissionError("Access denied"), False),
        (FileNotFoundError("x"), False),
        (KeyError("x"), False),
    ],
)
def test_waiting_helps_only_where_the_store_is_away(error, expected):
    assert is_transient(error) is expected


@pytest.fixture
def patient(monkeypatch):
    """A store, and the pauses that it makes; time passes only in them."""
    now, pauses = [0.0], []

    def sleep(seconds):
        pauses.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(connection.time, "sleep", sleep)
    monkeypatch.setattr(connection.time, "monotonic", lambda: now[0])
    return Connection("memory://patient/x"), pauses


def test_a_store_that_comes_back_is_waited_for(patient, caplog):
    store, pauses = patient
    failures = [ConnectionRefusedError(), answered(500), named("EndpointConnectionError")]

    def request(fs, root):
        if failures:
            raise failures.pop(0)
        return root

    assert store.call(request) == "/patient/x"
    assert pauses == sorted(pauses)
    assert len(pauses) == 3
    assert [record.message for record in caplog.records] == [
        "memory://patient/x does not answer (); trying again for 60 s"
    ]


def test_a_store_that_stays_away_ends_the_run_after_a_minute(patient):
    store, pauses = patient

    def request(fs, root):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    with pytest.raises(ServerError, match=r"does not answer, also after 60 seconds: .*Connection refused") as caught:
        store.call(request)
    assert 50 < sum(pauses) <= 60
    assert "the same command goes on" in caught.value.remedy


@pytest.mark.parametrize(
    ("error", "said", "remedy"),
    [
        (PermissionError("Access Denied"), "refuses access: Access Denied", "AWS_ACCESS_KEY_ID"),
        (named("NoCredentialsError"), "there are no credentials", "AWS_PROFILE"),
        (answered(404, "NoSuchBucket"), "bucket of the artifact root does not exist", "Create it"),
        (OSError(errno.EINVAL, "Bad header"), "answers with an error: .*Bad header", "AWS_ENDPOINT_URL"),
    ],
)
def test_what_waiting_does_not_help_is_one_paragraph(patient, error, said, remedy):
    store, pauses = patient
    store.url = "s3://bucket/x"
    store._filesystem = lambda: (None, "")

    def request(fs, root):
        raise error

    with pytest.raises(ServerError, match=said) as caught:
        store.call(request)
    assert remedy in caught.value.remedy
    assert caught.value.where == "s3://bucket/x"
    assert pauses == []


def test_a_mistake_of_the_program_is_not_explained_away(patient):
    with pytest.raises(ZeroDivisionError):
        patient[0].call(lambda fs, root: 1 / 0)


def test_the_disk_here_is_not_taken_for_the_store(tmp_path, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    ref = publish(ArtifactStore("memory://full/x", tmp_path / "one"), FILES)
    monkeypatch.setattr(MemoryFileSystem, "get_file", full)
    with pytest.raises(WorkspaceError, match="the disk is full") as caught:
        ArtifactStore("memory://full/x", tmp_path / "two").path(ref)
    assert str(tmp_path / "two") in caught.value.where


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    import fsspec.registry  # noqa: F401

    monkeypatch.setitem(sys.modules, "s3fs", None)
    for name in ("s3", "s3a"):  # what earlier tests imported
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, name, raising=False)
    with pytest.raises(WorkspaceError, match=r"pip install \"rlhf-pipeline\[s3\]\""):
        ArtifactStore("s3://bucket/x", tmp_path).read_text("a")


def test_an_address_that_nothing_reads_is_explained(tmp_path):
    with pytest.raises(WorkspaceError, match=r"cannot be understood: .*s4.*\nGive a folder or a URL"):
        ArtifactStore("s4://bucket/x", tmp_path).read_text("a")
