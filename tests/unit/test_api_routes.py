"""The route table and the three implementations agree with ``NodeApi``, method by method."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import pytest

from instar_node.api.blocking_client import BlockingNodeApi
from instar_node.api.bridge import BridgedNodeApi
from instar_node.api.http_client import HttpNodeApi
from instar_node.api.protocol import NodeApi
from instar_node.api.routes import MESSAGES, OUTBOX_RESOLVE, ROUTES, Route

METHODS = {name for name in vars(NodeApi) if not name.startswith("_")}


def test_every_method_has_exactly_one_route() -> None:
    assert sorted(route.method for route in ROUTES) == sorted(METHODS - {"events"})
    assert len({(route.verb, route.path) for route in ROUTES}) == len(ROUTES)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.method)
def test_a_route_takes_and_gives_what_its_method_does(route: Route[Any]) -> None:
    method = getattr(NodeApi, route.method)
    expected = [name for name in inspect.signature(method).parameters if name != "self"]
    given = [param.name for param in route.params] + (["body"] if route.body else [])
    assert given == expected
    hints = get_type_hints(method)
    assert route.reply is hints["return"]
    assert route.body is hints.get("body")
    assert {param.name for param in route.params if param.in_path} == {
        part[1:-1] for part in route.path.split("/") if part.startswith("{")
    }


@pytest.mark.parametrize("implementation", [HttpNodeApi, BridgedNodeApi])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_implementations_have_the_signatures_of_the_protocol(implementation: type, name: str) -> None:
    assert inspect.signature(getattr(implementation, name)) == inspect.signature(getattr(NodeApi, name))


@pytest.mark.parametrize("name", sorted(METHODS - {"events"}))
def test_the_blocking_client_has_the_same_methods(name: str) -> None:
    assert inspect.signature(getattr(BlockingNodeApi, name)) == inspect.signature(getattr(NodeApi, name))


def test_what_stands_in_a_path_is_quoted() -> None:
    assert OUTBOX_RESOLVE.url({"item": "a/b c?"}) == "/outbox/a%2Fb%20c%3F"
    assert MESSAGES.url({"topic": "a:b", "after": 3, "limit": 7}) == "/topics/a%3Ab/messages?after=3&limit=7"
