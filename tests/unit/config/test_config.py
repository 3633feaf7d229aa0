"""The settings table and what is derived from it."""

import json
import os
import re
import subprocess
import sys
import tomllib

import pytest

from kata.config import annotations, locate, render
from kata.config.load import load
from kata.config.parse import parse
from kata.config.settings import GROUPS, Config, build, fingerprint, rows
from kata.errors import InvalidConfig

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a configuration file that is old enough to be cached; give its path."""
    monkeypatch.delenv("KATA_CONFIG", raising=False)

    def write(text, name="configuration.toml"):
        path = tmp_path / name
        path.write_text(text)
        os.utime(path, (1_700_000_000, 1_700_000_000))
        return str(path)

    return write


def fault(text):
    """The error that parsing a text ends in."""
    with pytest.raises(InvalidConfig) as caught:
        parse(text.encode(), "/etc/c.toml")
    return caught.value


def test_defaults_are_valid_and_typed():
    """Every default keeps the rule of its own row."""
    for group, setting in rows():
        assert setting.problem(setting.default) == "", f"{group}.{setting.name}"


def test_groups_are_small_and_names_unique():
    """No group has more than 15 settings, and no two share a name in the file."""
    assert all(len(cls.SETTINGS) <= 15 for cls in GROUPS.values())
    names = [(s.section, s.toml) for _, s in rows()]
    assert len(names) == len(set(names))


def test_default_file_is_toml_and_says_the_defaults():
    """The generated file parses to nothing, and uncommented to exactly the defaults."""
    assert parse(render.toml().encode(), "c") == {}
    lines = [
        line[1:] if line.startswith("#") and " = " in line and line[1] != " " else line
        for line in render.toml().splitlines()
    ]
    values = parse("\n".join(lines).encode(), "c")
    assert sum(len(v) for v in values.values()) == len(rows())
    assert build(values) == build({})


def test_reference_page_is_current():
    """docs/reference/configuration.md is what the table says."""
    with open(f"{ROOT}/docs/reference/configuration.md") as page:
        assert page.read() == render.reference(), "run: make docs"


def test_render_is_a_command():
    """``python3 -m kata.config.render toml`` writes the file, and anything else is refused."""
    run = [sys.executable, "-m", "kata.config.render"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/src"}
    good = subprocess.run([*run, "toml"], capture_output=True, text=True, env=environment)
    assert good.stdout == render.toml()
    bad = subprocess.run([*run, "yaml"], capture_output=True, text=True, env=environment)
    assert (bad.returncode, bad.stdout) == (2, "")


def test_values_round_trip_through_a_file(written):
    """What ``values`` shows of a configuration is what a file would have said."""
    path = written('[hypervisor.qemu]\nvirtio_fs_cache = "never"\ndefault_vcpus = 3\n')
    shown = render.values(load(path, cache_dir=""))
    assert shown["hypervisor.qemu"]["virtio_fs_cache"] == "never"
    assert shown["hypervisor.qemu"]["default_vcpus"] == 3
    assert set(shown) == {cls.SECTION for cls in GROUPS.values()}


def test_records_are_frozen_and_comparable():
    """A configuration never changes; equal ones are equal and hash the same."""
    config = build({})
    with pytest.raises(AttributeError):
        config.hypervisor.path = "/x"
    with pytest.raises(AttributeError):
        config.sources = ("/x",)
    with pytest.raises(AttributeError):
        del config.hypervisor.path
    with pytest.raises(TypeError):
        GROUPS["agent"](nonsense=1)
    assert config == build({})
    assert hash(config) == hash(build({}))
    assert "default_memory=512" in repr(config)


def test_template_path_follows_data_root():
    """An empty template_path means a directory in data_root; a given one stands."""
    assert build({}).factory.template_path == "/var/lib/kata/templates"
    moved = build({"runtime": {"data_root": "/d"}})
    assert moved.factory.template_path == "/d/templates"
    given = build({"factory": {"template_path": "/t"}, "runtime": {"data_root": "/d"}})
    assert given.factory.template_path == "/t"


@pytest.mark.parametrize(
    ("text", "what", "why", "hint"),
    [
        (
            "[hypervisor.qemu]\n\ndefault_vcpu = 2",
            '/etc/c.toml:3: unknown setting "hypervisor.qemu.default_vcpu"',
            "no such setting exists",
            'did you mean "default_vcpus"?',
        ),
        (
            "[runtime]\ndefault_vcpus = 2",
            '/etc/c.toml:2: unknown setting "runtime.default_vcpus"',
            "no such setting exists",
            'it belongs to "[hypervisor.qemu]"',
        ),
        (
            "[hypervisor.qemu]\ndefault_vcpus = 0",
            '/etc/c.toml:2: setting "hypervisor.qemu.default_vcpus"',
            "must be from 1 to 240, not 0",
            "",
        ),
        (
            '[hypervisor.qemu]\ndefault_vcpus = "2"',
            '/etc/c.toml:2: setting "hypervisor.qemu.default_vcpus"',
            'must be an integer, not "2"',
            "",
        ),
        (
            "[hypervisor.qemu]\ndefault_vcpus = true",
            '/etc/c.toml:2: setting "hypervisor.qemu.default_vcpus"',
            "must be an integer, not true",
            "",
        ),
        (
            '[runtime]\nstate_root = "run/kata"',
            '/etc/c.toml:2: setting "runtime.state_root"',
            'must be an absolute path, not "run/kata"',
            "",
        ),
        (
            '[agent.kata]\nkernel_modules = ["a", 1]',
            '/etc/c.toml:2: setting "agent.kata.kernel_modules"',
            "must be a list of strings, not ['a', 1]",
            "",
        ),
        (
            "[factori]\nenable_template = true",
            '/etc/c.toml:1: unknown section "factori"',
            'there are "agent.kata", "factory", "hypervisor.qemu", "runtime"',
            'did you mean "factory"?',
        ),
        (
            "[hypervisor.clh]\npath = '/x'",
            '/etc/c.toml:1: unknown section "hypervisor.clh"',
            'there are "agent.kata", "factory", "hypervisor.qemu", "runtime"',
            'did you mean "hypervisor.qemu"?',
        ),
        (
            "path = '/x'",
            '/etc/c.toml:1: unknown section "path"',
            'there are "agent.kata", "factory", "hypervisor.qemu", "runtime"',
            "",
        ),
        ("[runtime", "/etc/c.toml", "expected ']' at the end of a table declaration", ""),
    ],
)
def test_faults_are_named(text, what, why, hint):
    """A fault names file, line, setting, the rule, and the nearest name."""
    error = fault(text)
    assert error.what == what
    assert error.why.startswith(why)
    assert error.hint == hint


def test_settings_may_be_written_as_dotted_keys():
    """Any TOML spelling of a setting is understood."""
    values = parse(b'hypervisor.qemu.path = "/q"\nruntime = { data_root = "/d" }', "c")
    assert values == {"hypervisor": {"path": "/q"}, "runtime": {"data_root": "/d"}}


def test_not_utf8_is_a_fault():
    """Bytes that are no text are refused, with their place."""
    with pytest.raises(InvalidConfig, match="not UTF-8 at byte 2"):
        parse(b"# \xff", "c")


def test_load_without_a_file_gives_defaults(monkeypatch):
    """Without a file the defaults hold, and the source is empty."""
    monkeypatch.delenv("KATA_CONFIG", raising=False)
    monkeypatch.setattr("kata.config.load.PATH", "/nonexistent/c.toml")
    assert load(None, cache_dir="") == build({})


def test_load_names_a_missing_or_odd_file(written, tmp_path):
    """A named file that is missing, a directory, huge or writable by all is refused."""
    with pytest.raises(InvalidConfig, match="there is no such file"):
        load("/nonexistent/c.toml", cache_dir="")
    with pytest.raises(InvalidConfig, match="not a regular file"):
        load(str(tmp_path), cache_dir="")
    path = written("")
    os.chmod(path, 0o666)
    with pytest.raises(InvalidConfig, match="everybody may write it"):
        load(path, cache_dir="")
    large = written("#" * ((1 << 20) + 1))
    os.chmod(large, 0o600)
    with pytest.raises(InvalidConfig, match="larger than"):
        load(large, cache_dir="")


def test_environment_names_the_file_and_arguments_win(written, monkeypatch):
    """``KATA_CONFIG`` names the file; a path given goes before it, roots before the file."""
    first = written('[runtime]\nstate_root = "/a"\ndata_root = "/b"\n')
    second = written("[runtime]\nstop_timeout = 3\n", "other.toml")
    monkeypatch.setenv("KATA_CONFIG", first)
    config = load(None, cache_dir="")
    assert (config.runtime.state_root, config.sources) == ("/a", (first,))
    assert load(second, cache_dir="").runtime.stop_timeout == 3
    moved = load(None, cache_dir="", state_root="/x", data_root="/y")
    assert (moved.runtime.state_root, moved.factory.template_path) == ("/x", "/y/templates")


def test_drop_ins_go_before_the_file(written, tmp_path):
    """In the order of their names; what they do not say stays; other files are not read."""
    path = written("[runtime]\nstop_timeout = 3\n[hypervisor.qemu]\ndefault_vcpus = 2\n")
    (tmp_path / "config.d").mkdir()
    written("[runtime]\nstop_timeout = 5\n", "config.d/20-b.toml")
    first = written("[runtime]\nstop_timeout = 4\ndata_root = '/d'\n", "config.d/10-a.toml")
    written("nonsense", "config.d/10-a.toml~")
    written("nonsense", "config.d/.30.toml")
    config = load(path, cache_dir="")
    assert (config.runtime.stop_timeout, config.runtime.data_root) == (5, "/d")
    assert config.hypervisor.default_vcpus == 2
    assert config.sources == (path, first, str(tmp_path / "config.d" / "20-b.toml"))
    written("[runtime]\nstop = 5\n", "config.d/20-b.toml")
    with pytest.raises(InvalidConfig, match=r"config.d/20-b.toml:2"):
        load(path, cache_dir="")


def test_drop_ins_without_a_file(written, tmp_path, monkeypatch):
    """Where the usual file is missing its drop-ins count all the same."""
    monkeypatch.setattr("kata.config.load.PATH", str(tmp_path / "configuration.toml"))
    assert load(cache_dir="").sources == ()
    (tmp_path / "config.d").mkdir()
    written("[runtime]\nstop_timeout = 5\n", "config.d/a.toml")
    assert load(cache_dir="").runtime.stop_timeout == 5


def test_drop_ins_of_strangers_are_refused(written, tmp_path):
    """A directory that others may write, as one in /tmp may be, names no programs of root's."""
    path = written("")
    (tmp_path / "config.d").mkdir()
    os.chmod(tmp_path / "config.d", 0o777)
    with pytest.raises(InvalidConfig, match=r"config.d.*others than root"):
        load(path, cache_dir="")


