"""What a Python program needs: its import closure, found by reading the source, not by running it.

The one rule: the closure is computed, never listed. Of our own files every import counts,
wherever it stands, save those for type checkers; of the standard library only what runs when
the module is imported (functions there import things the agent never calls).
"""

from __future__ import annotations

import ast
import os

from kata.errors import ImageError
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "kata"
AGENT = "kata.guest.__main__"

# What the interpreter itself imports while it starts, or looks up by name when strings are coded.
START = (
    "encodings", "encodings.aliases", "encodings.ascii", "encodings.latin_1", "encodings.utf_8",
    "os", "warnings",
)  # fmt: skip


@record
class Library:
    """Where modules are found: the directory above our package, and an interpreter's library.

    ``builtins`` and ``frozen`` are the names of the modules inside the interpreter's program.
    """

    ours: str
    stdlib: str
    builtins: frozenset[str]
    frozen: frozenset[str] = frozenset()


@record
class Module:
    """One file of the closure; ``name`` is dotted, ``path`` where it was found."""

    name: str
    path: str
    package: bool = False


@record
class Closure:
    """The files of a program: our modules, those of the standard library, and extension modules."""

    ours: tuple[Module, ...]
    stdlib: tuple[Module, ...]
    extensions: tuple[Module, ...]


def closure(entry: str, library: Library, also: tuple[str, ...] = START) -> Closure:
    """The closure of the module ``entry`` of ours, and of the standard modules in ``also``.

    Raises ``ImageError`` for an import of ours that leads nowhere.
    """
    return _Walk(library).run(entry, also)


class _Walk:
    def __init__(self, library: Library) -> None:
        self.library = library
        self.found: dict[str, Module] = {}
        self.todo: list[Module] = []

    def run(self, entry: str, also: tuple[str, ...]) -> Closure:
        if not self.add(entry):
            raise ImageError(f'module "{entry}" was not found', why=f'not in "{self.library.ours}"')
        for name in also:
            self.add(name)
        while self.todo:
            module = self.todo.pop()
            if module.path.endswith(".py"):
                self.follow(module)
        ordered = [self.found[name] for name in sorted(self.found)]
        return Closure(
            tuple(m for m in ordered if _is_ours(m.name)),
            tuple(m for m in ordered if not _is_ours(m.name) and m.path.endswith(".py")),
            tuple(m for m in ordered if m.path.endswith(".so")),
        )

    def add(self, name: str) -> bool:
        """Add a module and the packages it is in; whether there is such a module."""
        if name in self.found or name in self.library.builtins:
            return True
        parent = name.rpartition(".")[0]
        if parent and not self.add(parent):
            return False
        module = find(name, self.library)
        if module is None:
            return name in self.library.frozen
        self.found[name] = module
        self.todo.append(module)
        return True

    def follow(self, module: Module) -> None:
        ours = _is_ours(module.name)
        for wanted, names, line in imports(module, everywhere=ours):
            known = self.add(wanted)
            if not known and ours:
                raise ImageError(
                    f'import of "{wanted}"',
                    why=f'"{module.path}" line {line}: no such module of ours, nor of the '
                    "standard library",
                )
            for name in names if known else ():
                self.add(f"{wanted}.{name}")  # a module, or just a name inside one


def _is_ours(name: str) -> bool:
    return name == PACKAGE or name.startswith(PACKAGE + ".")


def find(name: str, library: Library) -> Module | None:
    """The file of a module, if there is one."""
    path = name.replace(".", "/")
    root = library.ours if _is_ours(name) else library.stdlib
    if os.path.isfile(f"{root}/{path}/__init__.py"):
        return Module(name, f"{root}/{path}/__init__.py", package=True)
    if os.path.isfile(f"{root}/{path}.py"):
        return Module(name, f"{root}/{path}.py")
    if root == library.stdlib and "." not in name and os.path.isdir(f"{root}/lib-dynload"):
        for file in sorted(os.listdir(f"{root}/lib-dynload")):
            if file.startswith(f"{name}.") and file.endswith(".so"):
                return Module(name, f"{root}/lib-dynload/{file}")
    return None


def imports(module: Module, *, everywhere: bool) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """Each import of a source file: the module, the names taken from it, the line."""
    with open(module.path, "rb") as file:
        tree = ast.parse(file.read(), module.path)
    for node in _statements(tree, everywhere=everywhere):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, (), node.lineno
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            yield _absolute(node, module), names, node.lineno


def _absolute(node: ast.ImportFrom, module: Module) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    base = parts[: len(parts) - node.level + (1 if module.package else 0)]
    return ".".join([*base, *([node.module] if node.module else [])])


def _statements(node: ast.AST, *, everywhere: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            if not everywhere:
                continue
        elif isinstance(child, ast.If) and _never_runs(child.test):
            for other in child.orelse:
                yield other
                yield from _statements(other, everywhere=everywhere)
            continue
        yield child
        yield from _statements(child, everywhere=everywhere)


def _never_runs(test: ast.expr) -> bool:
    """Whether a condition holds only for type checkers, or for a module run as a program."""
    if isinstance(test, ast.Compare) and isinstance(test.left, ast.Name):
        return test.left.id == "__name__"
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"
