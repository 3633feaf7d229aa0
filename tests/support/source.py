"""The source as a tree: modules, what each imports, sizes; read with ``ast``, never imported."""

from __future__ import annotations

import ast
import os
from functools import cache

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SOURCE = os.path.join(CHECKOUT, "src")
IGNORED = {".git", ".venv", "build", "__pycache__", ".mypy_cache", ".ruff_cache", ".hypothesis",
           ".pytest_cache", "test-results", "node_modules"}  # fmt: skip


@cache
def files(below: str, ending: str = ".py") -> list[str]:
    """The files below a directory of the checkout, as paths relative to the checkout."""
    found = []
    for directory, names, members in os.walk(os.path.join(CHECKOUT, below)):
        names[:] = sorted(n for n in names if n not in IGNORED and not n.endswith(".egg-info"))
        found += [os.path.join(directory, m) for m in sorted(members) if m.endswith(ending)]
    return [os.path.relpath(path, CHECKOUT) for path in found]


@cache
def text(path: str) -> str:
    """The text of a file of the checkout."""
    with open(os.path.join(CHECKOUT, path), encoding="utf-8") as file:
        return file.read()


@cache
def tree(path: str) -> ast.Module:
    """The syntax tree of a file of the checkout."""
    return ast.parse(text(path), path)


def module_name(path: str) -> str:
    """The dotted name of a file below ``src``."""
    return path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def modules() -> dict[str, str]:
    """Our modules: dotted name to path."""
    return {module_name(path): path for path in files("src")}


def _for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and (
        node.test.id == "TYPE_CHECKING"
    )  # fmt: skip


def _walk(node: ast.AST):
    for child in ast.iter_child_nodes(node):
        if _for_types_only(child):
            for other in child.orelse:
                yield other
                yield from _walk(other)
        else:
            yield child
            yield from _walk(child)


@cache
def imports(name: str, *, types: bool = False) -> frozenset[str]:
    """The modules a module of ours imports, lazily or not; ``types``: for type checkers too."""
    nodes = ast.walk(tree(modules()[name])) if types else _walk(tree(modules()[name]))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {_imported(node.module, alias.name) for alias in node.names}
    return frozenset(found)


def _imported(module: str, name: str) -> str:
    dotted = f"{module}.{name}"
    return dotted if dotted in modules() else module


def room(name: str) -> str:
    """The room a module of ours is in: the first part of its name after ``kata``."""
    return name.split(".")[1] if "." in name else ""


def functions(path: str):
    """Every function and method of a file, with the class it is in ("<" in those of functions)."""

    def visit(node: ast.AST, owner: str):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield child, owner
                yield from visit(child, f"{owner}<{child.name}>.")
            elif isinstance(child, ast.ClassDef):
                yield from visit(child, f"{owner}{child.name}.")
            else:
                yield from visit(child, owner)

    yield from visit(tree(path), "")
