"""What ``kata-runtime --help`` and ``--version`` print, from the grammar."""

from __future__ import annotations

from kata.cli.runtime import grammar
from kata.oci.version import VERSION as SPECIFICATION
from kata.version import VERSION


def version() -> int:
    """runc's lines: program and specification."""
    print(f"kata-runtime version {VERSION}\nspec: {SPECIFICATION}")
    return 0


def overview() -> int:
    """The verbs and the global flags."""
    print("kata-runtime: run OCI containers in virtual machines, in the place of runc\n")
    print("usage: kata-runtime [FLAGS] VERB [FLAGS] [ARGUMENTS]\n")
    for name, (_, _, _, _, usage, text) in grammar.VERBS.items():
        print(f"  {name + ' ' + usage:<26} {text}")
    _flags(grammar.GLOBALS)
    print("\nexample: kata-runtime run --bundle /srv/web web")
    return 0


def of_verb(name: str) -> int:
    """One verb and its flags; fails for one that is not supported, for engines ask by it."""
    module, rows, _, _, usage, text = grammar.VERBS[name]
    print(f"usage: kata-runtime {name} {'[FLAGS] ' if rows else ''}{usage}\n\n{text}")
    _flags(rows)
    return int(module == "unsupported")


def _flags(rows: tuple[grammar.Row, ...]) -> None:
    if rows:
        print("\nflags:")
    for name, short, metavar, _, text, *_ in rows:
        spelled = f"{f'-{short}, ' if short else ''}--{name}{f' {metavar}' if metavar else ''}"
        print(f"  {spelled:<28} {text}")
