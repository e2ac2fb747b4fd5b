"""What a Python source file imports, read from its text; nothing is executed."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

EVERYTHING = ("*",)
"""The names of an import that may use anything the module offers: `import a` and `from a import *`."""

_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_WORD = re.compile(rf"({_MODULE.pattern})(?::[A-Za-z_][\w.]*)?")
_MAY_NAME_MODULES = re.compile(rf"[\"']{_WORD.pattern}[\"']|import_module|__import__".encode())
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


class Import(NamedTuple):
    """One import of a module, and of names in it."""

    level: int
    """Number of leading dots; 0 is absolute."""
    module: str
    names: tuple[str, ...]


class Imports(NamedTuple):
    """What a file imports."""

    imports: tuple[Import, ...] = ()
    words: tuple[str, ...] = ()
    """Strings that read like a module (`"a.b"`, `"a.b:Name"`), without what follows the colon: a module that another
    process runs, or that is imported by its name, is written so."""
    table: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Key and strings of each entry of the dict literals from which a module's `__getattr__` imports lazily."""
    exports: tuple[str, ...] = ()
    """The names of `__all__`."""

    def lazily(self, name: str) -> Iterator[str]:
        """Strings of the table that may be the module where `name` is defined."""
        for key, strings in self.table:
            if name in (key, "*"):
                yield from strings
            if name in (*strings, "*"):
                yield key


def imports_of(source: bytes) -> Imports:
    """The imports anywhere in a file, those in functions included, those only for type checkers left out.

    A file that is no Python imports nothing.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return Imports()
    tables = list(_tables(tree)) if b"__getattr__" in source else []
    imports: set[Import] = set()
    words: set[str] = set()
    for node in _executed(tree, deep=_MAY_NAME_MODULES.search(source) is not None, without=tables):
        if isinstance(node, ast.Import):
            imports.update(Import(0, alias.name, EVERYTHING) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imports.add(Import(node.level, node.module or "", tuple(alias.name for alias in node.names)))
        elif isinstance(node, ast.Call):
            imports.update(_called(node))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and (word := _WORD.fullmatch(node.value)):
            words.add(word[1])
    table = tuple(_entry(key, value) for table in tables for key, value in zip(table.keys, table.values, strict=True))
    return Imports(tuple(sorted(imports)), tuple(sorted(words)), table, _exports(tree))


def _executed(tree: ast.AST, deep: bool, without: Collection[ast.AST]) -> Iterator[ast.AST]:
    """The statements of a file and, if `deep`, their expressions; without blocks that only type checkers read."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If):
            if _is_type_checking(node.test):
                todo.extend(node.orelse)
                continue
            if isinstance(node.test, ast.UnaryOp) and _is_type_checking(node.test.operand):  # `not TYPE_CHECKING`
                todo.extend(node.body)
                continue
        yield node
        if deep:
            todo.extend(child for child in ast.iter_child_nodes(node) if child not in without)
        else:
            for block in _BLOCKS:
                todo.extend(getattr(node, block, ()))


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _called(call: ast.Call) -> Iterator[Import]:
    """The import of `import_module("a")` and `__import__("a")`."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in ("import_module", "__import__") and call.args:
        first = call.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            module = first.value.lstrip(".")
            yield Import(len(first.value) - len(module), module, EVERYTHING)


def _tables(tree: ast.Module) -> Iterator[ast.Dict]:
    """The dict literals of strings at the top of a module that has a `__getattr__`."""
    if any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body):
        for node in tree.body:
            value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
            if isinstance(value, ast.Dict) and all(
                key is not None and len(_strings(key)) == 1 and _strings(content)
                for key, content in zip(value.keys, value.values, strict=True)
            ):
                yield value


def _entry(key: ast.expr | None, value: ast.expr) -> tuple[str, tuple[str, ...]]:
    assert key is not None
    return _strings(key)[0], tuple(string.partition(":")[0] for string in _strings(value))


def _exports(tree: ast.Module) -> tuple[str, ...]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
            return tuple(_strings(node.value))
    return ()


def _strings(node: ast.expr) -> list[str]:
    """The strings of a literal: of itself, or of a tuple or list of nothing but strings."""
    items = node.elts if isinstance(node, ast.Tuple | ast.List) else [node]
    found = [item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)]
    return found if len(found) == len(items) else []
