"""SHA-256 by the interpreter's own C code: ``hashlib`` costs 5 ms of start time, and OpenSSL.

The one rule: ``sha256(data)`` is that of ``hashlib``, whichever module the interpreter has it in.
"""

from __future__ import annotations

try:
    from _sha256 import sha256
except ImportError:  # from Python 3.12 on
    from _sha2 import sha256

__all__ = ["sha256"]
