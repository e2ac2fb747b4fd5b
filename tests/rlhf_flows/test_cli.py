from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from rlhf_core.plugins import CONTRACTS
from rlhf_flows import cli as cli_package
from rlhf_flows.cli import COMMANDS, cli
from rlhf_flows.cli.plugins import KINDS


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RLHF_PLUGINS_ALLOW", raising=False)
    monkeypatch.delenv("RLHF_WORKSPACE", raising=False)


def rlhf(*arguments):
    return CliRunner().invoke(cli, arguments)


def fresh(*arguments, **environment):
    """In a process of its own, as people run it."""
    code = "from rlhf_flows.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("command", [["--help"], ["plugins", "--help"], ["check", "--help"]])
def test_help_imports_nothing_heavy(command):
    code = (
        "import sys\nfrom rlhf_flows.cli import cli\n"
        f"try: cli({command!r})\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'pydantic', 'rlhf_core', 'rlhf_plugins', 'mlflow', 'prefect', 'yaml', 'rich', 'numpy'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_help_is_quick():
    """Under 0.4 s; measured in processor time, so that a busy machine does not fail it."""
    before = os.times()
    done = fresh("--help")
    after = os.times()
    assert done.returncode == 0
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert used < 0.4


def test_plugins_list_imports_no_plugin():
    code = (
        "import sys\nfrom rlhf_flows.cli import cli\n"
        "try: cli(['plugins', 'list', '--json'])\nexcept SystemExit: pass\n"
        "print('loaded:', sorted({'torch', 'rlhf_plugins', 'mlflow', 'prefect'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_exists_and_has_help(name):
    result = rlhf(name, "--help")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("Usage: rlhf " + name)


def test_help_lists_every_command():
    output = rlhf("--help").output
    assert all(f"  {name} " in output for name in COMMANDS)


def test_unknown_commands_suggest():
    result = rlhf("chek")
    assert result.exit_code == 2
    assert "Did you mean `rlhf check`?" in result.output
    assert rlhf("frobnicate").exit_code == 2


def test_version():
    assert rlhf("--version").output.strip()


def test_the_kinds_are_those_of_the_contracts():
    assert set(KINDS) == set(CONTRACTS)


# Errors


@click.command()
def fails():
    from rlhf_core.errors import RlhfError

    raise RlhfError("the store is odd.", where="feedback.db", remedy="Look at it.")


@click.command()
def crashes():
    raise RuntimeError("a bug")


@click.command()
def interrupted():
    raise KeyboardInterrupt


@pytest.fixture
def broken(monkeypatch):
    for command in (fails, crashes, interrupted):
        monkeypatch.setitem(cli.commands_at, command.name, (f"{__name__}:{command.name}", ""))


@pytest.mark.usefixtures("broken")
def test_errors_are_one_paragraph(monkeypatch):
    result = rlhf("fails")
    assert result.exit_code == 2
    assert result.stderr == "feedback.db  the store is odd.\nLook at it.\n"
    assert result.stdout == ""
    monkeypatch.setenv("RLHF_DEBUG", "1")
    assert type(rlhf("fails").exception).__name__ == "RlhfError"


@pytest.mark.usefixtures("broken")
def test_a_bug_is_one_paragraph_and_its_traceback_is_in_the_file_that_it_names(monkeypatch):
    result = rlhf("crashes")
    assert result.exit_code == 1 and "Traceback" not in result.output
    place, _, what = result.stderr.partition("  ")
    assert "RuntimeError" in what
    assert "Traceback" in Path(place).read_text()
    Path(place).unlink()
    monkeypatch.setenv("RLHF_DEBUG", "1")
    assert isinstance(rlhf("crashes").exception, RuntimeError)


@pytest.mark.usefixtures("broken")
def test_ctrl_c_says_how_to_go_on():
    result = rlhf("interrupted")
    assert result.exit_code == 130
    assert "stopped; the same command goes on" in result.stderr
    assert "Traceback" not in result.output


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"{sys.executable} -c 'from rlhf_flows.cli import main; main()' schema | head -c 10"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# init, check, schema


def test_init_writes_a_pipeline_that_fits():
    result = rlhf("init", "mine")
    assert result.exit_code == 0, result.output
    text = Path("mine.yaml").read_text()
    assert yaml.safe_load(text)["pipeline"] == "mine"
    assert text.count("#") > 15
    result = rlhf("check", "mine.yaml")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("ok  mine · 3 rounds")


def test_init_is_the_packaged_demo():
    """What `rlhf init` writes and what `make demo` runs must not drift apart."""
    demo = Path(cli_package.__file__).parents[3] / "deployments" / "pipelines" / "newsroom.yaml"
    rlhf("init", "newsroom")
    ours, theirs = yaml.safe_load(Path("newsroom.yaml").read_text()), yaml.safe_load(demo.read_text())
    assert {**theirs, **ours} == {**ours, **theirs}


def test_init_never_overwrites():
    Path("mine.yaml").write_text("precious")
    result = rlhf("init", "mine")
    assert result.exit_code == 2
    assert "the file exists" in result.stderr
    assert Path("mine.yaml").read_text() == "precious"


def test_init_speaks_about_gitignore():
    Path(".git").mkdir()
    assert "Add .rlhf/ to .gitignore" in rlhf("init", "one").output
    Path(".gitignore").write_text(".rlhf/\n")
    assert ".gitignore" not in rlhf("init", "two").output


@pytest.mark.parametrize("name", ["../up", "a b", "", "-x"])
def test_init_refuses_odd_names(name):
    assert rlhf("init", "--", name).exit_code == 2
    assert not list(Path().glob("*.yaml"))


def test_check_names_file_and_line():
    rlhf("init", "mine")
    path = Path("mine.yaml")
    path.write_text(path.read_text().replace("questions: 600", "questionz: 600"))
    number = 1 + path.read_text()[: path.read_text().index("questionz")].count("\n")
    result = rlhf("check", "mine.yaml")
    assert result.exit_code == 2
    assert result.stderr == f"mine.yaml:{number}  ask.questionz: unknown field; did you mean `questions`?\n"


def test_check_as_json():
    rlhf("init", "mine")
    good = json.loads(rlhf("check", "mine.yaml", "--json").stdout)
    assert good["ok"]
    assert good["problems"] == []
    assert {"place": "policy", "kind": "policies", "plugin": "causal_lm"}.items() <= good["parts"][1].items()
    result = rlhf("check", "mine.yaml", "--json", "--set", "gate.use=bettr")
    assert result.exit_code == 2
    (problem,) = json.loads(result.stdout)["problems"]
    assert problem["where"] == "--set"
    assert "Did you mean `better`?" in problem["remedy"]


def test_check_shows_what_does_not_fit():
    rlhf("init", "mine")
    result = rlhf("check", "mine.yaml", "--set", "gold=null", "--set", "gate.metric=wins")
    assert result.exit_code == 2
    assert "asks the gold judge" in result.stderr
    assert "reads the metric wins" in result.stderr


def test_check_of_a_missing_file():
    result = rlhf("check", "absent.yaml")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (2, "absent.yaml  there is no such file.")


def test_schema_accepts_the_shipped_pipelines_and_refuses_misspelt_ones():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(rlhf("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    shipped = Path(cli_package.__file__).parents[3] / "deployments" / "pipelines"
    rlhf("init", "mine")
    for path in [Path("mine.yaml"), *sorted(shipped.glob("*.yaml"))]:
        text = path.read_text()
        assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == [], path
        for key in ("use", "policy", "gate", "rounds"):
            misspelt, count = re.subn(rf"^([ -]*){key}:", rf"\1{key}x:", text, count=1, flags=re.MULTILINE)
            assert count == 1 or key == "rounds"
            assert not count or list(validator.iter_errors(yaml.safe_load(misspelt)))


def test_schema_into_the_workspace():
    assert rlhf("schema", "--write", "--workspace", "here").exit_code == 0
    assert "$defs" in json.loads(Path("here/schema.json").read_text())


# plugins


def test_plugins_list():
    result = rlhf("plugins", "list")
    assert result.exit_code == 0
    assert ["gates", "better", "rlhf-pipeline"] in [line.split()[:3] for line in result.output.splitlines()]
    assert "annotators" not in rlhf("plugins", "list", "reward-model").output
    assert rlhf("plugins", "list", "hamsters").exit_code == 2


def test_plugins_list_as_json():
    found = json.loads(rlhf("plugins", "list", "gates", "--json").stdout)["plugins"]
    better = next(plugin for plugin in found if plugin["name"] == "better")
    assert better["status"] == "installed"
    assert set(better) == {"kind", "name", "distribution", "version", "target", "status", "detail"}


def test_plugins_list_knows_the_allowlist(monkeypatch):
    monkeypatch.setenv("RLHF_PLUGINS_ALLOW", "acme-*")
    found = json.loads(rlhf("plugins", "list", "--json").stdout)["plugins"]
    assert {plugin["status"] for plugin in found} == {"not allowed"}


def test_plugins_show():
    output = rlhf("plugins", "show", "better").output
    assert "win_rate: float, default 0.5" in output
    assert "reads: win_rate_vs_champion" in output
    both = json.loads(rlhf("plugins", "show", "principles", "--json").stdout)
    assert {manual["kind"] for manual in both} == {"annotators", "reward_models"}
    one = json.loads(rlhf("plugins", "show", "principles", "--json", "--kind", "annotator").stdout)
    assert one[0]["declares"]["yields"] == ["comparisons", "rankings"]
    result = rlhf("plugins", "show", "bettr")
    assert result.exit_code == 2
    assert "Did you mean `better`?" in result.stderr


def test_plugins_show_describes_nested_options_and_required_ones():
    (manual,) = json.loads(rlhf("plugins", "show", "table", "--json").stdout)
    options = {option["name"]: option for option in manual["options"]}
    assert options["path"]["required"]
    assert options["encoding"]["default"] == '"utf-8"'
    assert all(option["doc"] for option in options.values())


def test_plugins_check():
    result = rlhf("plugins", "check", "better")
    assert (result.exit_code, result.output) == (0, "rlhf-pipeline/better (gates) keeps its contract\n")
    result = rlhf("plugins", "check", "better", "--set", "win_rat=1", "--json")
    assert result.exit_code == 1
    (finding,) = json.loads(result.stdout)["findings"]
    assert "did you mean `win_rate`?" in finding["what"]


@pytest.mark.parametrize("kind", KINDS)
def test_new_plugins_keep_their_contract(kind, monkeypatch):
    """What `rlhf plugins new` writes is a plugin that works and passes its own test."""
    name = f"fresh_{kind}"
    assert rlhf("plugins", "new", kind, name).exit_code == 0
    folder = Path(f"rlhf-fresh-{kind.replace('_', '-')}")
    assert f'"rlhf.{kind}"' in (folder / "pyproject.toml").read_text()
    monkeypatch.syspath_prepend(folder / "src")
    import importlib

    from rlhf_core.testing.conformance import check_plugin

    module = importlib.import_module(f"rlhf_{name}")
    plugin = getattr(module, "".join(part.capitalize() for part in name.split("_")))
    assert plugin.kind == kind
    assert check_plugin(plugin) == []
    compile((folder / "tests" / f"test_{name}.py").read_text(), "test", "exec")


def test_new_refuses_names_and_folders_with_content():
    assert "cannot be the name" in rlhf("plugins", "new", "gate", "No!").stderr
    assert "cannot be the name" in rlhf("plugins", "new", "gate", "class").stderr
    Path("full").mkdir()
    Path("full/file").touch()
    assert "not empty" in rlhf("plugins", "new", "gate", "mine", "--into", "full").stderr


def test_workspace_from_the_environment(monkeypatch):
    monkeypatch.setenv("RLHF_WORKSPACE", "there")
    rlhf("schema", "--write")
    assert Path("there/schema.json").exists()


def test_time_of_a_check():
    """Nothing heavy is loaded for a check: it would take ten seconds."""
    rlhf("init", "mine")
    started = time.process_time()
    rlhf("check", "mine.yaml")
    assert time.process_time() - started < 3
