"""aiosmtplib as most would use it: a bounded set of kept connections, for the contenders that send concurrently."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiosmtplib import SMTP

from benchmarks.sample import SENDER, content
from shared.mail import Mail
from shared.memory import RequestFacts


class KeptConnections:
    """At most so many connections to the relay that the environment names; each is made when it is first needed."""

    def __init__(self, most: int) -> None:
        self._free: asyncio.LifoQueue[SMTP | None] = asyncio.LifoQueue()
        for _ in range(most):
            self._free.put_nowait(None)

    async def send(self, mail: Mail, facts: RequestFacts) -> None:
        """Render it and hand it over. Raises what aiosmtplib raises."""
        async with self._connection() as relay:
            await relay.sendmail(SENDER, [mail.recipient.address], content(mail, facts))

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[SMTP]:
        relay = await self._free.get() or await _connect()
        try:
            yield relay
        finally:
            self._free.put_nowait(relay)


async def _connect() -> SMTP:
    ca_file = os.environ.get("BENCHMARK_RELAY_CA")
    relay = SMTP(
        hostname=os.environ["BENCHMARK_RELAY_HOST"],
        port=int(os.environ["BENCHMARK_RELAY_PORT"]),
        start_tls=bool(ca_file),
        tls_context=ssl.create_default_context(cafile=ca_file) if ca_file else None,
        username="access-mail" if ca_file else None,
        password="secret" if ca_file else None,
    )
    await relay.connect()
    return relay
