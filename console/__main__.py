"""The `access-mail` command: what an operator can ask for, each answered by one module beside this one."""

import signal

# Whoever asks for a reload before we can do it must not end us, also not while the imports below take their time.
signal.signal(signal.SIGHUP, signal.SIG_IGN)

import os
import sys
from pathlib import Path

import click

from console.configure import example
from console.options import HELP, config_option, data_dir_option
from console.start import SERVICES, Start, start_all, start_one
from shared.build import this_build
from shared.lifecycle import print_faults
from shared.settings import ServiceName, SettingsError
from shared.settings_values import LogSeverity

PORT = click.IntRange(0, 65535)


@click.group(
    context_settings=HELP,
    epilog="First `configure` prints a file to fill in, then `check` tries it, then `start` runs it.",
)
def main() -> None:
    """Tell people by e-mail about Teleport's Just-in-Time Access Requests."""


@main.command(short_help="Run Access Mail.")
@config_option
@click.option("-d", "--debug", is_flag=True, help="Log everything, in place of log.severity in the configuration.")
@click.option("--service", type=click.Choice(SERVICES), help="Run this service alone. It needs redis.url.")
@data_dir_option
@click.option(
    "--probe-port",
    "ports",
    type=(click.Choice(SERVICES), PORT),
    multiple=True,
    metavar="SERVICE PORT",
    help="Port of a service's /metrics, /healthz and /readyz, in place of the configured one; 0 takes any free one."
    " May be given once for each service.",
)
def start(
    config: Path | None,
    debug: bool,  # noqa: FBT001 - click passes its flag so
    service: ServiceName | None,
    data_dir: Path | None,
    ports: tuple[tuple[ServiceName, int], ...],
) -> None:
    """Run Access Mail until Ctrl-C or SIGTERM: the services watcher, router and mailer.

    Where the configuration names no Redis, the built-in Valkey (a kind of Redis) is run beside them.

    Stopping waits for mails that are being sent, as long as mailer.grace allows. A second Ctrl-C puts them back into
    the queue at once, a third kills the services. None of these loses a mail; where mailer.on_ambiguous is "dead",
    those that were being sent become dead letters.
    """
    asked = Start(config, LogSeverity.DEBUG if debug else None, data_dir, dict(ports))
    if service is not None:
        start_one(service, asked)
    try:
        sys.exit(start_all(asked))
    except SettingsError as error:
        print_faults(error)
        sys.exit(1)


@main.command(short_help="Try everything that Access Mail needs.")
@config_option
@click.option("--service", type=click.Choice(SERVICES), help="Try only what this service needs.")
def check(config: Path | None, service: ServiceName | None) -> None:
    """Try everything that Access Mail needs: the configuration, Redis, Teleport and the mail relay. No mail is sent.

    Each line of the answer begins with `ok`, `FAIL`, or `lack` for a permission that Access Mail can do without. The
    exit status is 1 if anything fails.
    """
    # `start` must not carry for ever what only this command needs: it loads every service.
    from console import check as command  # noqa: PLC0415 - see above

    sys.exit(command.check(config, service))


@main.command(
    short_help="See, send again or delete mails that were given up.",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def dead(arguments: tuple[str, ...]) -> None:
    """See `console.dead_commands`, which has the words of it."""
    # As above: only this command needs RQ.
    from console.dead_commands import dead as commands  # noqa: PLC0415 - see above

    commands.main(list(arguments), prog_name="access-mail dead")


@main.command(short_help="Print an example of the configuration file.")
def configure() -> None:
    """Print an example of the configuration file, with a comment on each setting."""
    click.echo(example(), nl=False)


@main.command(short_help="Print the version.")
def version() -> None:
    """Print the version, its commit where that is known, and Python's version."""
    build = this_build(os.environ)
    of = f" ({build.commit})" if build.commit else ""
    click.echo(f"Access Mail {build.version}{of}, Python {build.python}")


if __name__ == "__main__":
    main()
