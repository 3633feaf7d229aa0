"""Compiling for the guest; run as a program by the very interpreter that goes into the image.

The one rule: the same sources give the same bytes: one fresh process, fixed hash seed, fixed
order, no time stamps (PEP 552, unchecked hashes). Reads lines ``NAME<TAB>SOURCE<TAB>TARGET``:
NAME is what tracebacks show. With ``facts`` as its argument it prints the names of the modules
inside the interpreter, those frozen as source after an empty line.
"""

from __future__ import annotations

import _imp
import marshal
import sys

_UNCHECKED_HASH = (1).to_bytes(4, "little")


def facts() -> str:
    """Names of built-in modules, an empty line, names of frozen ones."""
    frozen = _imp._frozen_module_names()  # type: ignore[attr-defined]
    return "\n".join((*sorted(sys.builtin_module_names), "", *sorted(frozen)))


def compiled(source: bytes, name: str, magic: bytes, token: int) -> bytes:
    """The file that the import system reads; no asserts and docstrings, line numbers kept."""
    code = compile(source, name, "exec", dont_inherit=True, optimize=2)
    return magic + _UNCHECKED_HASH + _imp.source_hash(token, source) + marshal.dumps(code)


def main() -> None:
    """Compile everything that standard input names."""
    if sys.argv[1:] == ["facts"]:
        sys.stdout.write(facts())
        return
    from importlib.util import MAGIC_NUMBER

    token = int.from_bytes(MAGIC_NUMBER, "little")
    for line in sys.stdin.read().splitlines():
        name, source, target = line.split("\t")
        with open(source, "rb") as file:
            text = file.read()
        with open(target, "wb") as file:
            file.write(compiled(text, name, MAGIC_NUMBER, token))


if __name__ == "__main__":
    main()
