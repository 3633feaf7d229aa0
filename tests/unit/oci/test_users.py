"""USER[:GROUP] against passwd and group files, as Docker has it."""

import pytest

from kata.errors import InvalidInput
from kata.oci.users import User, resolve

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# comment: not a user

adm:x:42:43:adm:/var/adm:/bin/false
111:x:222:333::/var/garbage
odd:x:not:number::/
this is just some garbage data
adm:x:999:999::/second
nohome:x:7:7
"""
GROUP = """\
root:x:0:root
adm:x:43:
grp:x:1234:root,adm
444:x:555:111
odd:garbage
"""


@pytest.mark.parametrize(
    ("wanted", "user"),
    [
        ("", User(0, 0, (0, 1234), "/root", "root")),
        ("root", User(0, 0, (0, 1234), "/root", "root")),
        ("0", User(0, 0, (0, 1234), "/root", "root")),
        ("adm", User(42, 43, (1234,), "/var/adm", "adm")),
        ("root:adm", User(0, 43, (), "/root", "root")),
        ("adm:1234", User(42, 1234, (), "/var/adm", "adm")),
        ("42:1234", User(42, 1234, (), "/var/adm", "adm")),
        ("1337:1234", User(1337, 1234, (), "/", "")),
        ("1337", User(1337, 0, (), "/", "")),
        ("111", User(111, 0, (), "/", "")),
        ("111:444", User(111, 444, (), "/", "")),
        ("root:", User(0, 0, (0, 1234), "/root", "root")),
        (":grp", User(0, 1234, (), "/root", "root")),
        ("nohome", User(7, 7, (), "/", "nohome")),
    ],
)
def test_found(wanted, user):
    """Names and numbers resolve as Docker's own test cases have it."""
    assert resolve(wanted, PASSWD, GROUP) == user


def test_without_files():
    """Without files numbers stand for themselves, and the default is root."""
    assert resolve("", "", "") == User()
    assert resolve("1:2", "", "") == User(1, 2)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("foo", "unable to find user foo: no matching entries in passwd file"),
        ("odd", "unable to find user odd: no matching entries in passwd file"),
        ("notuser:adm", "unable to find user notuser: no matching entries in passwd file"),
        ("root:notgroup", "unable to find group notgroup: no matching entries in group file"),
        ("-1", "uids and gids must be in range 0-2147483647"),
        ("0:-5", "uids and gids must be in range 0-2147483647"),
        ("2147483648", "uids and gids must be in range"),
        ("9" * 30, "unable to find user"),
        ("1_0", "unable to find user 1_0"),
        ("\u0661", "unable to find user"),
    ],
)
def test_refused(wanted, message):
    """What is not found, or out of range, is refused in Docker's words."""
    with pytest.raises(InvalidInput) as caught:
        resolve(wanted, PASSWD, GROUP)
    assert message in str(caught.value)


def test_more_groups():
    """Groups added by name or number come once each; unknown names are refused."""
    user = resolve("adm", PASSWD, GROUP, extra=("root", "grp", "77"))
    assert user.groups == (1234, 0, 77)
    with pytest.raises(InvalidInput, match="unable to find group nope"):
        resolve("adm", PASSWD, GROUP, extra=("nope",))


def test_a_hostile_passwd_gives_no_root():
    """A user whose number is none is not there, rather than root."""
    with pytest.raises(InvalidInput):
        resolve("x", "x:x::0::/", "")
    assert resolve("x", "x:x:5:99999999999:::\nx:x:6:6::/h", "").uid == 6
    assert resolve("nobody", "nobody:x:4294967294:4294967294::/", "").uid == 4294967294
