"""The `access-mail` command: what an operator can ask for, each answered by one module beside this one."""

import signal

# Whoever asks for a reload before we can do it must not end us, also not while the imports below take their time.
signal.signal(signal.SIGHUP, signal.SIG_IGN)

import os
import sys
from pathlib import Path
from typing import get_args

import click

from console.configure import example
from console.start import Start, start_all, start_one
from shared.build import this_build
from shared.lifecycle import print_faults
from shared.settings import DEFAULT_PATH, ServiceName, SettingsError
from shared.settings_values import LogSeverity

PORT = click.IntRange(0, 65535)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Tell people by e-mail about Teleport's Just-in-Time Access Requests."""


config_option = click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    help=f"Configuration file; {DEFAULT_PATH} if that exists, else the environment alone.",
)
debug_option = click.option("-d", "--debug", is_flag=True, help="Log everything.")


@main.command()
@config_option
@debug_option
@click.option("--service", type=click.Choice(get_args(ServiceName)), help="Run this service alone.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where the embedded Valkey keeps its data.")
@click.option(
    "--probe-port",
    "ports",
    type=(click.Choice(get_args(ServiceName)), PORT),
    multiple=True,
    metavar="SERVICE PORT",
    help="Where a service answers /metrics, /healthz and /readyz; 0: any free port. May be given for each.",
)
def start(
    config: Path | None,
    debug: bool,  # noqa: FBT001 - click passes its flag so
    service: ServiceName | None,
    data_dir: Path | None,
    ports: tuple[tuple[ServiceName, int], ...],
) -> None:
    """Run all services, with a Valkey of their own where no Redis is configured."""
    asked = Start(config, LogSeverity.DEBUG if debug else None, data_dir, dict(ports))
    if service is not None:
        start_one(service, asked)
    try:
        sys.exit(start_all(asked))
    except SettingsError as error:
        print_faults(error)
        sys.exit(1)


@main.command()
@config_option
def check(config: Path | None) -> None:
    """Try configuration, Redis, Teleport and the relay for real; send nothing."""
    # `start` must not carry for ever what only this command needs: it loads every service.
    from console.check import check_everything  # noqa: PLC0415 - see above

    sys.exit(check_everything(config))


@main.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def dead(arguments: tuple[str, ...]) -> None:
    """Look at what was given up, try it again, or forget it."""
    # As above: only this command needs RQ.
    from console.dead_commands import dead as commands  # noqa: PLC0415 - see above

    commands.main(list(arguments), prog_name="access-mail dead")


@main.command()
def configure() -> None:
    """Print a commented example of the configuration file."""
    click.echo(example(), nl=False)


@main.command()
def version() -> None:
    """Print version, commit (where known) and Python."""
    build = this_build(os.environ)
    of = f" ({build.commit})" if build.commit else ""
    click.echo(f"Access Mail {build.version}{of}, Python {build.python}")


if __name__ == "__main__":
    main()
