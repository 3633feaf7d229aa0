"""config.json: what is accepted, and how each fault is named."""

import copy
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft4Validator

from kata.errors import InvalidSpec
from kata.oci import schema
from kata.oci.defaults import ContainerRequest, ProcessRequest, container_spec
from kata.oci.spec import faults, namespaces, parse, parse_process, parse_resources
from kata.oci.state import RUNNING, STOPPED, State, command_line_document, document

DATA = os.path.join(os.path.dirname(__file__), "../../data/runtime-spec-1.2.0")


def data(name):
    with open(f"{DATA}/{name}") as file:
        return json.load(file)


def inlined(node, name):
    """A schema without references: each replaced by what it means (there are no cycles)."""
    if isinstance(node, list):
        return [inlined(inner, name) for inner in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        file, _, pointer = node["$ref"].partition("#")
        target = data(file or name)
        for part in pointer.strip("/").split("/"):
            target = target[part]
        return inlined(target, file or name)
    return {key: inlined(inner, name) for key, inner in node.items()}


def validator(name):
    """The specification's own schema."""
    return Draft4Validator(inlined(data(name), name))


ORACLE = validator("config-schema.json")
STATE_ORACLE = validator("state-schema.json")
EXAMPLE = data("good/spec-example.json")
REQUEST = ContainerRequest(ProcessRequest(("sh",)), "host")


def changed(path, value, base=EXAMPLE):
    """A copy of a configuration with one value changed; ``...`` removes it."""
    spec = copy.deepcopy(base)
    *parents, last = path
    target = spec
    for key in parents:
        target = target[key]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return spec


def only_fault(spec):
    found = faults(spec)
    assert len(found) == 1, found
    return found[0]


def test_the_specifications_examples_are_accepted():
    """What the specification shows as good is accepted, where it can start (it has args)."""
    assert parse(json.dumps(data("good/minimal-for-start.json")))["process"]["args"]
    rdma = {**data("good/linux-rdma.json"), "process": EXAMPLE["process"]}
    assert faults(rdma) == []
    # the example's sysctl net.core.somaxconn is fine, its hooks, limits and devices as well
    assert [f.path for f in faults(EXAMPLE)] == []


def test_the_default_configuration_is_valid():
    """What we write ourselves passes the schema and our own checks."""
    spec = container_spec(REQUEST)
    assert list(ORACLE.iter_errors(spec)) == []
    assert faults(spec) == []


def test_unknown_fields_are_kept():
    """Fields that are not known stay in the result, whatever they hold."""
    spec = changed(("linux", "netDevices"), {"eth0": {"name": 1}})
    spec["org.example"] = [None]
    assert parse(json.dumps(spec)) == spec


def test_null_is_absent():
    """Go writes null for what is empty: optional fields may be null, required ones not."""
    assert faults(changed(("hooks",), None)) == []
    assert faults(changed(("linux", "devices"), None)) == []
    assert only_fault(changed(("process", "cwd"), None)).path == "process.cwd"


@pytest.mark.parametrize(
    ("path", "value", "where", "why"),
    [
        (("ociVersion",), 1, "ociVersion", "must be a string, not an integer"),
        (("root",), ..., "root", "is missing"),
        (("root", "path"), ..., "root.path", "is missing"),
        (("root", "path"), "", "root.path", "must not be empty"),
        (("process",), ..., "process", "is missing"),
        (("process", "args"), "sh", "process.args", "must be an array, not a string"),
        (("process", "args"), [], "process.args", "must name a program"),
        (("process", "args"), ..., "process.args", "must name a program"),
        (("process", "args", 0), 1, "process.args[0]", "must be a string, not an integer"),
        (
            ("process", "args", 0),
            "a\0b",
            "process.args[0]",
            "must not contain a NUL character",
        ),
        (("process", "env", 0), "PATH", "process.env[0]", 'must be NAME=VALUE, not "PATH"'),
        (("process", "env", 0), "=x", "process.env[0]", 'must be NAME=VALUE, not "=x"'),
        (("process", "cwd"), "tmp", "process.cwd", 'must be an absolute path, not "tmp"'),
        (
            ("process", "user", "uid"),
            -1,
            "process.user.uid",
            "must be from 0 to 2147483647, not -1",
        ),
        *(
            (
                ("process", "user", name),
                value,
                f"process.user.{name}{index}",
                "must be from 0 to 2147483647, not 4294967295",
            )
            for name, value, index in (
                ("uid", 0xFFFFFFFF, ""),
                ("gid", 0xFFFFFFFF, ""),
                ("additionalGids", [5, 0xFFFFFFFF], "[1]"),
            )
        ),
        (
            ("process", "user", "uid"),
            True,
            "process.user.uid",
            "must be an integer, not a boolean",
        ),
        (("process", "user", "uid"), 1.0, "process.user.uid", "must be an integer, not a number"),
        (
            ("process", "rlimits", 0, "type"),
            "nofile",
            "process.rlimits[0].type",
            'must be the name of a resource limit (wrong rlimit value), not "nofile"',
        ),
        (
            ("process", "rlimits", 0, "type"),
            "RLIMIT_NOPE",
            "process.rlimits[0].type",
            'must be the name of a resource limit (wrong rlimit value), not "RLIMIT_NOPE"',
        ),
        *(
            (
                ("process", "execCPUAffinity"),
                {"final": text},
                "process.execCPUAffinity.final",
                f'must be a list of processors such as 0-3,7, not "{text}"',
            )
            for text in ("a-b", "0-", "3-1", ",", "0-99999", "1-2-3", "\u0663")
        ),
        (
            ("process", "rlimits", 0, "hard"),
            1,
            "process.rlimits[0].soft",
            "must not be above the hard limit",
        ),
        (
            ("process", "oomScoreAdj"),
            1001,
            "process.oomScoreAdj",
            "must be from -1000 to 1000, not 1001",
        ),
        (("mounts", 0, "destination"), "", "mounts[0].destination", "must not be empty"),
        (("mounts", 0), "x", "mounts[0]", "must be an object, not a string"),
        (
            ("linux", "namespaces", 0, "type"),
            "net",
            "linux.namespaces[0].type",
            'unknown value "net"',
        ),
        (
            ("linux", "namespaces", 0, "path"),
            "proc/1/ns/pid",
            "linux.namespaces[0].path",
            "must be an absolute path",
        ),
        (
            ("linux", "namespaces"),
            [{"type": t} for t in ("pid", "network", "ipc", "uts", "mount", "user", "time", "pid")],
            "linux.namespaces[7]",
            '"pid" is there twice',
        ),
        (
            ("linux", "resources", "hugepageLimits", 0, "pageSize"),
            "64kB",
            "linux.resources.hugepageLimits[0].pageSize",
            'must be a page size such as 2MB, not "64kB"',
        ),
        (
            ("linux", "resources", "memory", "limit"),
            "1g",
            "linux.resources.memory.limit",
            "must be an integer, not a string",
        ),
        *(
            (
                ("linux", "resources", "memory", name),
                -5,
                f"linux.resources.memory.{name}",
                "must be from -1 to",
            )
            for name in ("limit", "reservation", "swap")
        ),
        (
            ("linux", "resources", "memory", "limit"),
            1,
            "linux.resources.memory.limit",
            "unable to set memory limit to 1: a container needs 1048576 bytes",
        ),
        (
            ("linux", "resources", "cpu", "period"),
            50,
            "linux.resources.cpu.period",
            "must be from 1000 to 1000000 microseconds, not 50",
        ),
        (
            ("linux", "resources", "cpu", "quota"),
            50,
            "linux.resources.cpu.quota",
            "must be at least 1000 microseconds, not 50",
        ),
        (("hostname",), "h" * 65, "hostname", "must not be longer than 64 bytes"),
        (("hostname",), "\u00e9" * 33, "hostname", "must not be longer than 64 bytes"),
        (("domainname",), "h" * 65, "domainname", "must not be longer than 64 bytes"),
        (
            ("linux", "seccomp", "syscalls", 0, "names"),
            [""],
            "linux.seccomp.syscalls[0].names[0]",
            "must not be empty",
        ),
        (
            ("linux", "seccomp", "defaultAction"),
            ...,
            "linux.seccomp.defaultAction",
            "is missing",
        ),
        (
            ("linux", "seccomp", "defaultAction"),
            "ALLOW",
            "linux.seccomp.defaultAction",
            'unknown value "ALLOW"',
        ),
        (
            ("linux", "sysctl"),
            {"kernel.panic": "1"},
            'linux.sysctl["kernel.panic"]',
            "is not in a namespace of its own",
        ),
        (
            ("linux", "sysctl"),
            {"kernel.hostname": "other"},
            'linux.sysctl["kernel.hostname"]',
            'is not allowed, as "hostname" is there for it',
        ),
        (
            ("linux", "sysctl"),
            {"net/../kernel/panic": "1"},
            'linux.sysctl["net/../kernel/panic"]',
            "is no name of a kernel parameter",
        ),
        (
            ("linux", "devices", 0, "major"),
            -5,
            "linux.devices[0].major",
            "must be from 0 to 4095, not -5",
        ),
        (
            ("linux", "devices", 0, "minor"),
            1 << 40,
            "linux.devices[0].minor",
            "must be from 0 to 1048575",
        ),
        (
            ("linux", "resources", "devices", 0, "major"),
            -2,
            "linux.resources.devices[0].major",
            "must be from -1 to",
        ),
        (("hooks", "prestart", 0, "path"), "", "hooks.prestart[0].path", "must not be empty"),
        (("linux", "resources", "cpu", "idle"), 5, "linux.resources.cpu.idle", "must be from 0 to"),
    ],
)
def test_faults_have_a_path(path, value, where, why):
    """Each fault is one error with the JSON path of what is wrong and the rule it breaks."""
    error = only_fault(changed(path, value))
    assert (error.path, str(error)) == (where, f"config.json: {where}: {error.why}")
    assert error.why.startswith(why)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("ociVersion",), ...),
        *((("ociVersion",), version) for version in ("", "1.0", "one", "2.0.0")),
        (("process", "rlimits"), [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}] * 2),
        (("process", "execCPUAffinity"), {"initial": "", "final": "0-3, 7"}),
        (("linux", "seccomp"), {}),
        (("linux", "seccomp", "syscalls", 0, "names"), []),
        (("linux", "seccomp", "syscalls", 0, "names"), ...),
        (("annotations", ""), "x"),
        (("linux", "devices", 0, "major"), ...),
        (("linux", "resources", "memory", "limit"), -1),
        (("linux", "resources", "pids", "limit"), -5),
        (("hostname",), "h" * 64),
        (("linux", "devices", 0, "path"), "dev/relative"),
        (("linux", "resources", "devices", 0, "access"), "rwx"),
        (("hooks", "prestart", 0, "path"), "relative/hook"),
        (("process", "consoleSize"), {}),
        (("process", "consoleSize"), {"height": 1 << 40, "width": 80}),
        (("mounts", 1, "source"), ""),
    ],
)
def test_what_runc_runs_is_accepted(path, value):
    """Engines were written with runc: what it runs in spite of the specification, so do we."""
    assert faults(changed(path, value)) == []


