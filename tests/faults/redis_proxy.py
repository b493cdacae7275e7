"""A Redis that answers as the test wants when a certain script is run: it stands between a mailer and a real one."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Self

from shared.mail_queue.layout import script_source

Fault = Callable[["Call"], Awaitable[None]]
"""What becomes of a call in place of the ordinary."""


class Call:
    """One command of a client, between it and the server."""

    def __init__(self, command: bytes, client: asyncio.StreamWriter, server: "Server") -> None:
        self._command = command
        self._client = client
        self._server = server

    async def answer(self, error: str) -> None:
        """In the server's place."""
        self._client.write(f"-{error}\r\n".encode())

    async def hang_up(self) -> None:
        """Before the server has got it."""
        self._client.close()

    async def fall_silent(self) -> None:
        """The server never gets it, and the line stays open until the client has had enough."""

    async def do_and_hang_up(self) -> None:
        """The server does it, and nobody hears of it."""
        await self.do_in_secret()
        self._client.close()

    async def do_in_secret(self) -> None:
        """The server does it, and its answer is kept back."""
        self._server.is_muted = True
        self._server.has_answered.clear()
        self._server.writer.write(self._command)
        await self._server.has_answered.wait()


class Server:
    """A connection to the real Redis, whose answers go to the client unless it is muted."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.is_muted = False
        self.has_answered = asyncio.Event()

    async def pass_on(self, client: asyncio.StreamWriter) -> None:
        """For as long as there is a connection."""
        with suppress(ConnectionError):
            while data := await self._reader.read(65536):
                self.has_answered.set()
                if not self.is_muted:
                    client.write(data)
        client.close()


class RedisProxy:
    """On a Unix socket of its own, in a thread of its own, as long as the block lasts."""

    def __init__(self, real: Path, folder: Path) -> None:
        self._real = real
        self._path = folder / "proxy.sock"
        self._faults: dict[bytes, list[Fault]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="redis proxy")
        self.url = f"unix://{self._path}"

    def fault(self, script: str, *faults: Fault) -> None:
        """The next calls of this script meet these faults, one each."""
        sha = hashlib.sha1(script_source(script).encode()).hexdigest()  # noqa: S324  # Redis's own name of a script
        self._faults.setdefault(sha.encode(), []).extend(faults)

    @property
    def is_through(self) -> bool:
        """Were all faults met?"""
        return not any(self._faults.values())

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener = await asyncio.start_unix_server(self._serve, self._path)

    async def _close(self) -> None:
        self._listener.close()
        me = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not me]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = await asyncio.open_unix_connection(str(self._real))
        server = Server(*connection)
        answers = asyncio.create_task(server.pass_on(writer))
        try:
            while not writer.is_closing():
                command, words = await _command(reader)
                faults = self._faults.get(words[1]) if words[0].upper() == b"EVALSHA" else None
                if faults:
                    await faults.pop(0)(Call(command, writer, server))
                else:
                    server.writer.write(command)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            answers.cancel()
            server.writer.close()
            writer.close()


async def _command(reader: asyncio.StreamReader) -> tuple[bytes, list[bytes]]:
    """One command as it came, and its words (RESP arrays of bulk strings)."""
    line = await reader.readuntil(b"\r\n")
    raw, words = [line], []
    for _ in range(int(line[1:])):
        header = await reader.readuntil(b"\r\n")
        body = await reader.readexactly(int(header[1:]) + 2)
        raw += [header, body]
        words.append(body[:-2])
    return b"".join(raw), words
