"""What holds for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("shared computer", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared computer")
"""Examples show what is true, not how fast this computer is just now."""

REAL_PROCESSES = {Path(__file__).parent / "cluster", Path(__file__).parent / "chaos"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--long``: what is heavy runs in full."""
    parser.addoption("--long", action="store_true", help="run the heavy tests in full")


@pytest.fixture
def long_run(request: pytest.FixtureRequest) -> bool:
    """Whether ``--long`` was given."""
    return bool(request.config.getoption("--long"))


LONG_RUN_S = 7_200
"""What a test may take that runs in full."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that start real nodes look at clocks: one at a time, whatever else runs beside."""
    for item in items:
        if config.getoption("--long"):
            item.add_marker(pytest.mark.timeout(LONG_RUN_S))
        if REAL_PROCESSES.intersection(item.path.parents):
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.xdist_group("cluster"))


@pytest.fixture(autouse=True)
def _no_home_of_the_person(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test may ever touch the home of the person who runs the tests."""
    monkeypatch.setenv("INSTAR_HOME", str(tmp_path_factory.getbasetemp() / "no-home-given"))


@pytest.fixture(autouse=True, scope="session")
def _compiled_code_is_kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Programs that tests start find their code compiled, also where the environment says that none is kept:
    that is half of a node's start."""
    ours = tmp_path_factory.getbasetemp()
    common = ours.parent if "PYTEST_XDIST_WORKER" in os.environ else ours
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONDONTWRITEBYTECODE", "")
        patch.setenv("PYTHONPYCACHEPREFIX", str(common / "compiled"))
        yield