def test_relative_paths_begin_at_the_root():
    """Those of mounts and devices do, as runc reads them; others stay as they are."""
    spec = changed(("mounts", 0, "destination"), "relative/../place")
    spec["linux"]["devices"][0]["path"] = "../dev/relative"
    others = [m["destination"] for m in spec["mounts"][1:]]
    found = parse(json.dumps(spec))
    assert found["mounts"][0]["destination"] == "/relative/../place"
    assert [m["destination"] for m in found["mounts"][1:]] == others
    assert found["linux"]["devices"][0]["path"] == "/../dev/relative"


@pytest.mark.parametrize(
    ("kind", "names"), [("user", ("uidMappings", "gidMappings")), ("time", ("timeOffsets",))]
)
def test_maps_and_offsets_without_their_namespace(kind, names):
    """They say nothing without it, as with runc; with one, or one to join, they stay."""
    spaces = [s for s in EXAMPLE["linux"]["namespaces"] if s["type"] != kind]
    with_one = [*spaces, {"type": kind}]
    for listed, kept in ((spaces, False), (with_one, True)):
        found = parse(json.dumps(changed(("linux", "namespaces"), listed)))
        assert [name in found["linux"] for name in names] == [kept] * len(names)


def test_what_needs_a_namespace():
    """What belongs to a namespace is refused where the container shares it."""
    spaces = EXAMPLE["linux"]["namespaces"]
    spec = changed(("linux", "namespaces"), [s for s in spaces if s["type"] == "pid"])
    spec["domainname"] = "d"
    assert {f.path: f.why for f in faults(spec)} == {
        "hostname": 'needs a namespace of type "uts"',
        "domainname": 'needs a namespace of type "uts"',
        "linux.maskedPaths": 'needs a namespace of type "mount"',
        "linux.readonlyPaths": 'needs a namespace of type "mount"',
        'linux.sysctl["net.ipv4.ip_forward"]': 'needs a namespace of type "network"',
        'linux.sysctl["net.core.somaxconn"]': 'needs a namespace of type "network"',
    }


