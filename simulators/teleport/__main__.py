"""Runs a simulated cluster until it is interrupted: `python -m simulators.teleport`."""

import asyncio
import signal
from pathlib import Path

import click

from simulators.certificates import ClusterAuthority
from simulators.proxy import Proxy
from simulators.teleport.service import AuthService

RENEWAL_SECONDS = 20 * 60
"""A third of the credentials' life, as tbot does it."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", default=3025, show_default=True, help="Port of the Auth Service; 0 chooses one.")
@click.option("--proxy-port", default=3080, show_default=True, help="Port of the proxy; 0 chooses one.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("teleport-simulator"),
    show_default=True,
    help="Where the credentials are put.",
)
def main(host: str, port: int, proxy_port: int, directory: Path) -> None:
    """Run a simulated Teleport cluster with a proxy, and put credentials into a directory.

    `identity` is Access Mail's, `people` holds those of the cluster's people; both are renewed in time, as by tbot.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        asyncio.run(serve(host, port, proxy_port, directory))
    except KeyboardInterrupt:
        click.echo("stopped")


async def serve(host: str, port: int, proxy_port: int, directory: Path) -> None:
    """Serve for ever."""
    authority = ClusterAuthority.create("teleport.example.com")
    write_credentials(authority, directory)
    web_ca = directory / "proxy-web-ca.pem"
    web_ca.write_bytes(authority.web_ca.pem)
    async with (
        AuthService(authority, host=host, port=port) as auth,
        Proxy(authority, auth.address, host=host, port=proxy_port) as proxy,
    ):
        auth.ping.ProxyPublicAddr = proxy.address
        auth.directory.add_node("web-1", "web-1.example.com")  # without any, `check` takes all for hidden
        click.echo(f"auth      {auth.address}")
        click.echo(f"proxy     {proxy.address}  (its web certificate is signed by {web_ca})")
        click.echo(f"identity  {directory / 'identity'}")
        while True:
            await asyncio.sleep(RENEWAL_SECONDS)
            write_credentials(authority, directory)


def write_credentials(authority: ClusterAuthority, directory: Path) -> None:
    """Put an identity file for Access Mail and PEM files for people into the directory: for an hour each."""
    people = directory / "people"
    people.mkdir(mode=0o700, exist_ok=True)
    authority.identity("people", roles=["access"]).write_trio(people)
    authority.identity("access-mail", roles=["access-mail"]).write_file(directory / "identity")


if __name__ == "__main__":
    main()