def test_kept_values_are_of_all_files(written, tmp_path, monkeypatch):
    """A drop-in that comes, changes or goes is seen, and nothing is parsed twice."""
    calls = parsed_again(monkeypatch)
    path, cache = written("[runtime]\nstop_timeout = 3\n"), str(tmp_path / "cache")
    (tmp_path / "config.d").mkdir()
    seen = [load(path, cache_dir=cache).runtime.stop_timeout]
    for text in ("[runtime]\nstop_timeout = 4\n", "[runtime]\nstop_timeout = 50\n"):
        name = written(text, "config.d/a.toml")
        seen += [load(path, cache_dir=cache).runtime.stop_timeout for _ in range(2)]
    os.unlink(name)
    seen.append(load(path, cache_dir=cache).runtime.stop_timeout)
    assert seen == [3, 4, 4, 50, 50, 3]
    assert len(calls) == 6


def parsed_again(monkeypatch):
    """Count how often a file is parsed."""
    calls = []

    def counting(data, path):
        calls.append(path)
        return parse(data, path)

    monkeypatch.setattr("kata.config.parse.parse", counting)
    return calls


def test_the_parsed_file_is_kept(written, tmp_path, monkeypatch):
    """The second load of an unchanged file parses nothing and gives the same."""
    calls = parsed_again(monkeypatch)
    path = written('[agent.kata]\nkernel_modules = ["vfat"]\n')
    cache = str(tmp_path / "cache")
    first, second = load(path, cache_dir=cache), load(path, cache_dir=cache)
    assert first == second
    assert first.agent.kernel_modules == ("vfat",)
    assert calls == [path]
    (kept,) = os.listdir(cache)
    assert os.stat(f"{cache}/{kept}").st_mode & 0o777 == 0o600
    assert os.stat(cache).st_mode & 0o777 == 0o700


