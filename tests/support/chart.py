"""A chart rendered: by helm where it is installed, else as far as our templates go.

The one rule: of helm's language the substitute knows what our templates use, and refuses the rest.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from typing import Any

import yaml

from support.source import CHECKOUT

CHART = f"{CHECKOUT}/packaging/kubernetes/helm/kata"
TEMPLATES = ("rbac", "daemonset", "runtimeclass", "uninstall")
RELEASE = {"Name": "rel", "Namespace": "kube-system"}
_ACTION = re.compile(r"(?:[ \t]*\n)?([ \t]*)\{\{-\s*(.*?)\s*\}\}|\{\{\s*(.*?)\s*\}\}")


def values(**changes: Any) -> dict[str, Any]:
    """The chart's values, with changes to the first level merged in."""
    with open(f"{CHART}/values.yaml", encoding="utf-8") as file:
        found = yaml.safe_load(file)
    for name, value in changes.items():
        merged = {**found[name], **value} if isinstance(value, dict) else value
        found[name] = copy.deepcopy(merged)
    return found


def substituted(**changes: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """What the chart makes, by kind and name; rendered by this module."""
    context = {"Values": values(**changes), "Release": RELEASE}
    texts = []
    for name in TEMPLATES:
        with open(f"{CHART}/templates/{name}.yaml", encoding="utf-8") as file:
            texts.append(_render(file.read(), context))
    return documents("\n---\n".join(texts))


def helm(**changes: Any) -> dict[tuple[str, str], dict[str, Any]] | None:
    """The same, rendered by helm; None if it is not installed."""
    program = shutil.which("helm")
    if not program:
        return None
    argv = [program, "template", RELEASE["Name"], CHART, "--namespace", RELEASE["Namespace"],
            "--kube-version", "1.30"]  # fmt: skip
    for name, value in changes.items():
        argv += ["--set-json", f"{name}={json.dumps(value)}"]
    return documents(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def documents(text: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The objects of a text, by kind and name."""
    found = [document for document in yaml.safe_load_all(text) if document]
    return {(d["kind"], d["metadata"]["name"]): d for d in found}


def _render(text: str, context: dict[str, Any]) -> str:
    condition = re.match(r"\{\{- if \.(\S+) \}\}\n(.*)\{\{- end \}\}\n\Z", text, re.DOTALL)
    if condition:
        if not _look_up(condition[1], context):
            return ""
        text = condition[2]
    return _ACTION.sub(lambda found: _action(found[2] or found[3], context), text)


def _action(words: str, context: dict[str, Any]) -> str:
    if found := re.fullmatch(r"toYaml \.(\S+) \| nindent (\d+)", words):
        lines = yaml.safe_dump(_look_up(found[1], context)).splitlines()
        return "".join(f"\n{' ' * int(found[2])}{line}" for line in lines)
    if found := re.fullmatch(r"\.(\S+) \| quote", words):
        return json.dumps(str(_look_up(found[1], context)))
    if found := re.fullmatch(r"\.(\S+)", words):
        return str(_look_up(found[1], context))
    raise AssertionError(f"the substitute for helm does not know {words!r}")


def _look_up(path: str, context: dict[str, Any]) -> Any:
    found: Any = context
    for name in path.split("."):
        found = found[name]
    return found
