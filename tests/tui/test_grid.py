"""The table: cursor, order and filter over rows that change beneath it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from textual.app import App, ComposeResult
from textual.message import Message
from textual.strip import Strip

from instar_tui.theme import DARK
from instar_tui.widgets.grid import Grid
from instar_tui.widgets.grid_lines import Column


@dataclass
class Fruit:
    name: str
    weight: int


COLUMNS: list[Column[Fruit]] = [
    Column("name", 8, lambda f: f.name, lambda f: f.name),
    Column("weight", 6, lambda f: str(f.weight), lambda f: f.weight, right=True),
    Column("remark", 10, lambda f: ("juicy", "$muted"), flex=1, wide=60),
]
FRUIT = [Fruit("pear", 3), Fruit("apple", 20), Fruit("quince", 7)]


class Orchard(App[None]):
    """A table alone."""

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return DARK.variables

    def compose(self) -> ComposeResult:
        yield Grid(COLUMNS, lambda f: f.name)

    def on_mount(self) -> None:
        self.grid.set_rows(FRUIT)
        self.grid.focus()

    @property
    def grid(self) -> Grid[Fruit]:
        return self.query_one(Grid)

    def line(self, y: int) -> str:
        return self.grid.render_lines(self.grid.size.region)[y].text


def names(app: Orchard) -> list[str]:
    return [row.name for row in app.grid.rows]


async def test_the_cursor_stays_on_its_row_when_rows_come_above_it() -> None:
    app = Orchard()
    async with app.run_test(size=(40, 10)) as pilot:
        await pilot.press("j")
        assert app.grid.selected == FRUIT[1]
        app.grid.set_rows([Fruit("fig", 1), *FRUIT])
        assert app.grid.selected == FRUIT[1]
        assert app.line(3).startswith("▌ apple")


async def test_vim_keys_reach_both_ends() -> None:
    app = Orchard()
    async with app.run_test(size=(40, 10)) as pilot:
        await pilot.press("G")
        assert app.grid.selected == FRUIT[2]
        await pilot.press("k", "g")
        assert app.grid.selected == FRUIT[0]


async def test_sorting_goes_through_the_columns_and_back() -> None:
    app = Orchard()
    async with app.run_test(size=(40, 10)):
        seen = []
        for _ in range(3):
            app.grid.sort_next()
            seen.append(names(app))
        assert seen == [["apple", "pear", "quince"], ["pear", "quince", "apple"], ["pear", "apple", "quince"]]
        app.grid.sort_next()
        app.grid.sort_reverse()
        assert names(app) == ["quince", "pear", "apple"]


@pytest.mark.parametrize(
    ("typed", "left"), [("pe", ["pear"]), ("!pe", ["apple", "quince"]), ("e p", ["pear", "apple"])]
)
async def test_the_filter_takes_words_and_an_inverse(typed: str, left: list[str]) -> None:
    app = Orchard()
    async with app.run_test(size=(40, 10)) as pilot:
        app.grid.start_filter()
        await pilot.press(*typed.replace(" ", "␣").replace("␣", " "))
        assert names(app) == left
        await pilot.press("enter", "j")
        assert names(app) == left
        await pilot.press("escape")  # also after enter
        assert len(names(app)) == 3
        assert "name" in app.line(0)


async def test_a_column_that_needs_width_is_left_out_of_a_narrow_table() -> None:
    app = Orchard()
    async with app.run_test(size=(40, 10)) as pilot:
        assert "remark" not in app.line(0)
        await pilot.resize_terminal(80, 10)
        await pilot.pause()
        assert "remark" in app.line(0)
        assert "juicy" in app.line(1)


async def test_the_cursor_stays_in_sight_when_the_table_shrinks() -> None:
    app = Orchard()
    async with app.run_test(size=(40, 10)) as pilot:
        app.grid.action_edge(1)
        await pilot.resize_terminal(40, 3)
        await pilot.pause()
        assert "quince" in app.line(2)


async def test_a_click_moves_the_cursor_and_a_double_click_chooses_the_row() -> None:
    told: dict[int, Message] = {}  # a message is seen again by everyone above who it is for

    def hook(message: Message) -> None:
        if isinstance(message, Grid.Moved | Grid.Chosen):
            told[id(message)] = message

    app = Orchard()
    async with app.run_test(size=(40, 10), message_hook=hook) as pilot:
        await pilot.click(Grid, offset=(2, 2))
        assert [type(message) for message in told.values()] == [Grid.Moved]
        told.clear()
        await pilot.click(Grid, offset=(2, 3), times=2)
        chosen = [message.key for message in told.values() if isinstance(message, Grid.Chosen)]
        assert chosen == ["quince"]


async def test_only_the_lines_in_sight_are_drawn() -> None:
    drawn: list[str] = []

    def cell(fruit: Fruit) -> str:
        drawn.append(fruit.name)
        return fruit.name

    class Large(Orchard):
        def compose(self) -> ComposeResult:
            yield Grid([Column("name", 8, cell)], lambda f: f.name)

        def on_mount(self) -> None:
            self.grid.set_rows([Fruit(f"f{i}", i) for i in range(5_000)])

    app = Large()
    async with app.run_test(size=(40, 10)):
        assert 0 < len(set(drawn)) <= 10


class Watched(Grid[Fruit]):
    """Notes which lines are painted."""

    def __init__(self) -> None:
        super().__init__(COLUMNS, lambda f: f.name)
        self.painted: list[int] = []

    def render_line(self, y: int) -> Strip:
        self.painted.append(y)
        return super().render_line(y)


class WatchedOrchard(Orchard):
    def compose(self) -> ComposeResult:
        yield Watched()


async def test_a_step_paints_the_line_left_and_the_line_reached() -> None:
    app = WatchedOrchard()
    async with app.run_test(size=(40, 10)) as pilot:
        watched = app.query_one(Watched)
        await pilot.pause()
        watched.painted.clear()
        await pilot.press("j")
        assert sorted(set(watched.painted)) == [1, 2]


async def test_new_rows_paint_the_lines_that_look_otherwise() -> None:
    app = WatchedOrchard()
    async with app.run_test(size=(40, 10)) as pilot:
        watched = app.query_one(Watched)
        await pilot.pause()
        watched.painted.clear()
        watched.set_rows([Fruit(fruit.name, fruit.weight) for fruit in FRUIT])
        await pilot.pause()
        assert watched.painted == []
        watched.set_rows([FRUIT[0], Fruit("apple", 21), FRUIT[2]])
        await pilot.pause()
        assert set(watched.painted) == {2}
        assert "21" in app.line(2)


async def test_another_theme_colours_all_lines_anew() -> None:
    app = Orchard()
    async with app.run_test(size=(40, 10)) as pilot:
        await pilot.pause()
        before = app.grid.render_lines(app.grid.size.region)
        app.theme = "textual-light"
        await pilot.pause()
        after = app.grid.render_lines(app.grid.size.region)
        assert all(one != other for one, other in zip(before[:4], after[:4], strict=True))
