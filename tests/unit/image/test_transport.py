"""What skopeo says about archives, in words about the archive."""

import pytest

from kata.image.reference import parse
from kata.image.transport import _failed

FATAL = 'time="2026-01-01T00:00:00Z" level=fatal msg="initializing source x:: {}"\n'


@pytest.mark.parametrize(
    ("name", "said", "why", "hint"),
    [
        ("oci-archive:/a.tar", 'untarring file \\"/var/tmp/oci529\\": unexpected EOF',
         "the archive is cut off or damaged: unexpected EOF", ""),
        ("docker-archive:/a.tar", "loading tar component manifest.json: invalid tar header",
         "the archive is cut off or damaged: invalid tar header", ""),
        ("docker-archive:/a.tar", "loading tar component manifest.json: file does not exist",
         'the archive has no "manifest.json"', "try oci-archive:/a.tar"),
        ("oci-archive:/a.tar", "open /var/tmp/oci69/index.json: no such file or directory",
         'the archive has no "index.json"', "try docker-archive:/a.tar"),
    ],
)  # fmt: skip
def test_bad_archives(name, said, why, hint):
    """Damage is called damage, and an archive of the other kind is one; no temporary name."""
    error = _failed(name, FATAL.format(said), parse(name))
    assert error.why.startswith(why)
    assert error.hint == hint
    assert "/var/tmp" not in str(error)
