"""Fixtures: network namespaces that are gone after the test."""

import pytest

from support.netns import Namespace


@pytest.fixture
def pod():
    """The namespace of a sandbox."""
    made = Namespace()
    yield made
    made.close()


@pytest.fixture
def outside():
    """A namespace for the other ends of links."""
    made = Namespace()
    yield made
    made.close()
