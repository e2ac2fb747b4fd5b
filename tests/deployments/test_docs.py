"""What the pages in `docs/deploy` show is what there is."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from rlhf_core.pipeline.site import Site

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/deploy").glob("*.md"))


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def test_the_site_files_are_site_files():
    shown = [block for page in PAGES for block in blocks(page, "yaml")]
    assert shown
    for block in shown:
        Site.model_validate(yaml.safe_load(block))


def test_the_programs_can_be_parsed():
    page = ROOT / "docs/deploy/clusters.md"
    (program,), (script,) = blocks(page, "python"), blocks(page, "bash")
    ast.parse(program)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_files_and_pages_that_are_named_are_there(page):
    text = page.read_text()
    named = set(re.findall(r"deployments/[\w./-]*\w", text)) - {"deployments/.env"}
    assert all((ROOT / path).exists() for path in named), named
    assert all((page.parent / link).is_file() for link in re.findall(r"\]\((\w+\.md)\)", text))


def test_the_variables_of_the_kubernetes_page_are_the_templates():
    import json

    template = json.loads((ROOT / "deployments/kubernetes/base-job-template.json").read_text())
    rows = re.findall(r"^\| (`.*?`) \|", (ROOT / "docs/deploy/kubernetes.md").read_text(), re.MULTILINE)
    names = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert {"gpu_count", "memory"} <= names <= template["variables"]["properties"].keys() | {"pipelines"}


def test_the_variables_of_the_compose_page_are_the_files():
    files = "".join((ROOT / "deployments" / name).read_text() for name in ("compose.yaml", "compose.gpu.yaml"))
    rows = re.findall(r"^\| (`[A-Z].*?) \|", (ROOT / "docs/deploy/compose.md").read_text(), re.MULTILINE)
    names = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert names and all(re.search(rf"\b{name}\b", files) for name in names)