def test_all_faults_of_shape_are_found():
    """Several faults are several errors; parse raises the first."""
    spec = changed(("process", "args"), 1)
    spec["hostname"] = 2
    assert [f.path for f in faults(spec)] == ["process.args", "hostname"] or [
        f.path for f in faults(spec)
    ] == ["hostname", "process.args"]
    with pytest.raises(InvalidSpec):
        parse(json.dumps(spec))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', b"\xff", "[" * 100_000])
def test_what_is_no_configuration(text):
    """What is not a JSON object is refused without a traceback."""
    with pytest.raises(InvalidSpec, match="document"):
        parse(text)


def test_a_huge_document_is_refused():
    """A document beyond all reason is refused before it is parsed."""
    with pytest.raises(InvalidSpec, match="larger than"):
        parse(b" " * ((16 << 20) + 1))


def test_process_and_resources_alone():
    """The objects that exec and update are given are checked by the same tables."""
    assert parse_process(json.dumps(EXAMPLE["process"]), "p") == EXAMPLE["process"]
    assert parse_resources('{"pids": {"limit": 3}}', "r") == {"pids": {"limit": 3}}
    assert parse_resources('{"pids": {}}', "r") == {"pids": {}}
    assert parse_resources(b" null\n", "r") == {}


@pytest.mark.parametrize(
    ("parse_part", "text", "error"),
    [
        (parse_process, '{"cwd": "/"}', '"/tmp/x.json": args: must name a program'),
        (parse_process, '{"cwd": "x", "args": ["a"]}', '"/tmp/x.json": cwd: must be an absolute'),
        (parse_process, "[", '"/tmp/x.json": (document): is not JSON'),
        (parse_resources, '{"devices": [{}]}', '"/tmp/x.json": devices[0].allow: is missing'),
        (parse_resources, '{"memory": {"limit": 1}}', '"/tmp/x.json": memory.limit: unable to'),
        (parse_resources, "1", '"/tmp/x.json": (document): must be an object'),
    ],
)
def test_faults_of_a_part_name_its_file(parse_part, text, error):
    """What is wrong in a file that exec or update was given is said of that file."""
    with pytest.raises(InvalidSpec) as caught:
        parse_part(text, "/tmp/x.json")
    assert str(caught.value).startswith(error)
    assert "config.json" not in str(caught.value)


