"""`make demo`: the whole pipeline on this machine, and a story that it tells by mail."""

import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import click

from services.watcher.teleport.pb import types_pb2
from simulators.inbox import Inbox
from simulators.received import ReceivedMail
from simulators.world import Places, World, product, world

ROLES = {"*": ["security@example.com"], "production-editor": ["ann@example.com"]}
DEADLINE_SECONDS = 30.0
POLL_SECONDS = 0.005

Expected = Mapping[tuple[str, str], list[str]]
"""(request id, address) → the notices in the order in which they must have come."""


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
                expected = await story(outside)
                arrived = await all_arrived(outside, expected)
                click.echo(summary(outside, expected))
                if not once:
                    click.echo(where_to_look(inbox.url, places, config, running.log))
                    await until_interrupted()
    return 0 if arrived else 1


async def story(outside: World) -> Expected:
    """Play it step by step, each after the mails of the one before; gives the mails that must come."""
    auth, expected = outside.auth, Story(outside)
    click.echo("alice asks for production-editor and suggests carol as a reviewer")
    first = auth.create_request(
        "alice",
        ["production-editor"],
        reason="INC-4711: the deployment of the shop is stuck, I need to edit its configuration.",
        suggested_reviewers=["carol@example.com"],
        resources=[f"/{auth.ping.ClusterName}/node/shop-1", f"/{auth.ping.ClusterName}/app/grafana"],
        approvals=2,
    )
    await expected.mails(first, ["ann@example.com", "carol@example.com"], "requested")
    click.echo("ann approves; two approvals are needed")
    auth.review(first, "ann", types_pb2.APPROVED, "The shop is down, go ahead.")
    await expected.mails(first, ["ann@example.com", "carol@example.com"], "reviewed-1")
    click.echo("an administrator approves")
    auth.approve(first, "Approved for the length of the incident.")
    await expected.mails(first, ["ann@example.com", "carol@example.com"], "approved")
    click.echo("bob asks for database-admin, which nobody is named for: it goes to the fallback")
    second = auth.create_request("bob", ["database-admin"], reason="just looking around")
    await expected.mails(second, ["security@example.com"], "requested")
    click.echo("it is denied")
    auth.deny(second, "Please use the read-only replica.")
    await expected.mails(second, ["security@example.com"], "denied")
    click.echo("eve asks, and nobody looks")
    third = auth.create_request("eve", ["auditor"], reason="quarterly audit", ttl=timedelta(seconds=2))
    await expected.mails(third, ["security@example.com"], "requested")
    await expected.mails(third, ["security@example.com"], "expired")
    return expected.notices


class Story:
    """What has been told so far, and the waiting for it."""

    def __init__(self, outside: World) -> None:
        self._mailbox = outside.mailbox
        self.notices: dict[tuple[str, str], list[str]] = {}

    async def mails(self, request_id: str, addresses: list[str], notice: str) -> None:
        """Expect this mail for each of these people, and wait for them."""
        for address in addresses:
            self.notices.setdefault((request_id, address), []).append(notice)
        began = time.monotonic()
        deadline = began + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            if all(
                notices(self._mailbox.mails).get((request_id, address), [])[-1:] == [notice] for address in addresses
            ):
                click.echo(f"   ✉ {notice:<11} {', '.join(addresses)}  ({(time.monotonic() - began) * 1000:.0f} ms)")
                return
            await asyncio.sleep(POLL_SECONDS)
        click.echo(f"   ✗ {notice:<11} has not come within {DEADLINE_SECONDS:.0f} s")


def notices(mails: list[ReceivedMail]) -> dict[tuple[str, str], list[str]]:
    """(request id, address) → its notices in the order of arrival."""
    found: dict[tuple[str, str], list[str]] = {}
    for mail in mails:
        key = (mail.message["X-Access-Mail-Request"], mail.recipient)
        found.setdefault(key, []).append(mail.message["X-Access-Mail-Notice"])
    return found


async def all_arrived(outside: World, expected: Expected) -> bool:
    """Have exactly the expected mails come, in their order?"""
    return notices(outside.mailbox.mails) == expected


def summary(outside: World, expected: Expected) -> str:
    """A table of what came."""
    arrived = notices(outside.mailbox.mails)
    lines = [f"\n  {'request':<10} {'recipient':<24} {'mails':<34} result"]
    for request_id, address in expected.keys() | arrived.keys():
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
