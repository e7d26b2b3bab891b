"""The screen of `broker top`: a view and a sample as lines. Fits itself to the room it is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from broker.cli import channels, clients
from broker.cli.sample import Rates, Sample
from broker.cli.sheet import NOTHING, Column, ago, cell, count, duration, inside, make_table, short, size, text_of
from broker.cli.view import CHANNELS, CLIENTS, NODES, SLOW_ROWS, View, slow_of

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.text import Text

NODE_COLUMNS = (
    Column("Node"),
    Column("State"),
    Column("Clients", is_number=True),
    Column("Channels", is_number=True, least=50),
    Column("Version", least=60),
    Column("Started", is_number=True, least=70),
    Column("Figures", least=80),
)
HEAD_ROWS = 9
PROBLEM, GOOD, DIM = "bold red", "green", "dim"


@frozen
class Shown:
    """What there is to show.

    Args:
        problem: why there is nothing newer than `sample`; None while there is.
        version: the daemon's; `note` where it is another than this program's.
    """

    url: str
    version: str
    note: str | None
    sample: Sample
    rates: Rates
    problem: str | None = None


def rows_for(height: int) -> int:
    """How many lines of a list fit."""
    return max(3, height - HEAD_ROWS - 1)


def frame(view: View, shown: Shown, width: int, height: int | None) -> Group:
    """The whole screen.

    Args:
        height: in lines; None for as many as there are, in a pipe.
    """
    from rich.console import Group

    lines: list[RenderableType] = [*_head(view, shown, width), cell("")]
    left = None if height is None else rows_for(height)
    lines += _lists(view, shown, width, left)
    return Group(*lines)


def _head(view: View, shown: Shown, width: int) -> Iterator[Text]:
    stats, rate = shown.sample.stats, shown.rates
    yield _line(
        (f"broker top  {shown.url}  {shown.version}  ", "bold"),
        (text_of(stats.get("status")), GOOD if stats.get("status") == "healthy" else PROBLEM),
        (f"  {text_of(stats.get('timestamp'))[11:19]}", DIM),
        ("  PAUSED" if view.is_paused else "", PROBLEM),
    )
    yield _line((shown.problem or shown.note or shown.sample.problem or "", PROBLEM))
    yield _named(
        "Rates",
        f"{_rate(rate, 'messages')} messages  {_rate(rate, 'deliveries')} deliveries  {_bytes_rate(rate)}"
        f"  {_rate(rate, 'connects')} connects  {_rate(rate, 'refused')} refused",
    )
    yield _named(
        "Clients",
        f"{_at(stats, 'websocket', 'totalConnections')} WebSocket  {_at(stats, 'sse', 'totalConnections')} SSE"
        f"  {_at(stats, 'connections', 'open')} of {_at(stats, 'connections', 'max')} connections",
    )
    slow = inside(stats, "delivery", "slow", "now")
    yield _named(
        "Slow",
        f"{count(slow)} now  {_rate(rate, 'fellBehind')} fall behind  {_rate(rate, 'dropped')} dropped"
        f"  {_rate(rate, 'gaps')} gaps  {size(inside(stats, 'outboxes', 'queuedBytes'))}"
        f" of {size(inside(stats, 'outboxes', 'maxBytes'))} queued",
        "yellow" if isinstance(slow, int) and slow else "",
    )
    yield _redis(stats)
    yield _named(
        "Loop lag",
        f"{duration(inside(stats, 'loop', 'lagSeconds'))}  worst {duration(inside(stats, 'loop', 'lagMaxSeconds'))}",
    )
    silent = [each for each in shown.sample.nodes if each.get("answered") is False]
    known = shown.sample.nodes
    yield _named(
        "Nodes",
        (f"{len(known)}" if known else NOTHING)
        + (
            f", {len(silent)} did not answer: {', '.join(text_of(each.get('id')) for each in silent)}" if silent else ""
        ),
        PROBLEM if silent else "",
    )
    yield _prompt(view)


def _prompt(view: View) -> Text:
    if view.typed is not None:
        kinds = {CHANNELS: "the beginning of channels' names", CLIENTS: "a user, or a channel"}
        return _line((f"Filter, {kinds[view.kind]}: {view.typed}", "reverse"), ("_", "blink"))
    keys = "h channels  c clients  n nodes  s sort  / filter  p pause  q quit"
    chosen = f"{view.kind}, by {view.sorts[view.kind]}"
    if view.filters[view.kind]:
        chosen += f", only {view.filters[view.kind]}"
    return _line((f"[{chosen}]  ", "bold"), (keys, DIM))


def _lists(view: View, shown: Shown, width: int, left: int | None) -> Iterator[RenderableType]:
    sample = shown.sample
    if view.kind == NODES:
        yield make_table(NODE_COLUMNS, [_node_row(each) for each in sample.nodes[:left]], width)
        return
    if view.kind == CLIENTS:
        title = clients.TITLE_OF_SORT[view.sorts[CLIENTS]]
        listed = (sample.clients or ())[:left]
        yield make_table(clients.COLUMNS, map(clients.row, listed), width, sorted_by=title)
        return
    slow = slow_of(sample.clients)[:SLOW_ROWS]
    if left is not None:
        left = max(3, left - (len(slow) + 2 if slow else 0))
    title = channels.TITLE_OF_SORT[view.sorts[CHANNELS]]
    yield make_table(channels.COLUMNS, map(channels.row, (sample.channels or ())[:left]), width, sorted_by=title)
    if slow:
        yield cell("")
        yield make_table(clients.COLUMNS, map(clients.row, slow), width, sorted_by="Queued")


def _node_row(node: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        text_of(node.get("id")),
        text_of(node.get("state")),
        count(node.get("clients")),
        count(node.get("channels")),
        text_of(node.get("version")),
        f"{ago(node.get('startedAt'))} ago",
        f"none: {text_of(node.get('why'))}" if node.get("answered") is False else "here",
    )


def _redis(stats: Mapping[str, Any]) -> Text:
    away = inside(stats, "redis", "awaySince")
    if inside(stats, "channels", "isConnected") is False:
        return _named("Redis", f"AWAY for {ago(away)}: new events do not come", PROBLEM)
    return _named(
        "Redis",
        f"connected  {_at(stats, 'channels', 'activeChannels')} channels"
        f"  {_at(stats, 'channels', 'totalSubscriptions')} subscriptions  {_at(stats, 'redis', 'outages')} outages",
    )


def _named(name: str, text: str, style: str = "") -> Text:
    return _line((f"{name:<9} ", "bold"), (text, style))


def _line(*parts: tuple[str, str]) -> Text:
    line = cell("")
    for text, style in parts:
        line.append_text(cell(text, style))
    return line


def _at(stats: Mapping[str, Any], *path: str) -> str:
    return count(inside(stats, *path))


def _rate(rate: Rates, name: str) -> str:
    found = rate.get(name)
    return f"{NOTHING if found is None else short(round(found, 1))}/s"


def _bytes_rate(rate: Rates) -> str:
    return f"{size(rate.get('bytes'))}/s"
