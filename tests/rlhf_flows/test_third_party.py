"""Plugins of other distributions: found, described, checked, wired; the broken and the clashing are survived."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner
from distributions import QUIET, SHOUTING, install_acme, install_rival, install_wreck

from rlhf_flows.cli import cli

PIPELINE = """\
pipeline: acme
data:
  - {use: newsroom, prompts: 80}
policy: {use: causal_lm, max_prompt_tokens: 64, max_new_tokens: 12, starter: {layers: 1, width: 32, heads: 2}}
ask:
  questions: 30
  samples: 2
  annotators:
    - use: shouting
      tolerance: 0.01
reward: {use: quiet}
gold: {use: principles}
optimize: {use: ppo, steps: 2, batch: 16}
test: {prompts: 8}
evaluate:
  - {use: win_rate, judge: gold}
gate: {use: better}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder of installed distributions: a good one, one that raises on import, one that clashes with us."""
    folder = tmp_path_factory.mktemp("site")
    install_acme(folder)
    install_wreck(folder)
    install_rival(folder)
    return folder


@pytest.fixture
def rlhf(site, tmp_path, monkeypatch):
    """Runs `rlhf` where they are installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(site)

    def rlhf(*arguments, **environment):
        result = CliRunner().invoke(cli, arguments, env=environment)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return rlhf


@pytest.fixture
def check(rlhf, tmp_path):
    def check(*changes, **environment):
        text = PIPELINE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "acme.yaml").write_text(text)
        return rlhf("check", "acme.yaml", **environment)

    return check


def test_list_shows_every_state_and_imports_none(rlhf):
    listed = json.loads(rlhf("plugins", "list", "--json").stdout)["plugins"]
    found = {(plugin["distribution"], plugin["name"], plugin["kind"]): plugin for plugin in listed}
    assert found["rlhf-acme", "shouting", "annotators"]["version"] == "1.4"
    assert found["rlhf-acme", "quiet", "reward_models"]["status"] == "installed"
    # Nothing is imported, so a wreck looks like any other.
    assert found["rlhf-wreck", "wrecked", "annotators"]["status"] == "installed"
    assert found["rlhf-rival", "pairwise", "reward_models"]["status"] == "clash"
    assert found["rlhf-pipeline", "pairwise", "reward_models"]["detail"] == "write rlhf-pipeline/pairwise"


