"""The shim's command line: Go's flags, names that name files, options on standard input."""

import pytest

from kata.errors import InvalidInput
from kata.shim.main import check, main, parse
from kata.shim.options import config_path
from kata.shim.order import Order
from kata.version import VERSION
from kata.wire.containerd_types import BootstrapParams, Extension, RuntimeInfo, RuntimeOptions
from kata.wire.ttrpc import AnyMessage


def test_flags_as_containerd_gives_them():
    """One dash, values behind a space or an equals sign, the action last."""
    words = ["-namespace", "k8s.io", "-address", "/c.sock", "-publish-binary", "/ctd", "-id", "x"]
    assert parse([*words, "start"]) == Order(
        action="start", namespace="k8s.io", address="/c.sock", publish_binary="/ctd", id="x"
    )
    assert parse(["--id=y", "-bundle=/b", "-debug", "delete"]) == Order(
        action="delete", id="y", bundle="/b", debug=True
    )
    assert parse(["-debug=false", "-v"]) == Order(version=True)
    assert parse(["-socket", "unix:///s", "-debug-socket", "/d"]) == Order(
        socket="unix:///s", debug_socket="/d"
    )


@pytest.mark.parametrize(
    "words", [["-nonsense", "start"], ["-id"], ["-debug=perhaps", "start"]]
)
def test_bad_flags(words):
    """What is no flag, or has no value, is refused."""
    with pytest.raises(InvalidInput):
        parse(words)


@pytest.mark.parametrize(
    ("namespace", "container"), [("", "x"), ("n", ""), ("n", "a/b"), ("..", "x"), ("n", "x" * 201)]
)
def test_names_that_name_no_file(namespace, container):
    """Nothing is looked for at a place that a name leads to."""
    with pytest.raises(InvalidInput):
        check(Order(namespace=namespace, id=container))


@pytest.mark.parametrize("words", [[], ["serve"], ["start"], ["-id", "x", "delete"]])
def test_errors_are_one_clear_line(words, capfd):
    """Exit code 1, nothing on standard output."""
    assert main(words) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("containerd-shim-kata-v2: ")
    assert "Traceback" not in err


def test_version_and_info(capfdbinary):
    """What people and containerd 2 ask."""
    assert main(["-v"]) == 0
    assert VERSION in capfdbinary.readouterr().out.decode()
    assert main(["-info"]) == 0
    found = RuntimeInfo.decode(capfdbinary.readouterr().out)
    assert (found.name, found.version.version) == ("io.containerd.kata.v2", VERSION)


def test_the_configuration_of_runtime_options():
    """CRI's options name a file; what is of another kind, or none at all, names none."""
    inner = RuntimeOptions(type_url="x", config_path="/etc/k.toml").encode()
    assert config_path(AnyMessage(type_url="runtimeoptions.v1.Options", value=inner).encode()) == (
        "/etc/k.toml"
    )
    assert config_path(AnyMessage(type_url="containerd.runc.v1.Options", value=b"").encode()) == ""
    assert config_path(b"\xff\xff runtimeoptions") == ""


def test_options_of_newer_containerds():
    """They are one extension among several."""
    inner = RuntimeOptions(config_path="/etc/k.toml").encode()
    given = [
        Extension(), Extension(value=AnyMessage(type_url="x", value=b"\xff")),
        Extension(value=AnyMessage(type_url="runtimeoptions.v1.Options", value=inner)),
    ]  # fmt: skip
    params = BootstrapParams(instance_id="c1", namespace="k8s.io", extensions=given)
    assert config_path(params.encode()) == "/etc/k.toml"
    assert config_path(BootstrapParams(instance_id="runtimeoptions").encode()) == ""