def test_namespaces_by_kind():
    """Namespaces come as kind to path, an empty one for a new namespace."""
    spec = {"linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": "/n"}]}}
    assert namespaces(spec) == {"pid": "", "network": "/n"}
    assert namespaces({}) == {}


JUNK = st.sampled_from(
    [None, True, -1, 0, 1, 1.5, 1 << 40, 1 << 64, "", "x", "/x", [], ["x"], [1], {}, {"x": "y"}]
)


def places(value, path=()):
    """The path of every value in a document."""
    if path:
        yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        yield from places(inner, (*path, key))


@settings(max_examples=400)
@given(st.sampled_from([p for p in places(EXAMPLE) if p[0] not in ("zos",)]), JUNK)
def test_no_laxer_than_the_schema(path, value):
    """Whatever the specification's schema refuses, we refuse too (null aside, which is absent).

    Accepted more widely on purpose: file modes with type bits and paths of propagation, as runc
    and the engines have them, and what ``test_what_runc_runs_is_accepted`` has.
    """
    spec = changed(path, value)
    wider = path[-1] in ("fileMode", "rootfsPropagation", "ociVersion") or value is None
    wider = wider or path[-1] in ("seccomp", "names", "access", "pids") or path == ("annotations",)
    wider = wider or (path[-1] == "path" and "devices" in path)
    if not wider and list(ORACLE.iter_errors(spec)):
        assert faults(spec)


def test_every_field_of_the_schema_is_in_the_table():
    """The table names every Linux field of the schema: a wrong value in each is noticed."""
    properties = data("config-linux.json")["linux"]["properties"]
    for name in properties:
        wrong = {"ociVersion": "1.2.0", "linux": {name: 3.5}}
        assert next(f.path for f in faults(wrong)) == f"linux.{name}"
    for name in properties["resources"]["properties"]:
        found = []
        schema.RESOURCES({name: 3.5}, "r", found)
        assert [f.path for f in found] == [f"r.{name}"]
    for name in data("config-schema.json")["properties"]["process"]["properties"]:
        found = []
        schema.PROCESS({"cwd": "/", name: 3.5}, "p", found)
        assert [f.path for f in found] == [f"p.{name}"]


def test_state_documents():
    """The state is the specification's; runc's command prints more, and pid 0 once stopped."""
    running = State("c1", RUNNING, "/b", 42, (("a", "b"),))
    assert document(running) == {
        "ociVersion": "1.2.0", "id": "c1", "status": "running", "pid": 42, "bundle": "/b",
        "annotations": {"a": "b"},
    }  # fmt: skip
    stopped = State("c1", STOPPED, "/b", 42)
    assert "pid" not in document(stopped)
    for state in (running, stopped):
        assert list(STATE_ORACLE.iter_errors(document(state))) == []
    printed = command_line_document(stopped, rootfs="/b/rootfs", created="2026-01-01T00:00:00Z")
    assert (printed["pid"], printed["rootfs"], printed["owner"]) == (0, "/b/rootfs", "")
    assert list(printed)[:5] == ["ociVersion", "id", "pid", "status", "bundle"]