def test_a_changed_file_is_parsed_again(written, tmp_path, monkeypatch):
    """Another time stamp or another version of the table makes the kept copy worthless."""
    calls = parsed_again(monkeypatch)
    cache = str(tmp_path / "cache")
    path = written("[agent.kata]\ndial_timeout = 5\n")
    load(path, cache_dir=cache)
    with open(path, "w") as file:
        file.write("[agent.kata]\ndial_timeout = 6\n")
    os.utime(path, (1_700_000_001, 1_700_000_001))
    assert load(path, cache_dir=cache).agent.dial_timeout == 6
    monkeypatch.setattr("kata.config.load.fingerprint", lambda: "another")
    load(path, cache_dir=cache)
    assert len(calls) == 3


@pytest.mark.parametrize("damage", ["mode", "text", "list", "link"])
def test_an_untrusted_copy_is_not_read(written, tmp_path, monkeypatch, damage):
    """A copy that others could have written, a broken one and a link are ignored."""
    calls = parsed_again(monkeypatch)
    cache = str(tmp_path / "cache")
    path = written("[agent.kata]\ndial_timeout = 5\n")
    load(path, cache_dir=cache)
    kept = f"{cache}/{os.listdir(cache)[0]}"
    if damage == "mode":
        os.chmod(kept, 0o644)
    elif damage == "link":
        os.rename(kept, f"{tmp_path}/elsewhere")
        os.symlink(f"{tmp_path}/elsewhere", kept)
    else:
        with open(kept, "w") as file:
            file.write("[" if damage == "text" else "[]")
    assert load(path, cache_dir=cache).agent.dial_timeout == 5
    assert len(calls) == 2


