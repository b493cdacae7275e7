"""A relay that says what a script tells it, each connection by a script of its own: for what no honest relay does."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self

Script = Callable[["Line"], Awaitable[None]]
"""What happens on one connection; when it ends, so does the connection."""

LARGE = 65_536

OPENED = ("250 sender fine", "250 recipient fine", "354 go on")


class Line:
    """One connection as the relay's end sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def greet(self, *extensions: str) -> None:
        """Up to the answer to EHLO, which announces these."""
        self.say("220 relay.test")
        await self.hear()
        *first, last = ("relay.test", *extensions)
        self.say(*(f"250-{line}" for line in first), f"250 {last}")

    def say(self, *lines: str) -> None:
        """Send these lines, all at once."""
        self._writer.write("".join(f"{line}\r\n" for line in lines).encode())

    async def dribble(self, *lines: str) -> None:
        """Send these lines, each character in a segment of its own."""
        for character in "".join(f"{line}\r\n" for line in lines):
            self._writer.write(character.encode())
            await self._writer.drain()
            await asyncio.sleep(0)

    async def hear(self) -> str:
        """The next command, in capitals."""
        return (await self._reader.readuntil(b"\r\n")).decode().strip().upper()

    async def hear_group(self) -> list[str]:
        """MAIL, RCPT and DATA, before any of them is answered; what they name."""
        mail, rcpt, data = [await self.hear() for _ in range(3)]
        assert (mail[:10], rcpt[:8], data) == ("MAIL FROM:", "RCPT TO:", "DATA")
        return [mail, rcpt]

    async def content(self) -> bytes:
        """What follows DATA, with the end that it has."""
        return await self._reader.readuntil(b"\r\n.\r\n")

    def forget_what_has_come(self) -> None:
        """As a relay does that reads a command and throws away the rest of the segment."""
        self._reader._buffer.clear()  # type: ignore[attr-defined]  # there is no public way

    @property
    def has_more(self) -> bool:
        """Has more come than was heard?"""
        return bool(self._reader._buffer)  # type: ignore[attr-defined]  # there is no public way

    async def until_left(self) -> bytes:
        """What comes until the other end leaves, with its QUIT; nothing where it goes without having read all."""
        heard = b""
        try:
            while not heard.endswith(b"QUIT\r\n") and (data := await self._reader.read(LARGE)):
                heard += data
        except ConnectionResetError:
            return b""
        return heard

    async def dawdle(self, seconds: float) -> None:
        """Let the other end wait."""
        await asyncio.sleep(seconds)


class ScriptedRelay:
    """Listens at localhost. A script that fails, or that is not begun, fails the test at the end."""

    def __init__(self, *scripts: Script) -> None:
        self.port = 0
        self._scripts = list(scripts)
        self._running: list[asyncio.Task[None]] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "localhost", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        assert self._server is not None, "it was entered"
        self._server.close()
        async with asyncio.timeout(5):
            await asyncio.gather(*self._running)
        assert not self._scripts, "a script was not begun"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio runs it as one"
        self._running.append(task)
        try:
            await self._scripts.pop(0)(Line(reader, writer))
        finally:
            writer.close()


async def takes_one(line: Line) -> None:
    """An honest relay, for one mail."""
    await line.greet("PIPELINING")
    await line.hear_group()
    line.say(*OPENED)
    await line.content()
    line.say("250 taken")
    await line.until_left()
