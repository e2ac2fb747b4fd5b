from __future__ import annotations

import pytest

from rlhf_core.plugins.imports import EVERYTHING, Import, Imports, imports_of


def found(source):
    return imports_of(source.encode())


@pytest.mark.parametrize(
    ("source", "imports"),
    [
        ("import a.b as c, d", [Import(0, "a.b", EVERYTHING), Import(0, "d", EVERYTHING)]),
        ("from a.b import c as d, e", [Import(0, "a.b", ("c", "e"))]),
        ("from .. import a", [Import(2, "", ("a",))]),
        ("from .a import *", [Import(1, "a", EVERYTHING)]),
        ("def f():\n    class A:\n        import a", [Import(0, "a", EVERYTHING)]),
        ("try:\n    import a\nexcept ImportError:\n    import b", [Import(0, name, EVERYTHING) for name in "ab"]),
        ("match x:\n    case 1:\n        import a", [Import(0, "a", EVERYTHING)]),
        ("with x:\n    import a\nelse_ = 1", [Import(0, "a", EVERYTHING)]),
        ("import importlib\nx = importlib.import_module('a')", [Import(0, n, EVERYTHING) for n in ("a", "importlib")]),
        ("x = __import__('..a')", [Import(2, "a", EVERYTHING)]),
        ('"""Use `import a`."""\n# import b', []),
    ],
)
def test_imports_anywhere(source, imports):
    assert list(found(source).imports) == imports


@pytest.mark.parametrize(
    "source",
    [
        "if TYPE_CHECKING:\n    import a\nelse:\n    import b",
        "if typing.TYPE_CHECKING:\n    import a\nelse:\n    import b",
        "if not TYPE_CHECKING:\n    import b\nelse:\n    import a",
        "def f():\n    if TYPE_CHECKING:\n        import a\n        x = 'word.in'\n    import b",
    ],
)
def test_not_what_only_type_checkers_read(source):
    assert found(source) == Imports(imports=(Import(0, "b", EVERYTHING),))


def test_strings_that_read_like_modules():
    source = "run('-m', 'a.worker')\nentry = {'x': 'b.c:Name'}\n'''Not 'd.e' in a text.'''\nf('g', 'h i.j', '1.5')"
    assert found(source).words == ("a.worker", "b.c")


def test_a_table_of_lazy_imports():
    table = "_WHERE = {'Name': '.a', 'Other': ('pkg.b', 'Thing')}\n_GROUPS = {'c': ['Third']}\n"
    lazy = found(table + "def __getattr__(name): ...")
    assert lazy.words == ()
    assert list(lazy.lazily("Name")) == [".a"]
    assert list(lazy.lazily("Other")) == ["pkg.b", "Thing"]
    assert list(lazy.lazily("Third")) == ["c"]
    assert list(lazy.lazily("Nobody")) == []
    assert found(table).table == ()
    assert found(table).words == ("pkg.b",)  # a dict like any other, where nothing is imported lazily


@pytest.mark.parametrize("source", [b"def f(:", b"import a\0", b"\xff\xfe", b"# coding: nothing\nimport a", b""])
def test_what_is_no_python_imports_nothing(source):
    assert imports_of(source) == Imports()
