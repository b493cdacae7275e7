"""Does each service find its part of the configuration? A program of its own too: `start` needs none of their code."""

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import click

from services.mailer.settings import MailerConfiguration
from services.router.settings import RouterConfiguration
from services.watcher.settings import WatcherConfiguration
from shared.lifecycle import print_faults, process_settings
from shared.settings import ServiceName, Settings, SettingsError

PARTS: Mapping[ServiceName, Callable[[Settings], object]] = {
    "watcher": WatcherConfiguration.of,
    "router": RouterConfiguration.of,
    "mailer": MailerConfiguration.of,
}


def insist_on_parts(settings: Settings, services: Iterable[ServiceName] = tuple(PARTS)) -> None:
    """Raise `SettingsError` with what these services miss, each thing once, though several may miss it."""
    faults: dict[str, None] = {}
    for service in services:
        try:
            PARTS[service](settings)
        except SettingsError as error:
            faults.update(dict.fromkeys(error.faults))
    if faults:
        raise SettingsError(list(faults))


@click.command(help=__doc__)
@click.option("-c", "--config", type=click.Path(path_type=Path))
def main(config: Path | None) -> None:
    """Exit with 1 and a line for each fault on stderr, or with 0."""
    try:
        insist_on_parts(process_settings(config, None))
    except SettingsError as error:
        print_faults(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
