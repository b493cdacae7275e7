"""Keeps an identity file fresh where no volume can be shared with the cluster, as tbot does beside Teleport's clients.

`python -m simulators.bot --from URL --file FILE` fetches what a simulated cluster has written, over HTTP.
"""

import signal
import time
from pathlib import Path

import click
import httpx

from simulators.certificates import write_private

ASK_SECONDS = 2.0
"""So soon the file is right again after the cluster was started anew, for then it has other authorities."""


@click.command()
@click.option("--from", "url", required=True, help="Where the identity file of the simulated cluster can be fetched.")
@click.option("--file", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Where to put it.")
def main(url: str, file: Path) -> None:
    """Fetch an identity file again and again, and write it whenever it is another one."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as a container's first process it would be deaf to it
    try:
        keep_fresh(url, file)
    except KeyboardInterrupt:
        click.echo("stopped")


def keep_fresh(url: str, file: Path) -> None:
    """Ask for ever; a cluster that does not answer is asked again, and each trouble is told once."""
    known, trouble = "", ""
    with httpx.Client(timeout=ASK_SECONDS) as client:
        while True:
            try:
                text = client.get(url).raise_for_status().text
            except httpx.HTTPError as error:
                if str(error) != trouble:
                    click.echo(f"no identity: {error}", err=True)
                trouble = str(error)
            else:
                trouble = ""
                if text != known:
                    write_private(file, text.encode())
                    click.echo(f"a new identity is in {file}")
                known = text
            time.sleep(ASK_SECONDS)


if __name__ == "__main__":
    main()
