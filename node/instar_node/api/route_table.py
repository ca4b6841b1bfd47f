"""Which handler a request is for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, NamedTuple, TypeVar
from urllib.parse import unquote

from instar_node.errors import InstarError

H = TypeVar("H")


class Found(NamedTuple, Generic[H]):
    """The handler, its name (the verb and path of the table, so the same whatever stands in for a
    ``{parameter}``), and what does stand there."""

    name: str
    handler: H
    parameters: Mapping[str, str]


class _Resource(Generic[H]):
    """One path of the table. A parameter stands for one whole segment of it."""

    def __init__(self, path: str) -> None:
        self.segments = _segments(path)
        self.by_verb: dict[str, tuple[str, H]] = {}

    @property
    def plain(self) -> bool:
        """Whether it has no parameter."""
        return not any(_is_parameter(segment) for segment in self.segments)

    def match(self, segments: tuple[str, ...]) -> dict[str, str] | None:
        """What stands for the parameters; ``None`` if this is another path."""
        if len(segments) != len(self.segments):
            return None
        parameters: dict[str, str] = {}
        for own, given in zip(self.segments, segments, strict=True):
            if _is_parameter(own) and given:
                parameters[own[1:-1]] = given
            elif own != given:
                return None
        return parameters


class RouteTable(Generic[H]):
    """Handlers by verb and path, such as ``/topics/{topic}/messages``."""

    def __init__(self) -> None:
        self._plain: dict[tuple[str, ...], _Resource[H]] = {}
        self._patterns: dict[tuple[str, ...], _Resource[H]] = {}

    def add(self, verb: str, path: str, handler: H) -> None:
        """Have ``handler`` answer to this verb on this path."""
        resource = _Resource[H](path)
        table = self._plain if resource.plain else self._patterns
        resource = table.setdefault(resource.segments, resource)
        resource.by_verb[verb] = (f"{verb} {path}", handler)

    def find(self, verb: str, path: str) -> Found[H]:
        """The handler for a path as it was sent, percent-encoded.

        Raises ``InstarError``: ``no-such-route``; ``no-such-method``, with the verbs there are in
        ``extra["allow"]``.
        """
        segments = _segments(path)
        if "%" in path:
            segments = tuple(map(unquote, segments))
        resource, parameters = self._resource(segments)
        if resource is None:
            raise InstarError(
                "no-such-route", f"there is no {path}", "GET /openapi.json lists all routes", status=404
            )
        if verb not in resource.by_verb:
            allow = ",".join(sorted(resource.by_verb))
            raise InstarError(
                "no-such-method", f"{path} does not take {verb}", status=405, extra={"allow": allow}
            )
        name, handler = resource.by_verb[verb]
        return Found(name, handler, parameters)

    def _resource(self, segments: tuple[str, ...]) -> tuple[_Resource[H] | None, Mapping[str, str]]:
        plain = self._plain.get(segments)
        if plain is not None:
            return plain, {}
        for pattern in self._patterns.values():
            parameters = pattern.match(segments)
            if parameters is not None:
                return pattern, parameters
        return None, {}


def _segments(path: str) -> tuple[str, ...]:
    return tuple(path.split("/"))


def _is_parameter(segment: str) -> bool:
    return segment.startswith("{")
