"""The Kubernetes pool and manifests: rendered as Prefect's worker renders them, and checked without a cluster.

Where the packages are installed, `kubernetes-validate` checks against Kubernetes' own schemas as well.
"""

import asyncio
import importlib.util
import json
import re
from pathlib import Path
from unittest.mock import MagicMock

import jsonschema
import pytest
import yaml

KUBERNETES = Path(__file__).parents[2] / "deployments/kubernetes"
QUANTITY = re.compile(r"^\d+(\.\d+)?(m|[kMGTPE]|[KMGTPE]i)?$")
OF_A_JOB = {"backoffLimit", "ttlSecondsAfterFinished", "template"}
OF_A_POD = {
    "restartPolicy", "serviceAccountName", "automountServiceAccountToken", "imagePullSecrets", "nodeSelector",
    "tolerations", "runtimeClassName", "priorityClassName", "terminationGracePeriodSeconds", "securityContext",
    "containers", "volumes",
}  # fmt: skip
ASKED_BY_PREFECT = {"parallelism": 1, "completions": 1}
"""Prefect's worker refuses a template without them in the pod, where Kubernetes ignores them."""


def template():
    return json.loads((KUBERNETES / "base-job-template.json").read_text())


def rendered(**variables):
    """The Job that a run with these job variables becomes, short of what is known of the run itself."""
    from prefect.workers.base import BaseJobConfiguration

    class Configuration(BaseJobConfiguration):
        job_manifest: dict

    # No block is referred to, so that the client is never asked.
    made = asyncio.run(Configuration.from_template_and_values(template(), variables, client=MagicMock()))
    # The Kubernetes worker, which is not installed here, then writes variables and command as Kubernetes has them.
    (container,) = made.job_manifest["spec"]["template"]["spec"]["containers"]
    container["env"] = [{"name": name, "value": value} for name, value in made.env.items()]
    container.setdefault("args", ["prefect", "flow-run", "execute"])
    return made.job_manifest


def pod(job):
    return job["spec"]["template"]["spec"]


def documents():
    for path in sorted(KUBERNETES.glob("*.yaml")):
        if path.name not in {"kustomization.yaml", "prefect.yaml"}:
            yield from yaml.safe_load_all(path.read_text())


def pods_of(kind):
    return {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in documents() if one["kind"] == kind}


def check_pod(spec):
    declared = {volume["name"] for volume in spec.get("volumes", [])}
    assert len(declared) == len(spec.get("volumes", []))
    for container in spec["containers"]:
        assert container["name"] and container["image"] and container["args"]
        mounts = container.get("volumeMounts", [])
        assert {mount["name"] for mount in mounts} <= declared
        assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
        for amounts in container["resources"].values():
            assert all(QUANTITY.match(str(amount)) for amount in amounts.values()), amounts
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 1000


def check_job(job):
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert job["metadata"]["namespace"] == "rlhf"
    assert job["spec"].keys() == OF_A_JOB
    spec = pod(job)
    assert {name: spec.get(name) for name in ASKED_BY_PREFECT} == ASKED_BY_PREFECT
    assert spec.keys() - ASKED_BY_PREFECT.keys() <= OF_A_POD
    assert spec["restartPolicy"] == "Never"
    assert len(spec["containers"]) == 1
    assert "{{" not in json.dumps(job)
    check_pod(spec)


def test_the_template_is_one_that_a_prefect_server_takes():
    from prefect.server.schemas.actions import WorkPoolCreate

    WorkPoolCreate(name="rlhf", type="kubernetes", base_job_template=template())
    jsonschema.Draft202012Validator.check_schema(template()["variables"])


def test_every_variable_is_used_and_its_default_is_of_its_type():
    given = template()
    variables = given["variables"]["properties"]
    for name, schema in variables.items():
        assert f"{{{{ {name} }}}}" in json.dumps(given["job_configuration"]), name
        if "default" in schema:
            jsonschema.validate(schema["default"], schema)


def test_without_variables_it_is_a_job_without_a_gpu():
    job = rendered()
    check_job(job)
    (container,) = pod(job)["containers"]
    assert container["resources"] == {"requests": {"cpu": "2", "memory": "8Gi"}, "limits": {"memory": "8Gi"}}
    assert "runtimeClassName" not in pod(job) and "priorityClassName" not in pod(job)


