"""OCI's linux.resources become files of a control group, version 2."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata.errors import InvalidInput
from kata.linux.cgroup2 import plan, weight_of_shares


@pytest.mark.parametrize(
    ("resources", "files"),
    [
        ({}, []),
        ({"memory": {"limit": 9, "swap": 12}}, [("memory.max", "9"), ("memory.swap.max", "3")]),
        ({"memory": {"limit": -1}}, [("memory.max", "max")]),
        ({"memory": {"swap": -1}}, [("memory.swap.max", "max")]),
        ({"memory": {"swap": 50}}, []),
        ({"memory": {"reservation": 5}}, [("memory.low", "5")]),
        ({"cpu": {"quota": 50000, "period": 100000}}, [("cpu.max", "50000 100000")]),
        ({"cpu": {"quota": -1}}, [("cpu.max", "max 100000")]),
        ({"cpu": {"shares": 1024}}, [("cpu.weight", "39")]),
        ({"cpu": {"shares": 1024, "idle": 1}}, [("cpu.idle", "1")]),
        ({"cpu": {"cpus": "0-1", "mems": "0"}}, [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")]),
        ({"pids": {"limit": 10}}, [("pids.max", "10")]),
        ({"pids": {"limit": -1}}, [("pids.max", "max")]),
        ({"pids": {"limit": 0}}, []),
        ({"blockIO": {"weight": 500}}, [("io.weight", "default 4950")]),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 254, "minor": 0, "rate": 9}]}},
            [("io.max", "254:0 rbps=9")],
        ),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}, [("hugetlb.2MB.max", "1")]),
        ({"unified": {"memory.high": "7"}}, [("memory.high", "7")]),
        ({"memory": None, "cpu": None, "devices": []}, []),
    ],
)
def test_files(resources, files):
    """Each resource is the file and value that runc writes."""
    assert plan(resources) == files


@pytest.mark.parametrize(
    "resources",
    [
        {"memory": {"limit": 100, "swap": 50}},
        {"memory": {"limit": -1, "swap": 50}},
        {"memory": {"limit": "text"}},
        {"unified": {"../x": "1"}},
        {"unified": {"cgroup.procs": "1"}},
        {"hugepageLimits": [{"pageSize": "../x", "limit": 1}]},
        {"pids": 5},
    ],
)
def test_nonsense_is_refused(resources):
    """What makes no sense, or would write elsewhere, is an error."""
    with pytest.raises(InvalidInput):
        plan(resources)


@given(st.integers(), st.integers())
def test_weights_are_in_range_and_in_order(one, other):
    """Any shares give a weight the kernel takes, more shares never a smaller one."""
    low, high = sorted((one, other))
    assert 1 <= weight_of_shares(low) <= weight_of_shares(high) <= 10000
