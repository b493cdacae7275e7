"""The configuration as the services see it: one model for all, a superset of `teleport-email.toml`."""

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from shared.settings_faults import SettingsError as SettingsError  # noqa: PLC0414 - mypy's way to export a name again
from shared.settings_values import (
    DEFAULT_SMTP_PORT,
    Addresses,
    BaseUrl,
    Duration,
    EhloName,
    LogSeverity,
    OnAmbiguous,
    Output,
    Port,
    RefreshInterval,
    RoleMap,
    RuleEffect,
    Sender,
    Severity,
    SmtpPort,
    StarttlsPolicy,
)

ANY_ROLE = "*"
"""The key of `role_to_recipients` for all roles that it does not name."""

ServiceName = Literal["watcher", "router", "mailer"]


class Section(BaseModel):
    """A table of the file: unknown keys are faults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _empty_text_is_nothing(cls, values: object) -> object:
        """`password_file = ""` is the same as no `password_file`, as it is to the Go plugin."""
        if not isinstance(values, dict):
            return values
        return {key: value for key, value in values.items() if value != "" or key not in cls.model_fields}


class TeleportSettings(Section):
    """`[teleport]`: where the cluster is and who we are to it."""

    addr: str = Field(
        "localhost:3025",
        description="host:port of the Auth Service or of a proxy's web port",
        examples=["teleport.example.com:443"],
    )
    auth_server: str | None = Field(None, description="deprecated name of `addr`")
    identity: Path | None = Field(
        None, description="identity file of tctl or tbot", examples=["/var/lib/teleport/bot/identity"]
    )
    refresh_identity: bool = Field(
        False, description="take over changed credentials, whether identity or the three files"
    )
    refresh_identity_interval: RefreshInterval = Field(timedelta(minutes=1), description="how often to look at them")
    client_key: Path | None = Field(
        None, description="PEM private key, with client_crt and root_cas, in place of identity"
    )
    client_crt: Path | None = Field(None, description="PEM client certificate")
    root_cas: Path | None = Field(None, description="PEM certificates of the cluster's host CA")
    allow_key_readable_by_others: bool = Field(
        False, description="take a private key that every user of this host can read"
    )
    snapshot_interval: Duration = Field(
        timedelta(minutes=5), description="how often all requests are listed and compared"
    )

    @property
    def address(self) -> str:
        """`addr`, or its deprecated name where that alone is given, as the Go plugin has it."""
        return self.addr if self.auth_server is None or "addr" in self.model_fields_set else self.auth_server


class MailgunSettings(Section):
    """`[mailgun]`: send through Mailgun."""

    domain: str = Field(description="sending domain registered with Mailgun", examples=["mg.example.com"])
    private_key: SecretStr | None = Field(None, description="API key")
    private_key_file: Path | None = Field(None, description="file that holds the API key; read again when it changes")
    base_url: BaseUrl = Field("https://api.mailgun.net", description="https://api.eu.mailgun.net for EU domains")
    test_mode: bool = Field(False, description="Mailgun takes the mails, charges for them, and delivers none")


class SmtpSettings(Section):
    """`[smtp]`: send through an SMTP relay."""

    host: str = Field(description="host name of the relay", examples=["smtp.example.com"])
    port: SmtpPort = Field(DEFAULT_SMTP_PORT, description="587 submission, 465 implicit TLS, 25 relay")
    username: str | None = Field(None, description="user for AUTH; without one there is no authentication")
    password: SecretStr | None = Field(None, description="password for AUTH")
    password_file: Path | None = Field(None, description="file that holds the password; read again at each login")
    starttls_policy: StarttlsPolicy = Field(
        StarttlsPolicy.MANDATORY, description="mandatory, opportunistic or disabled"
    )
    implicit_tls: bool = Field(False, description="TLS from the first byte (RFC 8314), in place of STARTTLS")
    ca_file: Path | None = Field(
        None, description="PEM certificates to verify the relay with, in place of the system's"
    )
    client_cert_file: Path | None = Field(None, description="PEM certificate to show the relay, with its chain")
    client_key_file: Path | None = Field(None, description="its PEM private key, where client_cert_file holds none")
    oauth_token_file: Path | None = Field(
        None, description="file that holds a token for XOAUTH2, in place of a password; read again at each login"
    )
    ehlo_name: EhloName | None = Field(None, description="name to greet the relay with; the sender's domain by default")


class DeliverySettings(Section):
    """`[delivery]`: how mails present themselves."""

    sender: Sender = Field(
        description="From and envelope sender; may carry a display name",
        examples=["Teleport Access <access@example.com>"],
    )
    recipients: Addresses = Field((), description="deprecated: the fallback recipients, as role_to_recipients '*'")
    message_id_domain: str | None = Field(None, description="domain of Message-IDs; the sender's when not given")


class LogSettings(Section):
    """`[log]`."""

    output: Output = Field("stderr", description="stderr, stdout, or a file, which is opened again on SIGHUP")
    severity: Severity = Field(LogSeverity.INFO, description="debug, info, warn or error")


class RedisSettings(Section):
    """`[redis]`: the Redis (or Valkey) between the services."""

    url: SecretStr | None = Field(None, description="redis://, rediss:// or unix://; none: `start` runs its own")
    password_file: Path | None = Field(None, description="file that holds the password")


class RoutingSettings(Section):
    """`[routing]`: who is told."""

    rules: RuleEffect = Field(
        RuleEffect.REPLACE,
        description="matching Access Monitoring Rules replace role_to_recipients and suggested reviewers,"
        " as in the Go plugin, or add to them",
    )


class ProbeSettings(Section):
    """Where a service answers /metrics, /healthz and /readyz."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: Port


