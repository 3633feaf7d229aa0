"""Kernel modules: the list, what each needs, the order they load in."""

import lzma

import pytest

from kata.errors import HostError, ImageError
from kata.image import kernel_modules as km
from kata.image.kernel_modules import Module, Wanted


def known(**depends: str) -> dict[str, Module]:
    """Modules by name, each with the names it depends on."""
    return {n: Module(n, f"kernel/x/{n}.ko", tuple(d.split()), ()) for n, d in depends.items()}


def test_the_list_of_the_image_is_readable():
    """The shipped list parses, and names each module once."""
    with open(km.LIST, encoding="utf-8") as file:
        wanted = km.parse(file.read())
    names = [item.name for item in wanted]
    assert len(names) == len(set(names))
    assert {"virtio_console", "erofs", "overlay"} <= {i.name for i in wanted if i.boot}


def test_lines_of_the_list():
    """Boot modules, optional ones, what comes before, comments; dashes are underscores."""
    text = "# head\nboot virtio-blk\next4? after crc32c-generic x # why\n\n"
    assert km.parse(text) == (
        Wanted("virtio_blk", boot=True, optional=False, after=()),
        Wanted("ext4", boot=False, optional=True, after=("crc32c_generic", "x")),
    )


def test_a_bad_line_is_named():
    """A word too many is an error with the line's number."""
    with pytest.raises(ValueError, match='line 2: "c"'):
        km.parse("a\nb c")


def test_dependencies_come_along_in_order():
    """What a module needs is chosen with it, and loads before it."""
    chosen = km.select(
        km.parse("boot b\nboot a after z\nlate"), known(a="b c", b="c", c="", z="", late="a"),
        frozenset(),
    )  # fmt: skip
    assert chosen.boot == ("c", "b", "z", "a")
    assert km.load_order("late", chosen.depends) == ("z", "c", "b", "a", "late")


def test_built_in_modules_are_passed_over():
    """What the kernel has built in is neither chosen nor a dependency."""
    chosen = km.select(km.parse("boot a\nb"), known(a="b"), frozenset({"b"}))
    assert chosen.boot == ("a",)
    assert chosen.depends == {"a": ()}


def test_a_missing_module_is_named():
    """An unknown module is an error, unless it is optional; so is an unknown dependency."""
    assert not km.select(km.parse("a?"), {}, frozenset()).modules
    with pytest.raises(HostError, match='"a"'):
        km.select(km.parse("a"), {}, frozenset())
    with pytest.raises(HostError, match=r'"b".*"a" needs it'):
        km.select(km.parse("a"), known(a="b"), frozenset())


def test_a_circle_is_an_error():
    """Modules that need each other are refused."""
    with pytest.raises(ImageError, match="needs itself"):
        km.select(km.parse("boot a"), known(a="b", b="a"), frozenset())


def test_table_has_names_then_aliases():
    """The agent's table: name, path, what to load first; aliases point to the same."""
    modules = known(a="b", b="")
    modules["a"] = Module("a", "kernel/x/a.ko", ("b",), ("fs-a", "b"))
    chosen = km.select(km.parse("a"), modules, frozenset())
    assert km.table(chosen, {"a": "/m/a.ko", "b": "/m/b.ko"}) == (
        "a /m/a.ko b\nb /m/b.ko -\nfs_a /m/a.ko b\n"
    )


def test_signatures_and_compression_are_taken_off():
    """A module comes out plain, however the package holds it."""
    signature = b"s" * 40 + b"\0" * 8 + (40).to_bytes(4, "big") + b"~Module signature appended~\n"
    assert km.unpacked("a.ko", b"elf" + signature) == b"elf"
    assert km.unpacked("a.ko.xz", lzma.compress(b"elf" + signature)) == b"elf"
    assert km.unpacked("a.ko", b"elf") == b"elf"


def test_names_of_files():
    """A module's name is its file's, as the kernel spells it."""
    assert km.name_of("lib/modules/6/kernel/fs/v-fs.ko.xz") == "v_fs"
    assert km.name_of("lib/modules/6/modules.order") == ""