def test_nothing_of_it_needs_this_process(site, tmp_path):
    """As people run it: a process of its own, in which the distributions are simply there."""
    result = subprocess.run(
        [sys.executable, "-c", "from rlhf_flows.cli import main; main()", "plugins", "show", "shouting"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    assert "rlhf-acme 1.4" in result.stdout


def test_probing_finds_the_wreck_and_survives_it(rlhf):
    result = rlhf("plugins", "list", "annotators", "--probe")
    assert result.exit_code == 0, result.stderr
    lines = {line.split()[1]: line for line in result.stdout.splitlines() if line.strip()}
    assert lines["shouting"].split()[-1] == "ok"
    assert lines["simulated_panel"].split()[-1] == "ok"
    assert "broken: plugin `rlhf-wreck/wrecked` of rlhf-wreck 0.0.9 is broken" in lines["wrecked"]
    assert "RuntimeError: no licence key" in lines["wrecked"]


def test_show(rlhf):
    output = rlhf("plugins", "show", "shouting").stdout
    assert "rlhf-acme 1.4" in output
    assert "Prefers the sample with fewer capital letters." in output
    assert "yields: comparisons" in output
    assert "tolerance: float, default 0.02" in output
    broken = rlhf("plugins", "show", "wrecked", "--kind", "gate")
    assert broken.exit_code == 2
    assert "plugin `wrecked` of rlhf-wreck 0.0.9 is broken" in broken.stderr
    assert "Traceback" not in broken.stderr


def test_check_of_the_contract(rlhf):
    for name in ("shouting", "quiet"):
        result = rlhf("plugins", "check", name)
        assert result.exit_code == 0, result.stdout + result.stderr
        assert "keeps its contract" in result.stdout
    result = rlhf("plugins", "check", "rlhf-rival/pairwise")
    assert result.exit_code == 0, result.stdout


def test_a_pipeline_with_them_fits(check):
    result = check()
    assert result.exit_code == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["ask.annotators.0", "shouting", "rlhf-acme", "1.4"] in rows
    assert ["reward", "quiet", "rlhf-acme", "1.4"] in rows


def test_their_options_are_checked_like_ours(check):
    result = check(("tolerance", "tolerence"))
    assert result.exit_code == 2
    assert result.stderr == "acme.yaml:10  ask.annotators.0.tolerence: unknown field; did you mean `tolerance`?\n"


def test_a_wreck_is_an_error_only_where_it_is_used(check):
    result = check(("use: shouting\n      tolerance: 0.01", "use: wrecked"))
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "acme.yaml:9  ask.annotators.0.use: plugin `wrecked` of rlhf-wreck 0.0.9 is broken: "
        "importing wreck:Wrecked raised RuntimeError: no licence key"
    )
    assert "rlhf-wreck" in result.stderr.splitlines()[1]
    assert "Traceback" not in result.stderr


def test_a_clash_names_both_and_the_way_out(check):
    result = check(("{use: quiet}", "{use: pairwise}"))
    assert result.exit_code == 2
    assert "`pairwise` is offered by rlhf-pipeline 0.1.0 and rlhf-rival 3.1." in result.stderr
    assert "Write `rlhf-pipeline/pairwise` or `rlhf-rival/pairwise`." in result.stderr
    for name in ("rlhf-pipeline/pairwise", "rlhf-rival/pairwise"):
        result = check(("{use: quiet}", f"{{use: {name}}}"))
        assert result.exit_code == 0, result.stderr


def test_advice_leaves_wrecks_out(check):
    """What is proposed can be used: broken plugins are skipped, clashing ones written in full."""
    result = check(("use: shouting\n      tolerance: 0.01", "use: shouting"), ("judge: gold", "judge: reward"))
    assert result.exit_code == 0, result.stderr
    without = check((PIPELINE[PIPELINE.index("ask:") : PIPELINE.index("reward:")], ""))
    assert without.exit_code == 2
    assert "reward: `quiet` learns from comparisons, but the data brings no feedback" in without.stderr
    assert "Installed annotators that yield comparisons: " in without.stderr
    assert "shouting" in without.stderr
    assert "wrecked" not in without.stderr


def test_allowlist(check):
    result = check(RLHF_PLUGINS_ALLOW="rlhf-pipeline")
    assert result.exit_code == 2
    assert "`shouting` belongs to rlhf-acme, which RLHF_PLUGINS_ALLOW does not allow." in result.stderr
    assert check(RLHF_PLUGINS_ALLOW="rlhf-pipeline, rlhf-acme").exit_code == 0
    # Restricting the rival away resolves the clash.
    result = check(("{use: quiet}", "{use: pairwise}"), RLHF_PLUGINS_ALLOW="rlhf-pipeline,rlhf-acme")
    assert result.exit_code == 0, result.stderr


def test_schema_knows_them(rlhf):
    schema = json.loads(rlhf("schema").stdout)
    assert "tolerance" in schema["$defs"]["annotators.rlhf-acme.shouting"]["properties"]
    assert not any("wreck" in name for name in schema["$defs"])


def test_the_fixture_of_the_conformance_kit_is_there_for_them(site, tmp_path):
    """In a test suite far from this tree, without any configuration."""
    (tmp_path / "test_theirs.py").write_text(
        "from acme_shouting import Shouting\n\n\ndef test_contract(rlhf_conformance):\n    rlhf_conformance(Shouting)\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_theirs.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    assert result.returncode == 0, result.stdout


def test_a_campaign_learns_from_them(site, tmp_path):
    """In a process of its own, beside the wreck and the rival, which nobody asked for."""
    (tmp_path / "acme.yaml").write_text(PIPELINE)
    summary = campaign(sys.executable, tmp_path, PYTHONPATH=str(site))
    metrics = summary["rounds"][1]["metrics"]
    assert {"gold_score", "win_rate_vs_champion"} <= set(metrics)
    assert metrics["reward_accuracy"]["n"] > 0
    (weight,) = (tmp_path / ".rlhf" / "artifacts" / "reward").glob("*/reward/weight.txt")
    assert float(weight.read_text()) < 0, "fewer capitals were preferred, so capitals cost"


def campaign(python, folder, **environment):
    """`rlhf run acme.yaml` in `folder`; what it printed."""
    code = "from rlhf_flows.cli import main; main()"
    result = subprocess.run(
        [python, "-c", code, "run", "acme.yaml", "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, **environment},
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.slow
def test_installed_by_pip_into_a_fresh_environment(tmp_path):
    """The same with a real environment and a real installation."""
    source = tmp_path / "acme"
    source.mkdir()
    (source / "acme_shouting.py").write_text(SHOUTING)
    (source / "acme_quiet.py").write_text(QUIET)
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools>=77"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "rlhf-acme"\nversion = "1.4"\n'
        '[project.entry-points."rlhf.annotators"]\nshouting = "acme_shouting:Shouting"\n'
        '[project.entry-points."rlhf.reward_models"]\nquiet = "acme_quiet:Quiet"\n'
        '[tool.setuptools]\npy-modules = ["acme_shouting", "acme_quiet"]\n'
    )
    (tmp_path / "acme.yaml").write_text(PIPELINE)
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    # An environment made from another environment does not see that one's packages by itself.
    (folder,) = (environment / "lib").glob("python3*/site-packages")
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (folder / "outer.pth").write_text("\n".join(f"import site; site.addsitedir({path!r})" for path in ours) + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", source], check=True, cwd=tmp_path)
    assert list(folder.glob("rlhf_acme-1.4.dist-info"))

    def rlhf(*arguments):
        code = "from rlhf_flows.cli import main; main()"
        return subprocess.run(
            [python, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
        )

    listed = json.loads(rlhf("plugins", "list", "--json").stdout)["plugins"]
    assert {"shouting", "quiet"} <= {plugin["name"] for plugin in listed if plugin["distribution"] == "rlhf-acme"}
    result = rlhf("check", "acme.yaml")
    assert result.returncode == 0, result.stderr
    assert rlhf("plugins", "check", "quiet").returncode == 0
    assert "gold_score" in campaign(python, tmp_path)["rounds"][1]["metrics"]
