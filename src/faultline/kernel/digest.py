"""A fingerprint of file contents, without loading a cryptography library.

`import hashlib` loads OpenSSL, which costs a keeper 4 MiB; BLAKE2 (RFC 7693) is part of the
interpreter.
"""

from __future__ import annotations

try:
    from _blake2 import blake2b
except ImportError:  # an interpreter built without it
    from hashlib import blake2b

__all__ = ["blake2b"]
