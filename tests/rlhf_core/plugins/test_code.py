"""What counts as the code of a module, shown on small packages and on the plugins of this tree."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import subprocess
import sys
import zipfile

import pytest

from rlhf_core.plugins.code import changed_code, code_digest, code_of, forget
from rlhf_core.plugins.registry import installed_plugins
from written_code import install, write


@pytest.fixture(autouse=True)
def afresh():
    yield
    forget()


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A folder on `sys.path`, as a person's own."""
    (tmp_path / "own").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "own")
    return tmp_path / "own"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on `sys.path` for installed distributions."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


def names(module):
    return set(code_of(module))


def test_follows_imports_of_every_form(path):
    write(
        path,
        {
            "kit/__init__.py": "",
            "kit/plugin.py": "import kit.one\nfrom kit import two\nfrom kit.three import thing\nfrom . import four\n"
            "from .deep.five import *\ndef f():\n    from ..kit.six import x\n    from .. import kit\n",
            "kit/one.py": "import kit.plugin  # and round again",
            "kit/two.py": "from kit.three import nothing",
            "kit/three.py": "from .no_such_module import x\nimport nowhere.at_all",
            "kit/four.py": "thing = 1",
            "kit/deep/__init__.py": "from .seven import x",
            "kit/deep/five.py": "",
            "kit/deep/seven.py": "from ..eight import x\nfrom ..... import too_far",
            "kit/eight.py": "",
            "kit/six.py": "",
            "kit/unused.py": "",
        },
    )
    everything = {str(file.relative_to(path)) for file in path.rglob("*.py")}
    # `..kit` leads out of the package, where Python doesn't follow.
    assert names("kit.plugin") == everything - {"kit/unused.py", "kit/six.py"}


def test_a_module_on_the_path_is_followed_and_named_from_there(path):
    write(path, {"mine.py": "import helper", "helper.py": "", "notes.txt": "Not data of a package."})
    assert names("mine") == {"mine.py", "helper.py"}


def test_an_edit_is_a_new_digest(path):
    write(path, {"kit/__init__.py": "", "kit/a.py": "from kit.b import x", "kit/b.py": "x = 1", "kit/c.py": ""})
    before, digest = code_of("kit.a"), code_digest("kit.a")
    write(path, {"kit/b.py": "x = 10"})
    assert code_of("kit.a") is before  # this process goes on with what it has loaded
    forget()
    assert changed_code(before, code_of("kit.a")) == ["kit/b.py"]
    assert code_digest("kit.a") != digest
    write(path, {"kit/b.py": "x = 1", "kit/c.py": "y = 1"})
    forget()
    assert code_digest("kit.a") == digest
    assert code_digest("kit.a", "kit.c") != digest == code_digest("kit.a", "kit.b")


def test_what_changed():
    assert changed_code({"a": "1", "b": "1", "c": "1"}, {"d": "1", "a": "1", "b": "2"}) == ["b", "c", "d"]


def test_data_beside_the_code(path):
    write(
        path,
        {
            "kit/__init__.py": "",
            "kit/a.py": "",
            "kit/words.yaml": "- yes",
            "kit/pages/style.css": "",
            "kit/pages/deep/x.html": "",
            "kit/.hidden": "",
            "kit/a.py~": "",
            "kit/py.typed": "",
            "kit/a.pyi": "",
            "kit/__pycache__/a.cpython-311.pyc": "",
            "kit/other/b.py": "",
            "kit/other/other.json": "{}",
        },
    )
    package = {"kit/__init__.py", "kit/words.yaml", "kit/pages/style.css", "kit/pages/deep/x.html"}
    assert names("kit.a") == package | {"kit/a.py"}
    assert names("kit.other.b") == package | {"kit/other/b.py", "kit/other/other.json"}  # a namespace in a package
    before = code_digest("kit.a")
    write(path, {"kit/words.yaml": "- no"})
    forget()
    assert code_digest("kit.a") != before


def test_namespace_packages_over_several_folders(path, site):
    install(site, "space-acme", "3.0", {"space/acme/deep/x.py": ""})
    install(site, "space-rlhf", "1.0", {"space/rlhf/y.py": ""}, requires=["rlhf-pipeline>=0.1"])
    write(path, {"mine.py": "from space.own import z\nimport space.acme.deep.x, space.rlhf.y", "space/own/z.py": ""})
    assert code_of("mine").keys() == {"mine.py", "space/own/z.py", "space/rlhf/y.py", "space-acme"}
    assert code_of("mine")["space-acme"] == "3.0"


