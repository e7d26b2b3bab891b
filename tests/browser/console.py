"""A person at the console: reads it, follows channels, and has it ask for its figures now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from playwright.sync_api import Page

# The payload of each row in view, of one channel, newest first.
_ROWS = """({channel, text}) => [...document.querySelectorAll("#tail-rows details:not([hidden])")]
    .filter((row) => row.querySelector(".channel").textContent === channel)
    .map((row) => row.querySelector(".payload").textContent)
    .filter((payload) => payload.includes(text))"""


@frozen
class Console:
    """The page, once it is open."""

    page: Page

    def text(self, selector: str) -> str:
        """What stands in the first such element."""
        return self.page.locator(selector).first.inner_text()

    def told(self, selector: str, *, but: str = "\0") -> str:
        """What stands there once something does that does not begin with `but`."""
        wait = "([s, but]) => [document.querySelector(s).textContent].some((text) => text && !text.startsWith(but))"
        self.page.wait_for_function(wait, arg=[selector, but], polling=20)
        return self.text(selector)

    def wait_text(self, selector: str, text: str) -> None:
        """Wait until that text is in it; every kind of space is one."""
        wait = "([s, text]) => document.querySelector(s).textContent.replace(/\\s/g, ' ').includes(text)"
        self.page.wait_for_function(wait, arg=[selector, text], polling=20)

    def look(self, condition: str) -> None:
        """Have it ask for its figures until `condition`, an expression in the page, holds."""
        self.page.wait_for_function(f"() => {{ dispatchEvent(new Event('online')); return {condition}; }}", polling=50)

    def look_at_lists(self, condition: str) -> None:
        """The same with the lists of channels and clients, which are asked for by a change of what is searched."""
        self.page.wait_for_function(
            "() => { for (const id of ['channels-limit', 'clients-by'])"
            " document.getElementById(id).dispatchEvent(new Event('change'));"
            f" return {condition}; }}",
            polling=300,
        )

    def follow(self, channel: str) -> None:
        """Type a channel and press Follow. The daemon has not yet heard of it."""
        self.page.fill("#tail-channel", channel)
        self.page.press("#tail-channel", "Enter")

    def rows(self, *, channel: str, text: str = "") -> list[str]:
        """What the tail shows of a channel, newest first."""
        found: list[str] = self.page.evaluate(_ROWS, {"channel": channel, "text": text})
        return found

    def wait_rows(self, *, channel: str, text: str = "") -> list[str]:
        """The same, once there is something."""
        self.page.wait_for_function(
            f"(asked) => ({_ROWS})(asked).length > 0", arg={"channel": channel, "text": text}, polling=20
        )
        return self.rows(channel=channel, text=text)

    def column(self, table: str, number: int) -> list[str]:
        """A column of a table, from 0."""
        return self.page.locator(f"{table} tbody td:nth-child({number + 1})").all_inner_texts()