def test_gpus_memory_and_place_are_the_runs():
    job = rendered(
        gpu_count=4,
        cpu="16",
        memory="200Gi",
        shared_memory="32Gi",
        node_selector={"pool": "a100"},
        tolerations=[{"key": "training", "operator": "Exists"}],
        runtime_class_name="nvidia",
        env={"NCCL_DEBUG": "INFO"},
    )
    check_job(job)
    (container,) = pod(job)["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "16", "memory": "200Gi", "nvidia.com/gpu": 4},
        "limits": {"memory": "200Gi", "nvidia.com/gpu": 4},
    }
    assert container["env"] == [{"name": "NCCL_DEBUG", "value": "INFO"}]
    assert pod(job)["nodeSelector"] == {"pool": "a100"}
    assert pod(job)["tolerations"] == [{"key": "training", "operator": "Exists"}]
    assert pod(job)["runtimeClassName"] == "nvidia"
    (shared,) = [volume for volume in pod(job)["volumes"] if volume["name"] == "shared-memory"]
    assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": "32Gi"}
    assert {"name": "shared-memory", "mountPath": "/dev/shm"} in container["volumeMounts"]


def test_the_projects_variables_are_the_templates():
    for deployment in yaml.safe_load((KUBERNETES / "prefect.yaml").read_text())["deployments"]:
        variables = deployment["work_pool"]["job_variables"]
        schema = {**template()["variables"], "additionalProperties": False}
        jsonschema.validate(variables, schema)
        check_job(rendered(**variables))


def test_the_manifests_have_what_the_jobs_name():
    job = rendered()
    made = {(one["kind"], one["metadata"]["name"]) for one in documents()}
    claims = {volume["persistentVolumeClaim"]["claimName"] for volume in pod(job)["volumes"] if len(volume) == 2
              and "persistentVolumeClaim" in volume}  # fmt: skip
    assert {("PersistentVolumeClaim", claim) for claim in claims} <= made
    assert ("ServiceAccount", pod(job)["serviceAccountName"]) in made
    (settings,) = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["configMapGenerator"]
    from_where = pod(job)["containers"][0]["envFrom"]
    assert from_where == [
        {"configMapRef": {"name": settings["name"]}},
        {"secretRef": {"name": "rlhf-secrets"}},
    ]


def test_no_secret_stands_in_a_file():
    secret = re.compile(r"PASSWORD|SECRET_ACCESS_KEY|TOKEN|STORE_URL")
    for line in (KUBERNETES / "settings.env").read_text().splitlines():
        name, _, value = line.partition("=")
        assert not secret.search(name) and "@" not in value
    assert not [one for one in documents() if one["kind"] == "Secret"]
    for spec in pods_of("Deployment").values():
        for variable in spec["containers"][0].get("env", []):
            assert "valueFrom" in variable or not secret.search(variable["name"])


def test_the_kustomization_names_every_manifest():
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    others = {"kustomization.yaml", "prefect.yaml"}
    assert set(kustomization["resources"]) == {path.name for path in KUBERNETES.glob("*.yaml")} - others
    for generated in kustomization["configMapGenerator"]:
        assert all((KUBERNETES / name).is_file() for name in generated["envs"])


def test_the_deployments_pods_are_whole_and_watched():
    pods = pods_of("Deployment")
    assert pods.keys() == {"rlhf-worker", "rlhf-annotate"}
    for name, spec in pods.items():
        check_pod(spec)
        assert {"startupProbe", "livenessProbe"} <= spec["containers"][0].keys(), name
    for one in documents():
        if one["kind"] == "Deployment":
            labels = one["spec"]["template"]["metadata"]["labels"]
            assert one["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_the_service_leads_to_the_pages():
    (service,) = [one for one in documents() if one["kind"] == "Service"]
    (deployment,) = [
        one for one in documents()
        if one["kind"] == "Deployment"
        and service["spec"]["selector"].items() <= one["spec"]["template"]["metadata"]["labels"].items()
    ]  # fmt: skip
    (port,) = service["spec"]["ports"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert port["targetPort"] in {one["name"] for one in container["ports"]}


def test_the_pages_command_is_a_command():
    from rlhf_flows.cli import cli

    program, command, *arguments = pods_of("Deployment")["rlhf-annotate"]["containers"][0]["args"]
    assert program == "rlhf"
    cli.get_command(None, command).make_context(command, arguments)


def test_the_worker_polls_the_pool_of_the_project():
    words = pods_of("Deployment")["rlhf-worker"]["containers"][0]["args"]
    pools = {
        deployment["work_pool"]["name"]
        for deployment in yaml.safe_load((KUBERNETES / "prefect.yaml").read_text())["deployments"]
    }
    assert words[:3] == ["prefect", "worker", "start"]
    assert pools == {word.removeprefix("--pool=") for word in words if word.startswith("--pool=")}


@pytest.mark.skipif(importlib.util.find_spec("kubernetes_validate") is None, reason="needs kubernetes-validate")
def test_kubernetes_own_schemas_agree():
    import kubernetes_validate

    job = rendered(gpu_count=2)
    for name in ASKED_BY_PREFECT:
        del pod(job)[name]
    job["metadata"]["name"] = "run"
    for one in [job, *documents()]:
        kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)