def test_a_package_that_exports_lazily_is_followed_by_name(path):
    write(
        path,
        {
            "lazy/__init__.py": """
                _WHERE = {"A": "lazy.a", "B": ".b", "C": ("lazy.c", "Thing")}

                def __getattr__(name):
                    from importlib import import_module
                    return getattr(import_module(_WHERE[name]), name)
            """,
            **{f"lazy/{letter}.py": "" for letter in "abcd"},
            "one.py": "from lazy import A",
            "two.py": "from lazy import B, C",
            "whole.py": "import lazy",
            "d.py": "import lazy.d",
        },
    )
    assert names("one") == {"one.py", "lazy/__init__.py", "lazy/a.py"}
    assert names("two") == {"two.py", "lazy/__init__.py", "lazy/b.py", "lazy/c.py"}
    assert names("whole") == {"whole.py", "lazy/__init__.py", "lazy/a.py", "lazy/b.py", "lazy/c.py"}
    assert "lazy/d.py" in names("d")


def test_modules_that_are_named_in_strings(path):
    write(path, {"kit/a.py": "run('-m', 'kit.worker')\nopen('kit.json')", "kit/worker.py": "", "kit/json.txt": ""})
    assert {"kit/a.py", "kit/worker.py"} <= names("kit.a")


def test_exported_submodules(path):
    write(path, {"kit/__init__.py": "__all__ = ['a']", "kit/a.py": "", "kit/b.py": "", "mine.py": "from kit import *"})
    assert names("mine") == {"mine.py", "kit/__init__.py", "kit/a.py"}


def test_only_for_type_checkers(path):
    write(path, {"mine.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import helper", "helper.py": ""})
    assert names("mine") == {"mine.py"}


def test_distributions_count_with_files_or_versions(path, site):
    plugins = "[rlhf.annotators]\nloud = plug_loud:Loud\n"
    install(site, "plug", "1.0", {"plug_loud.py": "import helps, scoring, numpy, json"}, entry_points=plugins)
    install(site, "helps", "1.0", {"helps.py": "import on_helps"}, requires=["on_helps (>=1) ; extra == 'x'"])
    install(site, "on-helps", "1.0", {"on_helps.py": "import scoring_more"}, requires=["RLHF_Pipeline[tune]>=0.1"])
    install(site, "acme-scoring", "2.5", {"scoring/__init__.py": "import scoring_more", "scoring/data.json": ""})
    install(site, "acme-more", "7", {"scoring_more.py": ""})
    assert code_of("plug_loud") == {
        **{f"{name}.py": code_of(name)[f"{name}.py"] for name in ("plug_loud", "helps", "on_helps")},
        "acme-scoring": "2.5",
        "acme-more": "7",
    }
    # Neither the standard library nor numpy, which rlhf-pipeline itself depends on.
    assert len(code_of("plug_loud")) == 5


def test_a_file_of_several_distributions(path, site):
    """As mlflow and mlflow-skinny: we depend on one of them."""
    install(site, "numpy-skinny", "2.0", {"skinny_numpy.py": ""})
    install(site, "numpy", "2.0", {"skinny_numpy.py": ""})
    write(path, {"mine.py": "import skinny_numpy"})
    assert names("mine") == {"mine.py"}


def test_a_reinstalled_version_with_other_code(site):
    install(site, "plug", "1.0", {"plug_a.py": "x = 1"}, entry_points="[rlhf.gates]\na = plug_a:A\n")
    before = code_digest("plug_a")
    write(site, {"plug_a.py": "x = 22"})
    forget()
    assert code_digest("plug_a") != before


def test_another_version_of_what_a_plugin_imports(site):
    install(site, "acme-scoring", "2.5", {"scoring.py": ""})
    install(site, "plug", "1.0", {"plug_b.py": "import scoring.deep"}, entry_points="[rlhf.gates]\na = plug_b:A\n")
    before = code_of("plug_b")
    (site / "acme_scoring-2.5.dist-info").rename(site / "gone")
    install(site, "acme-scoring", "2.6", {"scoring.py": ""})
    forget()
    assert changed_code(before, code_of("plug_b")) == ["acme-scoring"]


