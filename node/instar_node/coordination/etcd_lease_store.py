"""The lease register in etcd, through the JSON gateway of its v3 API (https://etcd.io/docs/v3.4/dev-guide/)."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from instar_node.coordination.cell_lease_store import CellLeaseStore
from instar_node.coordination.cells import version_of
from instar_node.coordination.hub import Hub
from instar_node.coordination.lease_store import RefusedSwap, StoreUnavailable

if TYPE_CHECKING:
    import aiohttp

CALL_S = 5.0
"""How long one exchange may take."""

R = TypeVar("R")


class KeyValue(msgspec.Struct, frozen=True):
    """One key of a reply; the gateway writes 64-bit numbers as strings, bytes as base64."""

    mod_revision: str = "0"
    value: bytes = b""


class RangeReply(msgspec.Struct, frozen=True):
    kvs: tuple[KeyValue, ...] = ()


class TxnReply(msgspec.Struct, frozen=True):
    succeeded: bool = False


class TokenReply(msgspec.Struct, frozen=True):
    token: str = ""


class ErrorReply(msgspec.Struct, frozen=True):
    error: str = ""
    message: str = ""


class EtcdCells:
    """Cells as keys of etcd: ``<prefix>/<name>``.

    A swap reads the key, compares its value, and writes in a transaction that succeeds only while the key's
    ``mod_revision`` is the one that was read (0: the key does not exist).
    """

    def __init__(self, hub: Hub, within: float = CALL_S) -> None:
        parts = urlsplit(hub.url)
        scheme = "https" if parts.scheme == "etcds" else "http"
        self._base = f"{scheme}://{parts.netloc.rpartition('@')[2]}/v3"
        self._prefix = parts.path.strip("/") or "instar"
        self._user = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        self._shown = hub.shown
        self._within = within
        self._session: aiohttp.ClientSession | None = None
        self._token = ""

    async def read(self, name: str) -> bytes | None:
        """As ``Cells.read``; linearizable."""
        found = await self._find(name)
        return None if found is None else found.value

    async def swap(self, name: str, expected: str | None, value: bytes | None) -> None:
        """As ``Cells.swap``."""
        present = await self._find(name)
        version = None if present is None else version_of(present.value)
        if version != expected:
            raise RefusedSwap(f"the key holds {version or 'nothing'}")
        key = self._key(name)
        revision = "0" if present is None else present.mod_revision
        change: dict[str, Any] = {"request_delete_range": {"key": key}}
        if value is not None:
            change = {"request_put": {"key": key, "value": _base64(value)}}
        unchanged = {"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": revision}
        reply = await self._call("kv/txn", {"compare": [unchanged], "success": [change]}, TxnReply)
        if not reply.succeeded:
            raise RefusedSwap("the key was changed at the same moment")

    async def close(self) -> None:
        """End the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _find(self, name: str) -> KeyValue | None:
        reply = await self._call("kv/range", {"key": self._key(name)}, RangeReply)
        return reply.kvs[0] if reply.kvs else None

    def _key(self, name: str) -> str:
        return _base64(f"{self._prefix}/{name}".encode())

    async def _call(self, path: str, body: dict[str, Any], reply: type[R]) -> R:
        """One exchange, logged in where the URL names a user. Raises ``StoreUnavailable``."""
        if self._user is not None and not self._token:
            name, password = self._user
            login = await self._post("auth/authenticate", {"name": name, "password": password}, TokenReply)
            self._token = login.token
        return await self._post(path, body, reply)

    async def _post(self, path: str, body: dict[str, Any], reply: type[R]) -> R:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._within))
        headers = {"Authorization": self._token} if self._token else {}
        try:
            async with self._session.post(
                f"{self._base}/{path}", data=msgspec.json.encode(body), headers=headers
            ) as answer:
                status, raw = answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError) as error:
            why = str(error) or f"no answer within {self._within:g} s"
            raise StoreUnavailable(f"{self._shown} cannot be reached: {why}") from error
        if status != 200:
            raise self._refused(status, raw)
        try:
            return msgspec.json.decode(raw, type=reply)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise StoreUnavailable(f"{self._shown} is not an etcd: {error}", "hub-not-etcd") from error

    def _refused(self, status: int, raw: bytes) -> StoreUnavailable:
        self._token = ""  # it may have expired; the next call logs in anew
        try:
            said = msgspec.json.decode(raw, type=ErrorReply)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return StoreUnavailable(f"{self._shown} is not an etcd: HTTP {status}", "hub-not-etcd")
        why = said.message or said.error
        if "permission denied" in why:
            return StoreUnavailable(f"{self._shown} does not let this user write: {why}", "hub-read-only")
        if any(sign in why for sign in ("authentication failed", "invalid auth token", "user name is empty")):
            message = f"{self._shown} wants other credentials ({why}): etcd://USER:PASSWORD@HOST:PORT"
            return StoreUnavailable(message, "hub-credentials")
        return StoreUnavailable(f"{self._shown} refuses: {why}")


class EtcdLeaseStore(CellLeaseStore):
    """``LeaseStore`` on an etcd (``etcd://host:port[/prefix]``, ``etcds://`` for TLS)."""

    def __init__(self, hub: Hub, *, within: float = CALL_S) -> None:
        super().__init__(EtcdCells(hub, within), hub.shown)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
