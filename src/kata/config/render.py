"""What is generated from the settings table: the commented default file, the reference page.

``python3 -m kata.config.render toml|reference`` writes it to standard output.
The one rule: nothing here knows a setting; only how one is shown.
"""

from __future__ import annotations

from kata.config.group import ALWAYS, LISTED
from kata.config.settings import DROP_INS, ENVIRONMENT, GROUPS, PATH, rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.config.group import Setting

_WIDTH = 96
_FILE_HEAD = """\
# Configuration of pykata. Every setting is shown with its default, commented out;
# remove the "#" in front of a setting to change it. Unknown settings are errors.
# Or leave this file alone, and write what you change to config.d/NAME.toml beside it.
"""
_PAGE_HEAD = f"""\
# Configuration

Settings are read from the file named by `--config`, else by `${ENVIRONMENT}`, else from
`{PATH}`; without a file the defaults hold.
Files `{DROP_INS}/*.toml` beside that file are read after it, in the order of their names, and what
they set goes before what was set until then; lists are replaced, not joined. So a package or an
administrator adds `{DROP_INS}/50-memory.toml` and edits nothing. `--root` and `--data-root` go
before `state_root` and `data_root`. An unknown setting, or a value that does not fit, is an error
that names the file, the line and the nearest name. A pod's annotation
`io.katacontainers.config.SECTION.NAME` (section `hypervisor`, `agent` or `runtime`) may change
what the last column allows: *listed* if `enable_annotations` names it.

This page is generated from the settings table (`make docs`).
"""


def toml() -> str:
    """The default configuration file."""
    lines = [_FILE_HEAD.rstrip()]
    for section, settings in _sections().items():
        lines += ["", f"[{section}]"]
        for setting in settings:
            lines += ["", *_wrapped(_description(setting)), f"#{setting.toml} = {_value(setting)}"]
    return "\n".join(lines) + "\n"


def reference() -> str:
    """The reference page, Markdown."""
    lines = [_PAGE_HEAD.rstrip()]
    for section, settings in _sections().items():
        lines += ["", f"## [{section}]", ""]
        lines += ["| setting | type | default | meaning | annotation |", "|---|---|---|---|---|"]
        lines += [_row(s) for s in settings]
    return "\n".join(lines) + "\n"


def values(config: Any) -> dict[str, dict[str, Any]]:
    """The settings of a configuration by section and name, as a file would hold them."""
    out: dict[str, dict[str, Any]] = {}
    for group, setting in rows():
        value = getattr(getattr(config, group), setting.name)
        out.setdefault(setting.section, {})[setting.toml] = (
            list(value) if isinstance(value, tuple) else value
        )
    return out


def _sections() -> dict[str, list[Setting]]:
    found: dict[str, list[Setting]] = {cls.SECTION: [] for cls in GROUPS.values()}
    for _, setting in rows():
        found[setting.section].append(setting)
    return found


def _description(setting: Setting) -> str:
    return f"{setting.help} ({setting.check.rule})" if setting.check else setting.help


def _wrapped(text: str) -> list[str]:
    lines, line = [], "#"
    for word in text.split():
        if len(line) + len(word) >= _WIDTH:
            lines.append(line)
            line = "#"
        line += f" {word}"
    return [*lines, line]


def _value(setting: Setting) -> str:
    value = setting.default
    if setting.kind == "boolean":
        return "true" if value else "false"
    if setting.kind == "strings":
        return "[" + ", ".join(_quoted(v) for v in value) + "]"
    return _quoted(value) if setting.kind == "string" else str(value)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _row(setting: Setting) -> str:
    may = {ALWAYS: "yes", LISTED: "listed"}.get(setting.annotation, "no")
    kind = "list of strings" if setting.kind == "strings" else setting.kind
    meaning = _description(setting).replace("|", "\\|")
    return f"| `{setting.toml}` | {kind} | `{_value(setting)}` | {meaning} | {may} |"


def main(arguments: list[str]) -> int:
    """Write one of the generated texts."""
    import sys

    made = {"toml": toml, "reference": reference}
    if len(arguments) != 1 or arguments[0] not in made:
        sys.stderr.write("usage: python3 -m kata.config.render toml|reference\n")
        return 2
    sys.stdout.write(made[arguments[0]]())
    return 0


if __name__ == "__main__":
    import sys

    sys.exit(main(sys.argv[1:]))
