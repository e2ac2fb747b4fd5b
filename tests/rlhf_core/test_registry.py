from __future__ import annotations

import subprocess
import sys

import pytest

from rlhf_core import Use
from rlhf_core.errors import PluginError
from rlhf_core.plugins.code import code_of, forget
from rlhf_core.plugins.registry import PluginInfo, Registry, installed_plugins
from rlhf_core.plugins.slots import slots
from stub_plugins import STUBS, Bt, Pairs, stub_registry
from written_code import install, write

ACME = PluginInfo("reward_models", "bt", "acme", "2.0", "stub_plugins:Ctr")


def error_of(call, *arguments):
    with pytest.raises(PluginError) as caught:
        call(*arguments)
    return caught.value


def test_finds_by_name_and_by_full_name():
    registry = stub_registry()
    assert registry.find("reward_models", "bt") is registry.find("reward_models", "stubs/bt")
    assert registry.load("reward_models", "bt") is Bt


def test_kinds_have_their_own_names():
    """One name may stand for a plugin of each kind."""
    registry = Registry(plugins=[*STUBS, PluginInfo("annotators", "bt", "acme", "2.0", "stub_plugins:Pairs")])
    assert registry.load("annotators", "bt") is Pairs
    assert registry.load("reward_models", "bt") is Bt
    assert registry.clashes() == []


def test_unknown_names_suggest():
    error = error_of(stub_registry().find, "reward_models", "word")
    assert error.what == "there is no RewardModel plugin called `word`."
    assert error.remedy == "Did you mean `words`? Installed reward models: bt, ctr, words."
    assert error_of(Registry(plugins=[]).find, "gates", "x").remedy == "Installed gates: none."


def test_clashes_name_both_and_the_way_out():
    registry = Registry(plugins=[*STUBS, ACME])
    assert [[info.distribution for info in group] for group in registry.clashes()] == [["stubs", "acme"]]
    error = error_of(registry.find, "reward_models", "bt")
    assert error.what == "`bt` is offered by stubs 1.0 and acme 2.0."
    assert error.remedy == "Write `stubs/bt` or `acme/bt`."
    assert registry.find("reward_models", "acme/bt") is ACME


def test_broken_plugins_harm_nobody_else():
    registry = stub_registry()
    error = error_of(registry.load, "annotators", "crashing")
    assert "plugin `crashing` of wrecks 0.3 is broken: importing no_such_module:Crashing raised" in error.what
    assert "wrecks" in error.remedy
    assert registry.load("annotators", "pairs") is Pairs


@pytest.mark.parametrize("target", ["stub_plugins:Nobody", "stub_plugins:Bt", "stub_plugins", "rlhf_core:Registry.x"])
def test_targets_that_are_no_plugin(target):
    registry = Registry(plugins=[PluginInfo("annotators", "odd", "acme", "2.0", target)])
    assert "plugin `odd` of acme 2.0 is broken" in error_of(registry.load, "annotators", "odd").what


def test_allowlist(monkeypatch):
    registry = Registry(plugins=[*STUBS, ACME], allow=["stub*"])
    assert registry.find("reward_models", "bt").distribution == "stubs"
    assert registry.clashes() == []
    assert "RLHF_PLUGINS_ALLOW does not allow" in error_of(registry.find, "reward_models", "acme/bt").what
    assert "crashing" not in {info.name for info in registry.of_kind("annotators")}
    monkeypatch.setenv("RLHF_PLUGINS_ALLOW", " acme , other-* ")
    assert [info.name for info in Registry(plugins=[*STUBS, ACME]).of_kind("reward_models")] == ["bt"]


def test_creates_instances_with_checked_configs():
    created = stub_registry().create("reward_models", Use(use="bt", epochs=4))
    assert created.config.epochs == 4
    with pytest.raises(ValueError, match="epochz"):
        stub_registry().create("reward_models", Use(use="bt", epochz=4))