def test_our_own_code_counts_no_versions():
    """Whatever a distribution is that ours imports, its upgrade computes nothing again."""
    found = code_of("rlhf_plugins.optimizers.ppo")
    assert all(name.startswith(("rlhf_core/", "rlhf_plugins/")) for name in found)


def test_installed_in_place(tmp_path, site, monkeypatch):
    """By a finder as setuptools writes it, which maps packages to a source tree."""
    tree = tmp_path / "tree" / "source"
    write(tree, {"placed/__init__.py": "", "placed/a.py": "import placed.b, beside_x", "placed/b.py": ""})
    write(tree, {"beside_x.py": "", "placed.egg-info/PKG-INFO": "Name: placed\n", "placed.egg-info/top_level.txt": ""})
    install(site, "placed", "0.1", {"__editable___placed_finder.py": ""}, in_place=tmp_path / "tree")

    class Finder:
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            mapped = {"placed": tree / "placed/__init__.py", "beside_x": tree / "beside_x.py"}
            return importlib.util.spec_from_file_location(name, mapped[name]) if name in mapped else None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert names("placed.a") == {"placed/__init__.py", "placed/a.py", "placed/b.py", "beside_x.py"}


def test_a_source_tree_on_the_path_is_no_installation(path):
    """Its egg-info names top-level modules, but nothing was installed."""
    write(path, {"treed.py": "import json", "treed.egg-info/PKG-INFO": "Name: treed\nVersion: 3\n"})
    write(path, {"treed.egg-info/top_level.txt": "treed\n"})
    assert names("treed") == {"treed.py"}


def test_files_that_are_no_python_source(path):
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    write(path, {"broken.py": "def f(:", f"native{suffix}": b"\x7fELF", "mine.py": "import broken, native"})
    assert names("mine") == {"mine.py", "broken.py", f"native{suffix}"}
    before = code_digest("mine")
    write(path, {f"native{suffix}": b"\x7fELF2"})
    forget()
    assert code_digest("mine") != before


def test_a_zip_file_counts_as_a_whole(path, monkeypatch):
    with zipfile.ZipFile(path / "packed.zip", "w") as archive:
        archive.writestr("packed/__init__.py", "import json")
        archive.writestr("packed/plugin.py", "import numpy")
    monkeypatch.syspath_prepend(path / "packed.zip")
    assert names("packed.plugin") == {"packed.zip"}


def test_what_does_not_exist_counts_for_nothing():
    assert code_of("no_such_module.at_all") == code_of("json") == code_of("sys") == {}


def test_precision_on_our_own_plugins():
    ppo, source, report = (
        code_of(module)
        for module in ("rlhf_plugins.optimizers.ppo", "rlhf_plugins.data_sources.newsroom", "rlhf_core.report.pages")
    )
    assert {"rlhf_core/rl/losses.py", "rlhf_plugins/optimizers/text/worker.py", "rlhf_core/lm/heads.py"} <= ppo.keys()
    assert "rlhf_plugins/values/newsroom.yaml" in source
    assert {"rlhf_core/report/pages.py", "rlhf_core/report/round.html"} <= report.keys()
    assert not any(name.startswith("rlhf_core/report/") for name in [*ppo, *source])
    assert not any(name.startswith(("rlhf_plugins/optimizers", "rlhf_core/rl/")) for name in source)
    others = {name for name in ppo if name.startswith("rlhf_plugins/optimizers/") and name.count("/") == 2}
    assert others == {"rlhf_plugins/optimizers/__init__.py", "rlhf_plugins/optimizers/ppo.py"}


def test_nothing_is_imported():
    code = (
        "import json, sys\n"
        "from rlhf_core.plugins.code import code_digest\n"
        "before = set(sys.modules)\n"
        "code_digest(*json.loads(sys.argv[1]))\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new & {'rlhf_plugins', 'rlhf_flows', 'torch', 'numpy', 'transformers', 'mlflow'}))"
    )
    modules = json.dumps(sorted({info.module for info in installed_plugins()}))
    done = subprocess.run([sys.executable, "-c", code, modules], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
