"""Runs a simulated cluster until it is interrupted: `python -m simulators.teleport`."""

import asyncio
from pathlib import Path

import click

from simulators.certificates import ClusterAuthority
from simulators.proxy import Proxy
from simulators.teleport.service import AuthService


@click.command()
@click.option("--port", default=3025, show_default=True, help="Port of the Auth Service; 0 chooses one.")
@click.option("--proxy-port", default=3080, show_default=True, help="Port of the proxy; 0 chooses one.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("teleport-simulator"),
    show_default=True,
    help="Where the credentials are put.",
)
def main(port: int, proxy_port: int, directory: Path) -> None:
    """Run a simulated Teleport cluster with a proxy, and put credentials for Access Mail into a directory."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        asyncio.run(serve(port, proxy_port, directory))
    except KeyboardInterrupt:
        click.echo("stopped")


async def serve(port: int, proxy_port: int, directory: Path) -> None:
    """Serve for ever."""
    authority = ClusterAuthority.create("teleport.example.com")
    identity = authority.identity("access-mail", roles=["access-mail"]).write_file(directory / "identity")
    web_ca = directory / "proxy-web-ca.pem"
    web_ca.write_bytes(authority.web_ca.pem)
    async with AuthService(authority, port=port) as auth, Proxy(authority, auth.address, port=proxy_port) as proxy:
        auth.ping.ProxyPublicAddr = proxy.address
        click.echo(f"auth      {auth.address}")
        click.echo(f"proxy     {proxy.address}  (its web certificate is signed by {web_ca})")
        click.echo(f"identity  {identity}")
        await asyncio.Event().wait()


if __name__ == "__main__":
    main()
