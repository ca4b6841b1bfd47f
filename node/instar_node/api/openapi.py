"""``GET /openapi.json``: the route table and the structs as an OpenAPI 3.1 document."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from instar_node import __version__
from instar_node.api import types as t
from instar_node.api.routes import HEALTH, ROUTES, Param, Route, Sequence
from instar_node.events import Event

_REF = "#/components/schemas/{name}"
_ERRORS = {
    400: "bad input; `field` names it",
    401: "no token, or a wrong one",
    403: "this machine may not",
    404: "no such thing",
    409: "refused, with the reason",
    413: "the body is too large",
    421: "foreign Host",
    429: "too often",
    500: "the node failed",
    502: "the machine that decides this cannot be reached",
    503: "not now",
    504: "no answer in time",
    507: "the disk is full",
}


@cache
def openapi_document() -> dict[str, Any]:
    """The whole document; made once a process."""
    types: list[Any] = [t.ErrorBody, Event]
    for route in ROUTES:
        types += [route.reply, *([route.body] if route.body else []), *(param.type for param in route.params)]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    schema_of = {repr(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.verb.lower()] = _operation(route, schema_of)
    paths["/events"] = {"get": _events()}
    paths["/metrics"] = {"get": _plain("metrics", "Prometheus text", "text/plain")}
    paths["/openapi.json"] = {"get": _plain("openapi", "This document", "application/json")}
    return {
        "openapi": "3.1.0",
        "info": {"title": "instar node", "version": __version__},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route[Any], schema_of: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.method,
        "summary": route.summary,
        "responses": _responses(schema_of[repr(route.reply)], route),
    }
    if route.params:
        operation["parameters"] = [_parameter(param, schema_of[repr(param.type)]) for param in route.params]
    if route.body is not None:
        required = any(field.required for field in msgspec.structs.fields(route.body))
        operation["requestBody"] = {
            "required": required,
            "content": {"application/json": {"schema": schema_of[repr(route.body)]}},
        }
    if route is HEALTH:
        operation["security"] = [{}, {"token": []}]
    return operation


def _responses(reply: dict[str, Any], route: Route[Any]) -> dict[str, Any]:
    error = {"$ref": _REF.format(name="ErrorBody")}
    answers = {str(code): _content(text, error) for code, text in _ERRORS.items()}
    if route.refused:
        answers["409"] = _content(_ERRORS[409], {"anyOf": [reply, error]})
    if route is HEALTH:
        reply = {"anyOf": [reply, {"type": "object", "required": ["status"]}]}
    return {"200": _content("done", reply), **answers}


def _content(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _parameter(param: Param, schema: dict[str, Any]) -> dict[str, Any]:
    if not param.required:
        schema = {**schema, "default": param.default}
    place = "path" if param.in_path else "query"
    return {"name": param.name, "in": place, "required": param.required, "schema": schema}


def _events() -> dict[str, Any]:
    operation = _plain("events", "Server-sent events; the data of each is an Event", "text/event-stream")
    schema = msgspec.json.schema(Sequence)
    operation["parameters"] = [
        {"name": "after", "in": "query", "required": False, "schema": schema},
        {"name": "Last-Event-ID", "in": "header", "required": False, "schema": schema},
    ]
    return operation


def _plain(name: str, summary: str, media: str) -> dict[str, Any]:
    error = {"$ref": _REF.format(name="ErrorBody")}
    return {
        "operationId": name,
        "summary": summary,
        "responses": {
            "200": {"description": "done", "content": {media: {}}},
            **{str(code): _content(text, error) for code, text in _ERRORS.items() if code in (400, 401, 421)},
        },
    }
