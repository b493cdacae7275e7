"""Reads the configuration: the file, and the environment that overrides it."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from shared.settings import ANY_ROLE, Settings, SettingsError
from shared.settings_faults import faults_of
from shared.settings_sources import ENVIRONMENT_PREFIX, FileFault, Sources, read_sources
from shared.settings_values import from_json

DEFAULT_PATH = Path("/etc/teleport-email.toml")


def configuration_file(given: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file to read: the one that is named, else the default one; None where the environment alone speaks.

    Raises `SettingsError` where there is no configuration at all.
    """
    if given is not None:
        return given
    if DEFAULT_PATH.exists():
        return DEFAULT_PATH
    if any(variable.startswith(ENVIRONMENT_PREFIX) for variable in environ):
        return None
    fault = f"{DEFAULT_PATH}: does not exist, and no variable {ENVIRONMENT_PREFIX}… is set; "
    raise SettingsError([fault + "name a file with -c, or write one from `access-mail configure`"])


def load_settings(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the file, if there is one, and what the environment overrides of it.

    Raises `SettingsError` with every fault at once. What a service needs and the file leaves out is no fault here.
    """
    try:
        sources = read_sources(path, environ)
    except FileFault as fault:
        raise SettingsError([str(fault)]) from None
    contradictions = _contradictions(sources)
    # To the library these are arguments of its own.
    private = [key for key in sources.tree if key.startswith("_")]
    contradictions += [f"{sources.name((key,))}: unknown key; delete it" for key in private]
    tree = {key: value for key, value in sources.tree.items() if key not in private}
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        # neither is chained: pydantic's own text quotes the values
        raise SettingsError([*faults_of(error, Settings, sources), *contradictions]) from None
    if contradictions:
        raise SettingsError(contradictions)
    return settings


def _contradictions(sources: Sources) -> list[str]:
    """What is wrong between sections, told from the raw tree: beside other faults, not after they are mended."""
    tree, faults = sources.tree, []
    if "smtp" in tree and "mailgun" in tree:
        faults.append(
            f"{sources.name(('mailgun',))}: both [smtp] and [mailgun] are given, and mail goes one way; delete the "
            "line [mailgun] and its keys to go on with SMTP, which the Go plugin used, or [smtp] and its keys"
        )
    roles = from_json(tree.get("role_to_recipients"))
    delivery = tree.get("delivery")
    if roles and isinstance(delivery, dict) and delivery.get("recipients"):
        faults.append(
            f"{sources.name(('delivery', 'recipients'))}: given together with role_to_recipients; "
            "move the addresses to role_to_recipients '*' and delete this line"
        )
    elif isinstance(roles, dict) and roles and not roles.get(ANY_ROLE):
        faults.append(
            f"{sources.name(('role_to_recipients', ANY_ROLE))}: names nobody; "
            "give the addresses for all roles that are not named"
        )
    return faults
