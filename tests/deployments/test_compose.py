"""The services for Docker Compose, read as Compose reads them: no engine is needed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rlhf_flows.cli import cli

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = ROOT / "deployments"
OURS = {"RLHF_STORE_URL", "RLHF_MLFLOW_URI", "RLHF_WORKSPACE", "RLHF_URL", "RLHF_ARTIFACTS", "RLHF_SITE"}
"""Variables that the program reads; the others belong to the file itself."""
SECRETS = {"RLHF_PASSWORD": "the-password", "RLHF_S3_SECRET": "the-secret"}
ONE_SHOT = "bucket"
"""The service that ends when its work is done."""
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<sign>[-?])(?P<rest>[^}]*))?\}")


def interpolated(text):
    """The file as Compose sees it where only the secrets are set."""
    given = {match["name"] for match in VARIABLE.finditer(text)}
    assert SECRETS.keys() <= given | SECRETS.keys()

    def value(match):
        if (known := SECRETS.get(match["name"])) is not None:
            return known
        assert match["sign"] == "-", f"{match['name']} has no default"
        return match["rest"]

    return VARIABLE.sub(value, text)


def compose(name="compose.yaml"):
    return yaml.safe_load(interpolated((DEPLOYMENTS / name).read_text()))


def services():
    return compose()["services"]


def test_the_two_secrets_must_be_chosen():
    text = (DEPLOYMENTS / "compose.yaml").read_text()
    required = {match["name"] for match in VARIABLE.finditer(text) if match["sign"] == "?"}
    assert required == set(SECRETS)


def test_every_service_says_whether_it_is_healthy():
    for name, service in services().items():
        if name != ONE_SHOT:
            assert service["healthcheck"]["test"][0] == "CMD", name


def test_what_waits_for_another_can_know_that_it_is_ready():
    found = services()
    for name, service in found.items():
        for other, wait in service.get("depends_on", {}).items():
            condition = wait["condition"]
            if other == ONE_SHOT:
                assert condition == "service_completed_successfully", name
                assert found[other]["restart"] == "on-failure"
            else:
                assert condition == "service_healthy", name
                assert "healthcheck" in found[other]


def test_no_secret_stands_on_a_command_line_or_in_an_address():
    for name, service in services().items():
        told = {key: service.get(key) for key in ("command", "entrypoint", "healthcheck", "build", "labels")}
        for secret in SECRETS.values():
            assert secret not in str(told), name
            for variable, value in (service.get("environment") or {}).items():
                assert secret not in str(value) or variable in {
                    "PGPASSWORD", "POSTGRES_PASSWORD", "AWS_SECRET_ACCESS_KEY",
                }, (name, variable)  # fmt: skip


def test_secrets_are_given_to_whoever_needs_them_only():
    holders = {
        variable: {name for name, service in services().items() if variable in (service.get("environment") or {})}
        for variable in ("PGPASSWORD", "AWS_SECRET_ACCESS_KEY")
    }
    assert holders == {
        "PGPASSWORD": {"mlflow", "prefect", "annotate", "serve"},
        "AWS_SECRET_ACCESS_KEY": {"s3", "bucket", "mlflow", "serve"},
    }


def test_every_volume_and_config_is_declared():
    whole = compose()
    for name, service in whole["services"].items():
        for mount in service.get("volumes", []):
            source, target = mount.split(":")[:2]
            assert target.startswith("/")
            assert source in whole["volumes"] or (DEPLOYMENTS / source).is_dir(), (name, source)
        for config in service.get("configs", []):
            assert config["source"] in whole["configs"], name


def test_own_pipelines_and_downloaded_models_outlive_the_container():
    mounts = dict(mount.split(":")[:2][::-1] for mount in services()["serve"]["volumes"])
    dockerfile = (DEPLOYMENTS / "Dockerfile").read_text()
    assert mounts == {"/workspace": "workspace", "/models": "models", "/project": "./pipelines"}
    assert "RLHF_WORKSPACE=/workspace HF_HOME=/models" in dockerfile
    assert "WORKDIR /project" in dockerfile
    assert (DEPLOYMENTS / "pipelines" / services()["serve"]["command"][2]).is_file()


def test_stages_and_mlflow_keep_their_artifacts_in_the_bucket():
    found = services()
    bucket = re.search(r"makedirs\('(\w+)', exist_ok=True\)", found[ONE_SHOT]["command"][-1])[1]
    assert found["serve"]["environment"]["RLHF_ARTIFACTS"].startswith(f"s3://{bucket}/")
    assert found["mlflow"]["environment"]["MLFLOW_ARTIFACTS_DESTINATION"].startswith(f"s3://{bucket}/")
    for name in ("serve", "mlflow", ONE_SHOT):
        assert found[name]["environment"]["AWS_ENDPOINT_URL"] == "http://s3:8333"


@pytest.mark.parametrize("name", ["annotate", "serve"])
def test_our_services_commands_are_commands(name):
    program, command, *arguments = services()[name]["command"]
    assert program == "rlhf"
    cli.get_command(None, command).make_context(command, arguments)


def test_mlflows_command_and_variables_are_mlflows():
    from mlflow import environment_variables
    from mlflow.cli import server

    service = services()["mlflow"]
    assert service["command"][:2] == ["mlflow", "server"]
    server.make_context("server", service["command"][2:], resilient_parsing=False)
    known = {parameter.envvar for parameter in server.params} | set(vars(environment_variables))
    assert {name for name in service["environment"] if name.startswith("MLFLOW_")} <= known


def test_prefects_command_and_variables_are_prefects():
    from prefect.settings import Settings
    from prefect.settings.legacy import _get_settings_fields

    service = services()["prefect"]
    assert service["command"] == ["prefect", "server", "start", "--host", "0.0.0.0"]
    said = subprocess.run(
        [sys.executable, "-m", "prefect", "server", "start", "--help"], capture_output=True, text=True
    )
    assert "--host" in said.stdout
    used = {name for one in services().values() for name in one.get("environment") or {} if name.startswith("PREFECT")}
    assert used <= set(_get_settings_fields(Settings)), used


def test_the_services_variables_are_read_by_somebody():
    code = "".join(path.read_text() for folder in ("flows", "rlhf_core") for path in (ROOT / folder).rglob("*.py"))
    given = {name for one in services().values() for name in one.get("environment") or {} if "RLHF" in name}
    assert given and given <= OURS
    assert all(name in code for name in OURS)


def test_only_the_proxy_can_be_opened_to_others():
    text = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())
    for name, service in text["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("${RLHF_BIND:-127.0.0.1}:" if name == "tls" else "127.0.0.1:")


def test_the_gpu_file_adds_to_a_service_that_is_there():
    added = compose("compose.gpu.yaml")["services"]
    assert added.keys() <= services().keys()
    (device,) = added["serve"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}


def test_the_image_has_extras_that_exist_and_no_root():
    import tomllib

    dockerfile = (DEPLOYMENTS / "Dockerfile").read_text()
    extras = re.search(r"^ARG EXTRAS=(.*)$", dockerfile, re.MULTILINE)[1].split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras) <= project["optional-dependencies"].keys()
    user = re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE)
    assert user == ["1000"]
    for source in re.findall(r"^COPY (?:--\S+ )*(.+) \S+$", dockerfile, re.MULTILINE):
        assert all((ROOT / path).exists() for path in source.split()), source
