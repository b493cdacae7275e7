"""aiosmtplib without any queue: what remains of the work when nothing is to be kept, ordered, or tried again."""

import asyncio

import click
import uvloop

from benchmarks.kept_connections import KeptConnections
from benchmarks.sample import facts, mails, request_ids


async def send_all(mails_in_all: int, connections: int) -> None:
    """Send them over so many connections at once."""
    relay = KeptConnections(connections)
    work = ((mail, known) for one in request_ids(mails_in_all) for known in [facts(one)] for mail in mails(one))

    async def sender() -> None:
        for mail, known in work:
            await relay.send(mail, known)

    await asyncio.gather(*(sender() for _ in range(connections)))
    await asyncio.Event().wait()  # to be measured while it still lives


@click.command(help=__doc__)
@click.option("--mails", "mails_in_all", type=int, required=True)
@click.option("--connections", type=int, required=True)
def main(mails_in_all: int, connections: int) -> None:
    """Run until the process is ended."""
    uvloop.run(send_all(mails_in_all, connections))


if __name__ == "__main__":
    main()
