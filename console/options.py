"""The options that several commands share, each with one text."""

from pathlib import Path

import click

from shared.settings_reading import DEFAULT_PATH

HELP = {"help_option_names": ["-h", "--help"]}

config_option = click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    help=f"Configuration file. By default {DEFAULT_PATH} if there is one, else the environment alone is read.",
)

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Directory of the built-in Valkey, in place of data_dir in the configuration.",
)
