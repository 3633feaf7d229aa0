"""Sizes and docstrings: functions that fit a screen, files that fit a mind, each with a word."""

import ast

import pytest

from support import source

LONGEST_FUNCTION = 60
LONGEST_FILE = 500
MOST_PARAMETERS = 6
# tables, which are read row by row
LONG_TABLES = {"src/kata/config/settings.py", "src/kata/cli/grammar.py"}
# constructors of values: their parameters are the fields of what they make
MANY_PARAMETERS = {"src/kata/wire/ttrpc.py:Connection.request"}

SOURCES = source.files("src")
TESTS = [path for path in source.files("tests") if "/test_" in path]


def _lines(node: ast.FunctionDef) -> int:
    """The lines of a function, its docstring left out."""
    total = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node, clean=False) is not None:
        total -= node.body[0].end_lineno - node.body[0].lineno + 1
    return total


def _parameters(node: ast.FunctionDef) -> int:
    arguments = node.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def test_functions_fit_a_screen():
    """No function is longer than a screen."""
    long = [
        f"{path}:{owner}{node.name} has {_lines(node)} lines"
        for path in SOURCES
        for node, owner in source.functions(path)
        if _lines(node) > LONGEST_FUNCTION
    ]
    assert not long, "\n".join(long)


def test_files_fit_a_mind():
    """No file is longer than its limit, tables apart."""
    long = [
        f"{path} has {source.text(path).count(chr(10))} lines"
        for path in (*SOURCES, *source.files("tests"))
        if source.text(path).count("\n") > LONGEST_FILE and path not in LONG_TABLES
    ]
    assert not long, "\n".join(long)


def test_parameters_can_be_counted_on_two_hands():
    """More than six parameters want a record."""
    many = [
        f"{path}:{owner}{node.name} takes {_parameters(node)}"
        for path in SOURCES
        for node, owner in source.functions(path)
        if _parameters(node) > MOST_PARAMETERS
        and f"{path}:{owner}{node.name}" not in MANY_PARAMETERS
    ]
    assert not many, "\n".join(many)


@pytest.mark.parametrize("path", [p for p in SOURCES if p.endswith("__init__.py")])
def test_packages_are_empty(path):
    """Importing a leaf loads no tree: a package's file holds its docstring."""
    body = source.tree(path).body
    assert len(body) == 1
    assert ast.get_docstring(source.tree(path))


def test_modules_have_docstrings():
    """Every module, test or not, says what it is."""
    bare = [
        path
        for path in (*SOURCES, *source.files("tests"))
        if not ast.get_docstring(source.tree(path))
    ]
    assert not bare, "\n".join(bare)


def test_public_things_have_docstrings():
    """Every public class and function says what it does; what overrides says it once, above."""
    bare = []
    for path in SOURCES:
        overriding = _methods_of_subclasses(path)
        for node, owner in source.functions(path):
            private = any(part.startswith("_") for part in f"{owner}{node.name}".split("."))
            local = "<" in owner
            name = f"{owner}{node.name}"
            if not (private or local or name in overriding or ast.get_docstring(node)):
                bare.append(f"{path}:{name}")
        for node in ast.walk(source.tree(path)):
            public = isinstance(node, ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                bare.append(f"{path}:{node.name}")
    assert not bare, "\n".join(bare)


def _methods_of_subclasses(path: str) -> set[str]:
    return {
        f"{node.name}.{child.name}"
        for node in ast.walk(source.tree(path))
        if isinstance(node, ast.ClassDef) and node.bases
        for child in node.body
        if isinstance(child, ast.FunctionDef)
    }


def test_tests_state_their_claim():
    """Every test has a docstring that says what holds."""
    bare = [
        f"{path}:{owner}{node.name}"
        for path in TESTS
        for node, owner in source.functions(path)
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert not bare, "\n".join(bare)


def test_few_type_ignores():
    """Type checkers are told to look away at most once in a thousand lines, and why."""
    lines = [line for path in SOURCES for line in source.text(path).splitlines()]
    ignores = [line for line in lines if "# type: ignore" in line]
    assert all("# type: ignore[" in line for line in ignores)
    assert len(ignores) <= len(lines) / 1000 + 1, "\n".join(ignores)
