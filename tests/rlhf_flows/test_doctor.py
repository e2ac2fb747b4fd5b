from __future__ import annotations

import http.server
import json
import threading
from importlib.metadata import PackageNotFoundError

import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement

from rlhf_flows import doctor
from rlhf_flows.cli import cli


def one(symptoms):
    (found,) = symptoms
    return found


def packages(**versions):
    def version_of(name):
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    return list(doctor.package_versions([Requirement("fastapi>=0.139,<0.151"), Requirement("torch>=2.8")], version_of))


def test_packages_in_range():
    assert one(packages(fastapi="0.150.0", torch="2.13.0+cpu"))[:2] == ("packages", "ok")


def test_fastapi_that_prefect_cannot_start_with():
    found = packages(fastapi="0.151.0", torch="2.13.0")
    assert found[0].state == "broken"
    assert "Prefect" in found[0].what
    assert "fastapi<0.151,>=0.139" in found[0].remedy


def test_packages_that_are_missing_or_untested():
    found = packages(torch="2.9.0")
    assert ("fastapi", "broken", "is not installed") in [symptom[:3] for symptom in found]
    assert any(symptom.state == "warning" and "torch 2.9.0 (tested: 2.13.0)" in symptom.what for symptom in found)


def test_tested_versions_are_those_of_the_constraints():
    from pathlib import Path

    lines = (Path(doctor.__file__).parents[2] / "constraints.txt").read_text().lower().splitlines()
    constraints = dict(line.split("==") for line in lines if "==" in line)
    assert {name: constraints.get(name) for name in doctor.TESTED} == doctor.TESTED


def test_workspace(tmp_path):
    found = list(doctor.workspace_state(tmp_path / "new" / "deep"))
    assert found[0].state == "ok"
    assert not (tmp_path / "new").exists()
    (tmp_path / "workspace.json").write_text(json.dumps({"format": 99}))
    assert "layout version 99" in one(doctor.workspace_state(tmp_path)).what
    (tmp_path / "file").touch()
    assert one(doctor.workspace_state(tmp_path / "file" / "below")).state == "broken"


def test_little_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "LITTLE_DISK", 10**30)
    assert [symptom.state for symptom in doctor.workspace_state(tmp_path)] == ["ok", "warning"]


def test_hardware_says_which_number_format_and_why():
    found = {symptom.name: symptom for symptom in doctor.hardware()}
    assert found["number format"].what.startswith(("bf16: ", "fp32: "))
    assert {"cores", "device"} <= set(found)


def test_servers():
    class Healthy(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/api/health" else 401)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        found = list(doctor.servers({"RLHF_MLFLOW_URI": address, "PREFECT_API_URL": f"{address}/api"}))
        server.shutdown()
    assert [symptom.state for symptom in found] == ["warning", "ok"]
    down = list(doctor.servers({"RLHF_MLFLOW_URI": address}))
    assert [symptom.state for symptom in down] == ["broken", "ok"]
    assert "correct RLHF_MLFLOW_URI" in down[0].remedy


def test_a_check_that_raises_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "python_version", lambda: 1 / 0)
    monkeypatch.setattr(doctor, "hardware", lambda: iter(()))
    found = doctor.examine(tmp_path, {})
    assert found[0] == ("doctor", "broken", "ZeroDivisionError: division by zero", "")
    assert len(found) > 2


@pytest.mark.parametrize("state", ["ok", "warning", "broken"])
def test_command(state, monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda workspace: [doctor.Symptom("thing", state, "is so", "do this")])
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == (1 if state == "broken" else 0)
    assert "thing" in result.output
    assert "do this" in result.output
    assert json.loads(CliRunner().invoke(cli, ["doctor", "--json"]).stdout)["ok"] is (state != "broken")