def test_a_file_just_written_is_not_kept(tmp_path):
    """A file that may still change within its time stamp is not cached."""
    path = tmp_path / "c.toml"
    path.write_text("")
    stamp = os.stat(path).st_mtime + 3600
    os.utime(path, (stamp, stamp))
    load(str(path), cache_dir=str(tmp_path / "cache"))
    assert not os.path.exists(tmp_path / "cache")


def test_no_place_for_the_copy_is_no_fault(written):
    """Where nothing can be kept, loading works all the same."""
    path = written("[agent.kata]\ndial_timeout = 5\n")
    assert load(path, cache_dir="/proc/none/cache").agent.dial_timeout == 5


def test_a_kept_file_needs_no_parser(written, tmp_path):
    """With a kept copy neither tomllib, re nor json is imported."""
    path, cache = written("[agent.kata]\ndial_timeout = 5\n"), str(tmp_path / "cache")
    load(path, cache_dir=cache)
    script = (
        f"import sys; sys.path.insert(0, {ROOT + '/src'!r}); from kata.config.load import load; "
        f"assert load({path!r}, cache_dir={cache!r}).agent.dial_timeout == 5; "
        "assert not {'re', 'json', 'tomllib', 'typing', 'enum'} & set(sys.modules)"
    )
    subprocess.run(["/usr/bin/python3", "-I", "-S", "-c", script], check=True)


def test_fingerprint_follows_the_table(monkeypatch):
    """A changed default changes the fingerprint."""
    before = fingerprint()
    assert before == fingerprint()
    monkeypatch.setattr(GROUPS["agent"].SETTINGS["dial_timeout"], "default", 46)
    assert fingerprint() != before


PREFIX = "io.katacontainers.config."


def test_annotations_change_what_is_listed():
    """Allowed annotations change settings; foreign ones are not looked at."""
    config = annotations.overridden(
        build({}),
        {
            PREFIX + "hypervisor.default_vcpus": "2",
            PREFIX + "agent.kernel_modules": "a; b",
            "io.kubernetes.cri.container-type": "sandbox",
        },
    )
    assert isinstance(config, Config)
    assert config.hypervisor.default_vcpus == 2
    assert config.agent.kernel_modules == ("a", "b")
    assert annotations.overridden(build({}), {}) == build({})


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("hypervisor.path", "/bin/sh", "not enabled"),
        ("hypervisor.machine_type", "q35", "not enabled"),
        ("runtime.state_root", "/x", "not enabled"),
        ("hypervisor.nonsense", "1", "not enabled"),
        ("hypervisor.default_vcpus", "1000", "must be from 1 to 240, not 1000"),
        ("hypervisor.default_vcpus", "two", 'must be an integer, not "two"'),
        ("hypervisor.kernel_params", "a\nb", "must be without line breaks"),
    ],
)
def test_annotations_are_refused(name, value, why):
    """What no one allowed, or has a bad value, is refused with the annotation's name."""
    with pytest.raises(InvalidConfig) as caught:
        annotations.overridden(build({}), {PREFIX + name: value})
    assert caught.value.what == f'annotation "{PREFIX}{name}"'
    assert caught.value.why.startswith(why)


def test_locate_searches_the_path(tmp_path, monkeypatch):
    """A program is found on the PATH first, and in the places given last."""
    for directory in ("a", "b"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "prog-of-a-test").touch(0o755)
    monkeypatch.setenv("PATH", f"relative:{tmp_path}/a")
    assert locate.program("prog-of-a-test", (f"{tmp_path}/b",)) == f"{tmp_path}/a/prog-of-a-test"
    monkeypatch.setenv("PATH", "")
    assert locate.program("prog-of-a-test", (f"{tmp_path}/b",)) == f"{tmp_path}/b/prog-of-a-test"
    assert locate.program("prog-of-a-test") == ""


def test_default_file_is_valid_for_tomllib():
    """The generated file is TOML for any reader, and its values have JSON forms."""
    assert json.dumps(tomllib.loads(render.toml()))


def test_every_setting_has_a_reader():
    """A setting that nothing reads would be one without effect."""
    sources = ""
    for directory, _, names in os.walk(f"{ROOT}/src/kata"):
        for name in names:
            if name.endswith(".py") and name != "settings.py":
                with open(f"{directory}/{name}", encoding="utf-8") as file:
                    sources += file.read()
    unread = [s.name for _, s in rows() if not re.search(rf"\.{s.name}\b", sources)]
    assert unread == []