def test_fingerprint_follows_config_version_and_nested_plugins():
    use = Use(use="pairs", judge={"use": "bt"})

    def fingerprint(use, version="1.0"):
        plugins = [info._replace(version=version) if info.name == "bt" else info for info in STUBS]
        return Registry(plugins=plugins).fingerprint("annotators", use)

    assert fingerprint(use) == fingerprint(use)
    assert fingerprint(use)["config"]["raters"] == 3  # defaults count
    assert fingerprint(use) != fingerprint(Use(use="pairs", judge={"use": "bt", "epochs": 3}))
    assert fingerprint(use) != fingerprint(use, version="1.1")


READER = """
from pathlib import Path
from typing import Annotated
from rlhf_core import Annotator, PluginConfig, Use
from read_rules import RULES


class Reader(Annotator):
    class Config(PluginConfig):
        file: str
        judge: Annotated[Use | None, Use.of("reward_models")] = None

    @classmethod
    def reads(cls, config):
        return (Path(config.file),)
"""


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """An installed plugin that imports a module of its own and reads a file; its folder, and a way to use it."""
    points = "[rlhf.annotators]\nreader = read_by_it:Reader\n"
    install(tmp_path, "rlhf-reader", "1.0", {"read_by_it.py": READER, "read_rules.py": "RULES = 1"}, (), points)
    (tmp_path / "answers.txt").write_text("yes")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path, Use(use="reader", file=str(tmp_path / "answers.txt"), judge={"use": "pairwise"})
    for module in ("read_by_it", "read_rules"):
        sys.modules.pop(module, None)
    forget()


def test_fingerprint_follows_the_code_of_the_same_version(reader):
    folder, use = reader
    before = Registry().fingerprint("annotators", use)
    write(folder, {"read_rules.py": "RULES = 22"})
    assert Registry().fingerprint("annotators", use) == before  # this process goes on with what it has imported
    forget()
    after = Registry().fingerprint("annotators", use)
    assert after["code"] != before["code"]
    assert {**after, "code": ""} == {**before, "code": ""}


def test_fingerprint_looks_at_the_files_each_time(reader):
    folder, use = reader
    registry = Registry()
    before = registry.fingerprint("annotators", use)
    assert registry.fingerprint("annotators", use) == before
    (folder / "answers.txt").write_text("yes and no")
    assert registry.fingerprint("annotators", use)["files"] != before["files"]


def test_a_fingerprint_is_checked_once(reader, monkeypatch):
    registry, use = Registry(), reader[1]
    before = registry.fingerprint("annotators", use)
    monkeypatch.setattr(Registry, "load", None)
    again = Use(use="reader", judge={"use": "pairwise"}, file=use.options["file"])
    assert registry.fingerprint("annotators", again) == before
    with pytest.raises(TypeError):
        registry.fingerprint("annotators", Use(use="reader", file="another"))


def test_code_of_a_plugin_and_of_those_in_it(reader):
    _, use = reader
    code = Registry().code("annotators", use)
    assert {"read_by_it.py", "read_rules.py", "rlhf_plugins/reward_models/pairwise.py"} <= code.keys()
    assert code == {**code_of("read_by_it"), **code_of("rlhf_plugins.reward_models.pairwise")}
    alone = Registry().code("annotators", Use(use="reader", file="x"))
    assert alone == code_of("read_by_it")


def test_slots_of_a_config_that_names_a_plugin():
    config = Pairs.Config(judge={"use": "bt", "epochs": 2})
    assert [(slot.kind, slot.use) for slot in slots(config)] == [("reward_models", Use(use="bt", epochs=2))]
    assert list(slots(Pairs.Config())) == []


def test_lists_this_distribution_without_importing_it():
    code = (
        "import sys; from rlhf_core.plugins.registry import installed_plugins\n"
        "found = installed_plugins()\n"
        "assert 'causal_lm' in {info.name for info in found}, found\n"
        "print(*sorted(m for m in sys.modules if m.split('.')[0] in {'rlhf_plugins', 'rlhf_flows', 'torch', 'mlflow'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_plugin_is_listed_once():
    found = installed_plugins()
    assert len(found) == len(set(found))
    assert ("gates", "better", "rlhf-pipeline") in {info[:3] for info in found}
