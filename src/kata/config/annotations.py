"""What a pod's annotations may change.

The one rule: an annotation is refused unless the settings table allows it, and for the settings
of the hypervisor unless the file lists it besides (``enable_annotations``), as Kata does.
"""

from __future__ import annotations

from kata.config.group import ALWAYS
from kata.config.settings import Config, rows
from kata.errors import InvalidConfig
from kata.wire.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.config.group import Setting

PREFIX = "io.katacontainers.config."
_WORDS = {"true": True, "1": True, "false": False, "0": False}


def overridden(config: Config, annotations: dict[str, str]) -> Config:
    """The configuration with what annotations change.

    Raises ``InvalidConfig`` for one that is unknown, not allowed, or has a bad value; those with
    another prefix are not looked at.
    """
    known = {_name(s): (group, s) for group, s in rows() if s.annotation}
    changes: dict[str, dict[str, Any]] = {}
    for key, text in annotations.items():
        if not key.startswith(PREFIX):
            continue
        found = known.get(key[len(PREFIX) :])
        if found is None or not _enabled(config, found[1]):
            raise InvalidConfig(
                f'annotation "{key}"', why="not enabled",
                hint="enable_annotations in the configuration file lists those that are",
            )  # fmt: skip
        group, setting = found
        changes.setdefault(group, {})[setting.name] = _value(key, setting, text)
    groups = {g: replace(getattr(config, g), **values) for g, values in changes.items()}
    return replace(config, **groups)


def _name(setting: Setting) -> str:
    return f"{setting.section.partition('.')[0]}.{setting.toml}"


def _enabled(config: Config, setting: Setting) -> bool:
    import re

    if setting.annotation == ALWAYS:
        return True
    listed = config.hypervisor.enable_annotations
    return any(re.fullmatch(pattern, setting.toml) for pattern in listed)


def _value(key: str, setting: Setting, text: str) -> Any:
    value: Any = text
    try:
        if setting.kind == "integer":
            value = int(text)
        elif setting.kind == "number":
            value = float(text)
    except ValueError:
        pass
    if setting.kind == "boolean":
        value = _WORDS.get(text.lower(), text)
    elif setting.kind == "strings":
        value = tuple(part.strip() for part in text.split(";") if part.strip())
    problem = setting.problem(value)
    if problem:
        raise InvalidConfig(f'annotation "{key}"', why=problem)
    return value
