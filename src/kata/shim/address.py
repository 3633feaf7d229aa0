"""Where a shim listens: one unix socket for a sandbox, found again by what names the sandbox.

The rule: the path follows from containerd's address, the namespace and the sandbox alone, so that
every ``start`` of a container of a pod comes to the same one.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket
from errno import EADDRINUSE

from kata.errors import AlreadyExists, HostError
from kata.wire.digest import sha256

DIRECTORY = "/run/containerd/s"
SCHEME = "unix://"


def socket_path(address: str, namespace: str, sandbox: str) -> str:
    """The path of a sandbox's socket."""
    text = f"{address}/{namespace}/{sandbox}"
    return f"{DIRECTORY}/{sha256(text.encode()).hexdigest()}"


def serves(path: str) -> bool:
    """Whether somebody listens there."""
    sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        sock.connect(path)
    except OSError:
        return False
    finally:
        sock.close()
    return True


def forget(path: str) -> None:
    """Remove a socket, if it is there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def listen(path: str) -> socket:
    """A listening socket; one that a dead shim left is replaced.

    Raises ``AlreadyExists`` if a shim serves it, ``HostError``.
    """
    sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        os.makedirs(os.path.dirname(path), mode=0o711, exist_ok=True)
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != EADDRINUSE:
                raise
            if serves(path):
                raise AlreadyExists(f'a shim serves "{path}" already') from None
            os.unlink(path)
            sock.bind(path)
        os.chmod(path, 0o600)
        sock.listen(128)
    except OSError as error:
        sock.close()
        raise HostError(f'cannot listen on "{path}"', why=error.strerror or "") from None
    except AlreadyExists:
        sock.close()
        raise
    return sock
