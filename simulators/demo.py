"""`make demo`: the whole pipeline on this machine, and a story that it tells by mail."""

import asyncio
import signal
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import click

from simulators.inbox import Inbox
from simulators.received import ReceivedMail
from simulators.story import Expected, story
from simulators.world import Places, World, product, world

ROLES = {"*": ["security@example.com"], "production-editor": ["ann@example.com"]}


@click.command()
@click.option("--once", is_flag=True, help="Play the story, check every mail, and end.")
def main(once: bool) -> None:  # noqa: FBT001  # click passes its flag so
    """Start Teleport (simulated), Access Mail and a mailbox, and tell a story of three requests."""
    with tempfile.TemporaryDirectory(prefix="access-mail-demo-") as directory:
        sys.exit(asyncio.run(demo(Path(directory), once=once)))


async def demo(directory: Path, *, once: bool) -> int:
    """The exit code: 0 if every mail of the story came."""
    config = directory / "teleport-email.toml"
    async with world(directory) as outside:
        config.write_text(outside.configuration(ROLES))
        click.echo("Starting Access Mail between a simulated Teleport cluster and a mailbox ...")
        async with product(config, directory / "data", directory / "log") as running:
            places = await running.ready()
            with Inbox(outside.mailbox) as inbox:
                click.echo(f"Ready.\n\n  inbox    {inbox.url}\n")
                expected = await story(outside.auth, partial(told, outside))
                arrived = notices(outside.mailbox.mails) == expected
                click.echo(summary(outside, expected))
                if not once:
                    click.echo(where_to_look(inbox.url, places, config, running.log))
                    await until_interrupted()
    return 0 if arrived else 1


async def told(outside: World, request_id: str) -> Mapping[str, list[str]]:
    """Who has been told what of this request."""
    arrived = notices(outside.mailbox.mails)
    return {address: told for (request, address), told in arrived.items() if request == request_id}


def notices(mails: list[ReceivedMail]) -> dict[tuple[str, str], list[str]]:
    """(request id, address) → its notices in the order of arrival."""
    found: dict[tuple[str, str], list[str]] = {}
    for mail in mails:
        key = (mail.message["X-Access-Mail-Request"], mail.recipient)
        found.setdefault(key, []).append(mail.message["X-Access-Mail-Notice"])
    return found


def summary(outside: World, expected: Expected) -> str:
    """A table of what came."""
    arrived = notices(outside.mailbox.mails)
    lines = [f"\n  {'request':<10} {'recipient':<24} {'mails':<34} result"]
    for request_id, address in {**expected, **arrived}:
        key = (request_id, address)
        came, wanted = arrived.get(key, []), expected.get(key, [])
        verdict = "ok" if came == wanted else f"expected {', '.join(wanted) or 'none'}"
        lines.append(f"  {request_id[:8]:<10} {address:<24} {', '.join(came) or 'none':<34} {verdict}")
    verdict = "every one as expected" if arrived == expected else "NOT as expected"
    lines.append(f"\n  {len(outside.mailbox.mails)} mails, {verdict}")
    return "\n".join(lines)


def where_to_look(inbox: str, places: Places, config: Path, log: Path) -> str:
    """What a visitor can look at, until Ctrl-C."""
    return f"""
  inbox     {inbox}
  metrics   {places.watcher}/metrics  {places.router}/metrics  {places.mailer}/metrics
  RQ        .venv/bin/rq info --url {places.redis}
  config    {config}
  log       {log}

Ctrl-C ends it."""


async def until_interrupted() -> None:
    """Wait for Ctrl-C or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    click.echo("\nStopping ...")


if __name__ == "__main__":
    main()
