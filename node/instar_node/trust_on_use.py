"""The certificates this computer trusts are read at the first TLS handshake, not when aiohttp is imported.

aiohttp makes two TLS contexts at import, and each reads and parses every certificate of the system: a good
part of the start of a node that may never speak TLS. What is verified, and against what, does not change.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_READING = "set_default_verify_paths"


class _TrustOnUse(ssl.SSLContext):
    """A context that trusts nobody until its first handshake, which reads whom the system trusts."""

    _trusts = False

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        self._trust()
        return super().wrap_bio(*args, **kwargs)

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        self._trust()
        return super().wrap_socket(*args, **kwargs)

    def _trust(self) -> None:
        if not self._trusts:
            self.set_default_verify_paths()
            self._trusts = True


@contextmanager
def trust_on_use() -> Iterator[None]:
    """Import aiohttp in here: a context made meanwhile reads whom the system trusts when it is first used.

    That holds for a context that another thread makes meanwhile, too.
    """
    waiting: list[ssl.SSLContext] = []

    def wait(context: ssl.SSLContext) -> None:
        waiting.append(context)

    setattr(ssl.SSLContext, _READING, wait)
    try:
        yield
    finally:
        delattr(ssl.SSLContext, _READING)
        for context in waiting:
            context.__class__ = _TrustOnUse
