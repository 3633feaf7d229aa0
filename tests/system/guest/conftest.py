"""Fixtures: the real agent as the first process of namespaces of its own, and its client."""

from __future__ import annotations

import pytest

from support import agent as support


@pytest.fixture
def guest(directory):
    """A guest of the agent alone; everything it made is gone afterwards."""
    group = support.cgroup_root()
    process = support.AgentProcess(f"{directory}/run", group, isolated=True)
    found = support.Guest(process, directory)
    yield found
    found.client.close()
    _, errors = process.close()
    support.remove_group(group)
    assert not errors, errors
