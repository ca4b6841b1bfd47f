"""Strict reading of what a request brings; every refusal is a 400 that names the field at fault."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from instar_node.api import types as t
from instar_node.api.routes import Param, Route
from instar_node.errors import InstarError, bad_input

B = TypeVar("B", bound=t.Body)

_HINTS = {"topic": "topics are 1–64 characters of A–Z a–z 0–9 . _ : -"}
_AT = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`\Z")
_FIELD = re.compile(r"(?:missing required|contains unknown) field `([^`]*)`")


def read_arguments(route: Route[Any], path: Mapping[str, str], query: Mapping[str, str]) -> dict[str, Any]:
    """Path and query parameters, converted and checked; an unknown query parameter is refused too."""
    known = {param.name for param in route.params if not param.in_path}
    for name in query:
        if name not in known:
            raise bad_input(name, "there is no such query parameter")
    return {param.name: _argument(param, path if param.in_path else query) for param in route.params}


def _argument(param: Param, source: Mapping[str, str]) -> Any:
    text = source.get(param.name)
    if text is None:
        if param.required:
            raise bad_input(param.name, "is missing", _HINTS.get(param.name, ""))
        return param.default
    return read_value(param.name, text, param.type)


def read_value(name: str, text: str, kind: Any) -> Any:
    """One parameter's text as ``kind``."""
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _refusal(error, name) from error


def read_body(kind: type[t.Body], raw: bytes) -> t.Body:
    """The JSON body as ``kind``; an empty body counts as ``{}``."""
    try:
        return msgspec.json.decode(raw or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise _refusal(error, "body") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_input("body", f"is not valid JSON ({error})") from error


def encode_body(body: t.Body) -> bytes:
    """A body as JSON. Text that is no Unicode (from a terminal in another encoding, say) is a 400."""
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError as error:
        texts = {name: getattr(body, name) for name in body.__struct_fields__}
        field = next((name for name, text in texts.items() if not _is_unicode(text)), "body")
        raise bad_input(field, "holds bytes that are not text", "send it as UTF-8") from error


def checked(body: B) -> B:
    """A body made in this process, held to what one that came over HTTP is held to."""
    read = read_body(type(body), encode_body(body))
    assert isinstance(read, type(body))
    return read


def _is_unicode(value: object) -> bool:
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def _refusal(error: msgspec.ValidationError, outermost: str) -> InstarError:
    """A message of msgspec as a 400: which field, and what is wrong with it."""
    text = str(error)
    place = _AT.search(text)
    said = text[: place.start()] if place else text
    path = place.group(1) if place else ""
    if named := _FIELD.search(said):
        field = f"{path}.{named.group(1)}".lstrip(".")
        said = "is missing" if "missing" in said else "there is no such field"
    else:
        field = path or outermost
    if "matching regex" in said:
        said = "has characters that are not allowed, or the wrong length"
    return bad_input(field, said.replace("`", ""), _HINTS.get(field, ""))
