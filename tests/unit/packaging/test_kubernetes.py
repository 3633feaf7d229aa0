"""What a cluster is given: runtime class, drop-ins, the chart and the installer's image."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import tomllib

import pytest

from support import chart
from support.source import CHECKOUT

KUBERNETES = f"{CHECKOUT}/packaging/kubernetes"
LABEL = "katacontainers.io/kata-runtime"


def documents(name: str) -> list[dict]:
    """The objects in a file."""
    with open(f"{KUBERNETES}/{name}", encoding="utf-8") as file:
        return list(chart.documents(file.read()).values())


def module(name: str):
    """A program of the packaging, as a module."""
    spec = importlib.util.spec_from_file_location(name, f"{KUBERNETES}/{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_drop_ins_are_what_is_installed(tmp_path):
    """The files beside the manifests are what ``kata install`` writes on a node."""
    subprocess.run([f"{KUBERNETES}/drop_ins.py", tmp_path], check=True)
    made = sorted(os.listdir(tmp_path))
    assert made == sorted(os.listdir(f"{KUBERNETES}/drop-ins"))
    for name in made:
        with open(f"{KUBERNETES}/drop-ins/{name}", encoding="utf-8") as file:
            assert file.read() == (tmp_path / name).read_text(), "make docs mends it"


def test_the_handler_of_the_class_is_one_of_each_engine():
    """The runtime class names a handler that the drop-ins define."""
    [runtime_class] = documents("runtimeclass.yaml")
    for name, path in (
        ("containerd-1.toml", ("plugins", "io.containerd.grpc.v1.cri", "containerd")),
        ("containerd-2.toml", ("plugins", "io.containerd.cri.v1.runtime", "containerd")),
        ("crio.conf", ("crio", "runtime")),
    ):
        with open(f"{KUBERNETES}/drop-ins/{name}", "rb") as file:
            found = tomllib.load(file)
        for part in (*path, "runtimes"):
            found = found[part]
        assert runtime_class["handler"] in found


def test_the_overhead_is_said_once():
    """The class by hand and the chart's have the same overhead, quantities of Kubernetes."""
    [by_hand] = documents("runtimeclass.yaml")
    overhead = by_hand["overhead"]["podFixed"]
    assert overhead == chart.values()["runtimeClass"]["overhead"]
    assert overhead["memory"].removesuffix("Mi").isdecimal()
    assert overhead["cpu"].removesuffix("m").isdecimal()


def test_the_pod_to_try_names_the_class():
    """The example pod asks for the runtime class there is."""
    [runtime_class] = documents("runtimeclass.yaml")
    [pod] = documents("pod.yaml")
    assert pod["spec"]["runtimeClassName"] == runtime_class["metadata"]["name"]


@pytest.mark.parametrize("changes", [
    {}, {"runtimeClass": {"create": False}}, {"tolerations": [{"operator": "Exists"}]},
    {"engine": "crio", "image": {"tag": "x"}, "nodeSelector": {"a": "b"}},
])  # fmt: skip
def test_helm_renders_the_same(changes):
    """What these tests look at is what helm makes."""
    rendered = chart.helm(**changes)
    if rendered is None:
        pytest.skip("helm is not installed")
    assert rendered == chart.substituted(**changes)


def test_the_installer_runs_where_it_should():
    """Selectors, accounts and rights fit together, and the installer gets its settings."""
    made = chart.substituted(
        engine="crio", packages="require", tolerations=[{"operator": "Exists"}]
    )
    installer = made["DaemonSet", "rel-node"]["spec"]
    labels = installer["selector"]["matchLabels"]
    pod = installer["template"]["spec"]
    assert labels == installer["template"]["metadata"]["labels"]
    assert pod["hostPID"] is True
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["nodeSelector"]["kubernetes.io/arch"] == "amd64"
    [container] = pod["containers"]
    assert container["securityContext"]["privileged"] is True
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert environment == {"NODE_NAME": None, "KATA_ENGINE": "crio", "KATA_PACKAGES": "require"}
    [subject] = made["ClusterRoleBinding", "rel-node"]["subjects"]
    assert ("ServiceAccount", subject["name"]) in made
    assert pod["serviceAccountName"] == subject["name"]
    [rule] = made["ClusterRole", "rel-node"]["rules"]
    assert set(rule["verbs"]) == {"get", "list", "patch"}
    assert rule["resources"] == ["nodes"]


def test_pods_go_to_nodes_that_are_ready():
    """The class chooses nodes by the label that the installer sets when it is done."""
    made = chart.substituted()
    node = module("node")
    chosen = made["RuntimeClass", "kata"]["scheduling"]["nodeSelector"]
    assert chosen == {node.LABEL: node.READY}
    assert not any(kind == "RuntimeClass" for kind, _ in
                   chart.substituted(runtimeClass={"create": False}))  # fmt: skip


def test_removal_comes_before_all_else():
    """Uninstalling tells the nodes first, while the installers and their rights are there."""
    job = chart.substituted(uninstall={"timeoutSeconds": 5})["Job", "rel-uninstall"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    assert job["spec"]["activeDeadlineSeconds"] == 5
    spec = job["spec"]["template"]["spec"]
    assert spec["containers"][0]["args"] == ["uninstall"]
    assert spec["restartPolicy"] == "Never"


def test_the_image_copies_what_there_is():
    """Files that the recipe names are in the checkout, and it installs where the drop-ins look."""
    with open(f"{KUBERNETES}/Containerfile", encoding="utf-8") as file:
        recipe = file.read()
    copied = [line.split()[1] for line in recipe.splitlines()
              if line.startswith("COPY ") and "--from" not in line]  # fmt: skip
    assert copied == [".", "packaging/kubernetes/node.py"]
    assert all(os.path.exists(f"{CHECKOUT}/{name}") for name in copied)
    assert f"PREFIX={module('drop_ins').PREFIX}" in recipe
    assert module("node").PREFIX == module("drop_ins").PREFIX