class WatcherSettings(ProbeSettings):
    """`[watcher]`."""

    port: Port = Field(9101, description="port of /metrics, /healthz and /readyz; 0: any free one")


class RouterSettings(ProbeSettings):
    """`[router]`."""

    port: Port = Field(9102, description="port of /metrics, /healthz and /readyz; 0: any free one")


class MailerSettings(ProbeSettings):
    """`[mailer]`."""

    port: Port = Field(9103, description="port of /metrics, /healthz and /readyz; 0: any free one")
    connections: int = Field(20, ge=1, le=1000, description="most connections to the relay at once")
    first_pause: Duration = Field(timedelta(seconds=15), description="longest pause after a mail's first failure")
    longest_pause: Duration = Field(
        timedelta(minutes=15), description="pauses grow up to this one: 15s, 1m, 3m, 6m, 10m, 15m"
    )
    on_ambiguous: OnAmbiguous = Field(
        OnAmbiguous.RETRY,
        description="a mail whose answer was lost: retry (it may come twice) or dead (it may not come at all)",
    )
    grace: Duration = Field(
        timedelta(seconds=10),
        ge=timedelta(seconds=5),
        description="time to end after SIGTERM; mails in flight may finish until 4s before, the others go back",
    )
    first_probe: Duration = Field(
        timedelta(seconds=5), description="pause before one mail tries a relay again that turns everybody away"
    )
    longest_probe: Duration = Field(timedelta(minutes=2), description="pauses before such probes double up to this one")
    mails_per_second: float | None = Field(
        None,
        gt=0,
        le=100_000,
        description="most mails a second to the relay, over all mailers; no more than a second's are in hand at once",
    )
    connections_of_all: int | None = Field(
        None, ge=1, description="most mails in hand at once, over all mailers; connections then rest for a second only"
    )


class Settings(Section, BaseSettings):
    """The whole file. Each service uses its own part and demands no other."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # see above
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # see above
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # see above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """One source: what `load_settings` has merged; why, tells docs/decisions/0003."""
        return (init_settings,)

    teleport: TeleportSettings | None = None
    mailgun: MailgunSettings | None = None
    smtp: SmtpSettings | None = None
    delivery: DeliverySettings | None = None
    role_to_recipients: RoleMap = Field({}, description="role → addresses; '*' for all roles that are not named")
    routing: RoutingSettings = RoutingSettings()
    log: LogSettings = LogSettings()
    redis: RedisSettings = RedisSettings()
    watcher: WatcherSettings = WatcherSettings()
    router: RouterSettings = RouterSettings()
    mailer: MailerSettings = MailerSettings()
    data_dir: Path | None = Field(None, description="where the embedded Valkey keeps its data")

    def role_map(self) -> dict[str, tuple[str, ...]]:
        """Role → addresses, with `ANY_ROLE` for all others; empty where the file names nobody."""
        fallback = self.delivery.recipients if self.delivery else ()
        return {ANY_ROLE: fallback} if fallback else dict(self.role_to_recipients)

    def probes(self, service: ServiceName) -> ProbeSettings:
        """Where this service answers its probes."""
        sections: dict[ServiceName, ProbeSettings] = {
            "watcher": self.watcher,
            "router": self.router,
            "mailer": self.mailer,
        }
        return sections[service]
