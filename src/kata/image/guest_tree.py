"""What stands where in the guest's first file system; values in, archive entries out.

The one rule: only what the agent runs on, each file once, every path known here.
"""

from __future__ import annotations

from kata.image import kernel_modules
from kata.image.cpio import Entry, character_device, directory, regular

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kata.image.kernel_modules import Selection

AGENT = "usr/lib/kata"
SETTINGS = "etc/kata"
LIBRARIES = "lib/x86_64-linux-gnu"
LANDMARK = "os"  # by this file the interpreter finds its library

_EMPTY = ("dev", "proc", "run", "sys", "tmp", "root", "mnt")

_INIT = """\
#!/{program} -IS
import sys
sys.path[:] = ["/{agent}", "/{stdlib}", "/{stdlib}/lib-dynload"]
from kata.guest.__main__ import main
main()
"""


def base() -> list[Entry]:
    """Directories to mount on, and the nodes needed before there is a /dev."""
    entries = [directory(path) for path in _EMPTY]
    entries.append(character_device("dev/console", 5, 1, 0o600))
    entries.append(character_device("dev/null", 1, 3, 0o666))
    return entries


def init(program: str, stdlib: str) -> Entry:
    """The program the kernel starts."""
    text = _INIT.format(program=program, agent=AGENT, stdlib=stdlib)
    return regular("init", text.encode(), 0o755)


def shown_name(name: str, stdlib: str, *, package: bool, ours: bool) -> str:
    """The file name of a module in the guest, as tracebacks show it; in bytes: that and "c"."""
    path = name.replace(".", "/") + ("/__init__" if package else "")
    return f"/{AGENT if ours else stdlib}/{path}.py"


def library_path(soname: str) -> str:
    """Where a shared library stands: the loader at its fixed place, the rest together."""
    return f"lib64/{soname}" if soname.startswith("ld-linux") else f"{LIBRARIES}/{soname}"


def module_paths(selection: Selection, release: str) -> dict[str, str]:
    """Where each kernel module stands in the guest, unpacked, by name; absolute."""
    found = {}
    for name, module in selection.modules.items():
        inner = module.path.partition(f"{release}/kernel/")[2].rpartition(".ko")[0]
        found[name] = f"/lib/modules/{release}/kernel/{inner}.ko"
    return found


def modules(selection: Selection, release: str, content: Mapping[str, bytes]) -> Iterable[Entry]:
    """The kernel modules, and what tells the agent of them: the boot order and the table."""
    paths = module_paths(selection, release)
    for name, path in paths.items():
        yield regular(path[1:], content[name])
    boot = "".join(f"{paths[name]}\n" for name in selection.boot)
    yield regular(f"{SETTINGS}/modules", boot.encode())
    yield regular(f"{SETTINGS}/modules.table", kernel_modules.table(selection, paths).encode())
