"""The import closure of the agent: computed from the source, and reviewed."""

import _imp
import os
import subprocess
import sys

import pytest

from kata.errors import ImageError
from kata.image import closure, freshness
from kata.image.closure import Library, Module
from support.source import CHECKOUT

ROOMS = ("kata", "kata.errors", "kata.wire", "kata.oci", "kata.linux", "kata.guest")
REVIEWED = f"{CHECKOUT}/src/kata/image/stdlib.txt"


def real() -> Library:
    """The checkout, and the library of the interpreter that runs this test."""
    return Library(
        f"{CHECKOUT}/src",
        os.path.dirname(os.__file__),
        frozenset(sys.builtin_module_names),
        frozenset(_imp._frozen_module_names()),
    )


def tree(root, files: dict[str, str]) -> Library:
    """A library made of our ``files`` beside a standard library of ``std/…`` files."""
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return Library(str(root), str(root / "std"), frozenset({"sys"}), frozenset({"frozen"}))


def names(modules: tuple[Module, ...]) -> list[str]:
    return [module.name for module in modules]


def test_the_agent_is_made_of_guest_rooms():
    """Nothing of ours but the guest's rooms is in the guest."""
    foreign = [
        name
        for name in names(closure.closure(closure.AGENT, real()).ours)
        if name not in ROOMS and not name.startswith(tuple(f"{room}." for room in ROOMS))
    ]
    assert not foreign


def test_the_library_in_the_guest_is_reviewed():
    """Every module of the standard library in the guest stands in the reviewed list."""
    found = closure.closure(closure.AGENT, real())
    with open(REVIEWED, encoding="utf-8") as file:
        reviewed = {line.strip() for line in file if line.strip() and line[0] != "#"}
    assert {*names(found.stdlib), *names(found.extensions)} <= reviewed


def test_the_closure_suffices():
    """The agent's modules can be imported where nothing but the closure can be."""
    found = closure.closure(closure.AGENT, real())
    known = {*names(found.ours), *names(found.stdlib), *names(found.extensions)}
    known |= set(sys.builtin_module_names) | set(_imp._frozen_module_names())
    program = (
        f"import sys; sys.path.insert(0, {CHECKOUT + '/src'!r})\n"
        f"import {', '.join(n for n in names(found.ours) if not n.endswith('__main__'))}\n"
        "import kata.guest.__main__\n"
        "print(*sys.modules)"
    )
    argv = [sys.executable, "-I", "-S", "-c", program]
    loaded = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    assert {name for name in loaded if name not in known} <= {"__main__"}


def test_recipe_names_the_builder():
    """The files whose change makes a guest image stale are those that build it."""
    found = names(closure.closure("kata.image.guest_builder", real()).ours)
    files = {f"{n.rpartition('.')[2]}.py" for n in found if n.startswith("kata.image.")}
    assert files | {"__init__.py", "bytecode.py", "kernel_modules.txt"} == set(freshness.BUILDER)


def test_ours_counts_everywhere_the_library_only_at_import(tmp_path):
    """An import inside a function of ours is followed, one inside the library's is not."""
    library = tree(
        tmp_path,
        {
            "kata/__init__.py": "",
            "kata/a.py": "def f():\n    import one",
            "std/one.py": "import two\ndef f():\n    import three",
            "std/two.py": "",
            "std/three.py": "",
        },
    )
    found = closure.closure("kata.a", library, also=())
    assert names(found.ours) == ["kata", "kata.a"]
    assert names(found.stdlib) == ["one", "two"]


def test_imports_for_type_checkers_do_not_count(tmp_path):
    """What stands under TYPE_CHECKING or the program's guard is no import; its else is."""
    library = tree(
        tmp_path,
        {
            "kata/__init__.py": "",
            "kata/a.py": "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    import no\n"
            "else:\n    import one\nif __name__ == '__main__':\n    import no",
            "std/one.py": "",
        },
    )
    assert names(closure.closure("kata.a", library, also=()).stdlib) == ["one"]


def test_names_from_packages_are_modules_where_they_are(tmp_path):
    """``from package import name`` takes the module of that name, if there is one."""
    library = tree(
        tmp_path,
        {
            "kata/__init__.py": "",
            "kata/a.py": "from . import b\nfrom kata.c import d, value\nimport ext, sys, frozen",
            "kata/b.py": "from .c import d as e",
            "kata/c/__init__.py": "value = 1",
            "kata/c/d.py": "",
            "std/lib-dynload/ext.cpython-311-x86_64-linux-gnu.so": "",
        },
    )
    found = closure.closure("kata.a", library, also=())
    assert names(found.ours) == ["kata", "kata.a", "kata.b", "kata.c", "kata.c.d"]
    assert names(found.extensions) == ["ext"]


def test_an_import_that_leads_nowhere_is_named(tmp_path):
    """The error for a foreign import says which, where, and on which line."""
    library = tree(tmp_path, {"kata/__init__.py": "", "kata/a.py": "\nimport requests"})
    with pytest.raises(ImageError, match=r'"requests".*a\.py" line 2'):
        closure.closure("kata.a", library, also=())


def test_the_library_may_try_what_is_not_there(tmp_path):
    """A module of the library that tries an import for another system is no error."""
    files = {"kata/__init__.py": "", "kata/a.py": "import one", "std/one.py": "import winreg"}
    assert names(closure.closure("kata.a", tree(tmp_path, files), also=()).stdlib) == ["one"]
