"""The part of the configuration that the mailer uses, checked as a whole: one relay, a sender, and their secrets."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import SecretStr

from services.mailer.mime import Mailbox, wire_address
from shared.addresses import message_id_domain, parse_sender
from shared.relay import RelayTerms
from shared.settings import MailerSettings, MailgunSettings, Settings, SettingsError, SmtpSettings
from shared.settings_files import NamedFile


@dataclass(frozen=True)
class MailerConfiguration:
    """What a mailer needs to know to deliver mails."""

    relay: SmtpSettings | MailgunSettings
    sender: Mailbox
    message_id_domain: str
    """Of threads whose request's memory names none."""
    mailer: MailerSettings

    @property
    def relay_terms(self) -> RelayTerms:
        """What all mailers share of the relay."""
        relay = self.relay
        return RelayTerms(
            name=f"{relay.host}:{relay.port}".lower() if isinstance(relay, SmtpSettings) else relay.domain.lower(),
            first_probe=self.mailer.first_probe.total_seconds(),
            longest_probe=self.mailer.longest_probe.total_seconds(),
            mails_per_second=self.mailer.mails_per_second,
            connections=self.mailer.connections_of_all,
        )

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The mailer's part of the file. Raises `SettingsError` with one line for each fault."""
        faults = []
        relay = settings.smtp or settings.mailgun
        if relay is None:
            faults.append("smtp: no relay is configured; add a section [smtp] or [mailgun]")
        elif settings.smtp and settings.mailgun:
            faults.append("mailgun: there are two relays; delete the section [smtp] or the section [mailgun]")
        else:
            faults.extend(_missing_secrets(relay))
        sender = None if settings.delivery is None else _sender(settings.delivery.sender)
        if settings.delivery is None:
            faults.append("delivery.sender: missing; name the address that mails come from")
        elif sender is None:
            faults.append("delivery.sender: no e-mail address that mail can come from; give one as access@example.com")
        domain = None
        if sender is not None and settings.delivery is not None:
            try:
                domain = message_id_domain(settings.delivery.message_id_domain, settings.delivery.sender)
            except ValueError as error:
                faults.append(f"delivery.message_id_domain: {error}")
        if faults or relay is None or sender is None or domain is None:
            raise SettingsError(faults)
        return cls(relay, sender, domain, settings.mailer)


def secret(value: SecretStr | None, key: str, file: Path | None) -> str:
    """The secret itself, from its file where `key` names one. Raises `SettingsError` if that cannot be read."""
    given = value if file is None else NamedFile(key, file).secret()
    return "" if given is None else given.get_secret_value()


def _sender(text: str) -> Mailbox | None:
    """None: it is no mailbox (RFC 5322 §3.4), or its domain is none."""
    try:
        name, address = parse_sender(text)
        return Mailbox(name, wire_address(address))
    except ValueError:
        return None


def _missing_secrets(relay: SmtpSettings | MailgunSettings) -> list[str]:
    if isinstance(relay, MailgunSettings):
        given = relay.private_key or relay.private_key_file
        return [] if given else ["mailgun.private_key: missing; give it or private_key_file"]
    return _login_faults(relay)


def _login_faults(relay: SmtpSettings) -> list[str]:
    password, token = relay.password or relay.password_file, relay.oauth_token_file
    if relay.client_key_file and not relay.client_cert_file:
        return ["smtp.client_cert_file: missing; give it, or delete client_key_file"]
    if password and token:
        return ["smtp.oauth_token_file: there is a password as well; delete the one or the other"]
    if relay.username and not (password or token):
        return ["smtp.password: missing; give it or password_file, or delete username for a relay without a login"]
    if (password or token) and not relay.username:
        return ["smtp.username: missing; give it, or delete the password or token for a relay without a login"]
    return []
