"""A terminal with a program in it, as a person has one: a pty of a size, keys in, and what stands on its screen.

It knows the few commands that the broker's programs use: colours, moving the cursor, erasing, the other screen. What
it does not know it refuses, so that a test never goes by a screen that nobody would see.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence

from attrs import define, field

_COMMAND = re.compile(rb"\x1b\[(\??)([0-9;]*)([A-Za-z])")


@define(eq=False)
class Terminal:
    """One program on one terminal. Whoever makes it calls `close`."""

    command: Sequence[str]
    columns: int = 100
    lines: int = 30
    environ: Mapping[str, str] = field(factory=dict)
    process: subprocess.Popen[bytes] = field(init=False)
    is_alternate: bool = field(init=False, default=False)
    _master: int = field(init=False)
    _slave: int = field(init=False)
    _rows: list[list[str]] = field(init=False)
    _at: list[int] = field(init=False, factory=lambda: [0, 0])
    _rest: bytes = field(init=False, default=b"")

    def __attrs_post_init__(self) -> None:
        self._master, self._slave = pty.openpty()
        self.resize(self.columns, self.lines)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
        self.process = subprocess.Popen(
            self.command,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env={**environ, "TERM": "xterm-256color", **self.environ},
            start_new_session=True,
        )

    def resize(self, columns: int, lines: int) -> None:
        self.columns, self.lines = columns, lines
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._rows = [[" "] * columns for _ in range(lines)]

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    @property
    def screen(self) -> list[str]:
        """The lines, as long as they are."""
        return ["".join(row).rstrip() for row in self._rows]

    @property
    def echoes(self) -> bool:
        """Whether the terminal shows what is typed and waits for whole lines, as it does for a shell."""
        mode = termios.tcgetattr(self._slave)[3]
        return bool(mode & termios.ECHO and mode & termios.ICANON)

    def wait(self, holds: Callable[[list[str]], object], seconds: float = 15.0) -> None:
        """Read until something is so of the screen."""
        deadline = time.monotonic() + seconds
        while not holds(self.screen):
            assert time.monotonic() < deadline, "\n".join(self.screen)
            self.read(0.1)

    def read(self, seconds: float) -> None:
        """Take what comes within so long."""
        ready, _, _ = select.select([self._master], [], [], seconds)
        if ready:
            try:
                self._take(os.read(self._master, 65536))
            except OSError:  # Linux: nobody has the other end open any more
                pass

    def wait_end(self, seconds: float = 10.0) -> int:
        """The program's status, once it has ended."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "\n".join(self.screen)
            self.read(0.05)
        self.read(0.05)
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
        os.close(self._slave)

    def _take(self, data: bytes) -> None:
        data, self._rest = self._rest + data, b""
        while data:
            if data[0] == 0x1B:
                found = _COMMAND.match(data)
                if found is None:
                    assert len(data) < 20, data[:20]
                    self._rest = data
                    return
                self._obey(found[1], [int(each or 0) for each in found[2].split(b";")], found[3])
                data = data[found.end() :]
                continue
            end = next((index for index, byte in enumerate(data) if byte < 0x20), len(data))
            self._write(data[:end].decode("utf-8", "replace"))
            data = data[end:]
            if data and data[0] != 0x1B:
                self._control(data[0])
                data = data[1:]

    def _write(self, text: str) -> None:
        for letter in text:
            row, column = self._at
            if column < self.columns:
                self._rows[row][column] = letter
            self._at[1] = column + 1

    def _control(self, byte: int) -> None:
        if byte == 0x0D:
            self._at[1] = 0
        elif byte == 0x0A:
            self._at[0] += 1
            if self._at[0] == self.lines:
                self._at[0] -= 1
                self._rows = [*self._rows[1:], [" "] * self.columns]
        else:
            raise AssertionError(f"control {byte:#x}")

    def _obey(self, private: bytes, numbers: list[int], final: bytes) -> None:
        if final == b"H":
            row, column = [*numbers, 1][:2]
            self._at = [max(row, 1) - 1, max(column, 1) - 1]
        elif final == b"J" and numbers[0] == 2:
            self._rows = [[" "] * self.columns for _ in range(self.lines)]
        elif final == b"K":
            row, column = self._at
            whole = numbers[0] == 2
            begin = 0 if whole else column
            self._rows[row][begin:] = [" "] * (self.columns - begin)
        elif final == b"A":
            self._at[0] = max(0, self._at[0] - max(1, numbers[0]))
        elif final in b"hl" and private:
            if numbers[0] == 1049:
                self.is_alternate = final == b"h"
                self._rows = [[" "] * self.columns for _ in range(self.lines)]
        elif final != b"m":
            raise AssertionError(f"command {final!r} {numbers}")
