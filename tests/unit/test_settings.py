"""What may stand in the configuration, and what is said of what may not."""

from datetime import timedelta
from pathlib import Path

import pytest

from shared.addresses import is_address, parse_sender
from shared.settings import ANY_ROLE, Settings, SettingsError
from shared.settings_reading import configuration_file, load_settings
from shared.settings_values import LogSeverity, StarttlsPolicy

GO_PLUGIN_FILE = """
[teleport]
addr = "example.com:3025"
identity = "/var/lib/teleport/plugins/email/identity"
refresh_identity = true
refresh_identity_interval = "1m30s"

[smtp]
host = "smtp.example.com"
port = 0
username = "user"
password_file = "/var/lib/teleport/plugins/email/smtp_password"
password = ""
starttls_policy = ""

[delivery]
sender = "Access <noreply@example.com>"

[role_to_recipients]
"dev" = ["dev1@example.com", "dev2@example.com"]
"prod" = "prod@example.com"
"nobody" = []
"*" = ["all@example.com"]

[log]
output = "2"
severity = "WARNING"
"""

NO_BARE_ADDRESS = "no bare e-mail address; write it like reviewer@example.com, without a display name"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "teleport-email.toml"


def faults_of(file: Path, text: str, environ: dict[str, str] | None = None) -> list[str]:
    """What is said of this file, without its path."""
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(file, environ or {})
    return [fault.removeprefix(f"{file}: ") for fault in caught.value.faults]


def test_a_file_of_the_go_plugin_means_what_it_means_to_the_go_plugin(file: Path) -> None:
    file.write_text(GO_PLUGIN_FILE)
    settings = load_settings(file, {})
    assert settings.teleport is not None
    assert settings.teleport.address == "example.com:3025"
    assert settings.teleport.refresh_identity_interval == timedelta(seconds=90)
    assert settings.smtp is not None
    assert settings.smtp.port == 587
    assert settings.smtp.password is None
    assert settings.smtp.starttls_policy is StarttlsPolicy.MANDATORY
    assert settings.log.output == "stderr"
    assert settings.log.severity is LogSeverity.WARN
    assert settings.role_map() == {
        "dev": ("dev1@example.com", "dev2@example.com"),
        "prod": ("prod@example.com",),
        "nobody": (),
        ANY_ROLE: ("all@example.com",),
    }


def test_five_values_in_the_environment_are_enough() -> None:
    environ = {
        "ACCESS_MAIL__TELEPORT__ADDR": "teleport.example.com:443",
        "ACCESS_MAIL__TELEPORT__IDENTITY": "/identity",
        "ACCESS_MAIL__DELIVERY__SENDER": "access@example.com",
        "ACCESS_MAIL__DELIVERY__RECIPIENTS": "one@example.com, two@example.com",
        "ACCESS_MAIL__SMTP__HOST": "relay.example.com",
        "ACCESS_MAIL_ROUTER_PORT": "tcp://10.0.0.1:9102",  # what Kubernetes sets for a Service named access-mail-router
    }
    settings = load_settings(configuration_file(None, environ), environ)
    assert settings.role_map() == {ANY_ROLE: ("one@example.com", "two@example.com")}
    assert settings.smtp is not None
    assert settings.smtp.host == "relay.example.com"


def test_the_environment_overrides_the_file_and_an_empty_variable_does_not(file: Path) -> None:
    file.write_text(GO_PLUGIN_FILE)
    environ = {
        "ACCESS_MAIL__SMTP__PORT": "2525",
        "ACCESS_MAIL__SMTP__HOST": "",
        "ACCESS_MAIL__TELEPORT__REFRESH_IDENTITY": "false",
        "ACCESS_MAIL__ROLE_TO_RECIPIENTS": '{"*": "other@example.com", "dev": ["dev@example.com"]}',
    }
    settings = load_settings(file, environ)
    assert settings.smtp is not None
    assert (settings.smtp.host, settings.smtp.port) == ("smtp.example.com", 2525)
    assert settings.teleport is not None
    assert not settings.teleport.refresh_identity
    assert settings.role_map() == {ANY_ROLE: ("other@example.com",), "dev": ("dev@example.com",)}


def test_a_file_without_any_section_is_no_fault(file: Path) -> None:
    file.write_text("")
    assert load_settings(file, {}) == Settings()


def test_every_fault_of_a_file_is_told_at_once(file: Path) -> None:
    text = """
    [teleport]
    adr = "x:1"
    refresh_identity = "maybe"
    refresh_identity_interval = "1 minute"
    [mailgun]
    domain = "x.example.com"
    [smtp]
    port = "587x"
    starttls_policy = "never"
    [delivery]
    sender = "nobody"
    recipients = ["a@example.com"]
    [role_to_recipients]
    dev = ["Dev <dev@example.com>", 7]
    [log]
    severity = 3
    """
    faults = """
    teleport.refresh_identity: true or false expected, text found
    teleport.refresh_identity_interval: a duration expected: text of numbers and units (h, m, s, ms), like
      "90s" or "1m30s"
    teleport.adr: unknown key; did you mean teleport.addr?
    smtp.host: missing; give the host name of the relay
    smtp.port: a whole number expected, text found
    smtp.starttls_policy: 'mandatory', 'opportunistic' or 'disabled' expected, other text found
    delivery.sender: not an e-mail address; write it like access@example.com or "Access <access@example.com>"
    role_to_recipients.dev[0]: no bare e-mail address; write it like reviewer@example.com, without a display name
    role_to_recipients.dev[1]: text expected, a whole number found
    log.severity: 'debug', 'info', 'warn' or 'error' expected, a whole number found
    mailgun: both [smtp] and [mailgun] are given, and mail goes one way; delete the line [mailgun] and its keys
      to go on with SMTP, which the Go plugin used, or [smtp] and its keys
    delivery.recipients: given together with role_to_recipients; move the addresses to role_to_recipients '*' and
      delete this line
    """
    told = sorted(faults_of(file, text))
    assert told == sorted(line.strip() for line in faults.replace("\n      ", " ").strip().splitlines())


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[smtp]\nhost = "a\n', "not valid TOML: Illegal character '\\n' (at line 2, column 10)"),
        ("x = " + "1" * 5000, "not valid TOML: Exceeds the limit (4300 digits) for integer string conversion"),
        ("x = " + "[" * 5000, "nested too deeply; no setting is a list of lists"),
        ("smtp = 5", "smtp: a table expected, a whole number found"),
        ("[smpt]\nhost = 'x'", "smpt: unknown key; did you mean smtp?"),
        ("[redis]\nxyz = 1", "redis.xyz: unknown key; known here: url, password_file"),
        ('"two\\nlines" = 1', '"two lines": unknown key; known here: teleport, mailgun, smtp, delivery, '),
        (
            "[role_to_recipients]\ndev = 'a@example.com'",
            'role_to_recipients."*": names nobody; give the addresses for all roles that are not named',
        ),
        (
            "[role_to_recipients]\n'*' = []",
            'role_to_recipients."*": names nobody; give the addresses for all roles that are not named',
        ),
        ("[mailer]\non_ambiguous = 'ask'", "mailer.on_ambiguous: 'retry' or 'dead' expected"),
        ("[smtp]\nhost = 'h'\nehlo_name = 'a b'", "smtp.ehlo_name: a domain or an address literal expected"),
        ("[smtp]\nhost = 'h'\nehlo_name = 'a\\nb'", "smtp.ehlo_name: a domain or an address literal expected"),
        ("[mailgun]\ndomain = 'd'\nbase_url = 'api.mailgun.net'", "mailgun.base_url: the URL of a server expected"),
        ("[mailgun]\ndomain = 'd'\nbase_url = 'https://'", "mailgun.base_url: the URL of a server expected"),
        ("[mailgun]\ndomain = 'd'\nbase_url = 'https://h:x'", "mailgun.base_url: the URL of a server expected"),
        ("[mailgun]\ndomain = 'd'\nbase_url = 'https://u:p@h'", "mailgun.base_url: the URL of a server expected"),
        ("[mailgun]\ndomain = 'd'\nbase_url = 'https://h/v3'", "mailgun.base_url: the URL of a server expected"),
        ("[mailgun]\ndomain = 'd'\nbase_url = 'http://api.mailgun.net'", "mailgun.base_url: the key would go there"),
        ("[mailer]\nfirst_pause = '0s'", "mailer.first_pause: a duration of more than nothing"),
        ("[teleport]\nrefresh_identity_interval = 60", "teleport.refresh_identity_interval: a duration of more than "),
        ('[mailer]\ngrace = "4s"', "mailer.grace: must be greater than or equal to 5 seconds"),
    ],
)
def test_a_fault_says_where_what_and_what_to_do(file: Path, text: str, fault: str) -> None:
    (only,) = faults_of(file, text)
    assert only.startswith(fault)


def test_a_fault_of_the_environment_names_the_variable(file: Path) -> None:
    environ = {
        "ACCESS_MAIL__SMTP__PORT": "many",
        "ACCESS_MAIL__SMTP__PASWORD": "hunter2",
        "ACCESS_MAIL__ROLE_TO_RECIPIENTS": '{"*": ["a@example.com", "b"]}',
    }
    assert faults_of(file, '[smtp]\nhost = "h"', environ) == [
        "environment: ACCESS_MAIL__SMTP__PORT: a whole number expected, text found",
        "environment: ACCESS_MAIL__SMTP__PASWORD: unknown key; did you mean smtp.password?",
        f'environment: ACCESS_MAIL__ROLE_TO_RECIPIENTS."*"[1]: {NO_BARE_ADDRESS}',
    ]


def test_a_file_that_is_missing_or_no_file_or_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"# \xff")
    expected = {"absent": "does not exist", ".": "Is a directory", "latin": "byte 2 is not UTF-8"}
    for name, fault in expected.items():
        with pytest.raises(SettingsError, match=fault):
            load_settings(tmp_path / name, {})


def test_addr_wins_over_its_deprecated_name(file: Path) -> None:
    addresses = {
        "auth_server = 'old:3025'": "old:3025",
        "auth_server = 'old:3025'\naddr = 'new:443'": "new:443",
        "addr = 'new:443'": "new:443",
        "": "localhost:3025",
    }
    for keys, address in addresses.items():
        file.write_text(f"[teleport]\n{keys}")
        teleport = load_settings(file, {}).teleport
        assert teleport is not None
        assert teleport.address == address


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("'90s'", timedelta(seconds=90)),
        ("'1h2m3s'", timedelta(hours=1, minutes=2, seconds=3)),
        ("'1.5h'", timedelta(minutes=90)),
        ("'250ms'", timedelta(milliseconds=250)),
        ("60000000000", timedelta(minutes=1)),
    ],
)
def test_a_duration_is_written_as_in_go(file: Path, text: str, length: timedelta) -> None:
    file.write_text(f"[mailer]\nfirst_pause = {text}")
    assert load_settings(file, {}).mailer.first_pause == length


def test_an_address_is_what_parses_and_equals_its_bare_part() -> None:
    good = ["a@b", "first.last+tag@example.com", "jürgen@müller.example", "a@[192.0.2.1]", "o'neill@example.com"]
    bad = ["", "a", "@b", "a@", "a@b@c", " a@b", "a@b ", "A <a@b>", "<a@b>", "a..b@c", "a@b.", '"a b"@c', "a@b,c@d"]
    assert [text for text in good if not is_address(text)] == []
    assert [text for text in [*bad, "a\n@b", "a\u202e@b", "a@b\x00"] if is_address(text)] == []


def test_a_sender_may_carry_a_display_name() -> None:
    assert parse_sender("Access Mail <a@example.com>") == ("Access Mail", "a@example.com")
    assert parse_sender('"Teleport, Inc." <a@example.com>') == ("Teleport, Inc.", "a@example.com")
    assert parse_sender("Dr. Müller <jürgen@example.com>") == ("Dr. Müller", "jürgen@example.com")
    assert parse_sender("a@example.com") == ("", "a@example.com")
    for text in ["", "x", "A <a@b>, B <c@d>", "G: a@b;", "A <a@b> c", "A <a@b>\nBcc: c@d", "a@b\r\n", "A <>"]:
        with pytest.raises(ValueError, match="not "):
            parse_sender(text)


def test_a_sender_whose_domain_is_none_is_told_where_it_stands(file: Path) -> None:
    (fault,) = faults_of(file, "delivery.sender = 'access@-ä.example'")
    assert fault.startswith("delivery.sender: Label must not start or end with a hyphen; write it like ")


def test_keys_that_the_settings_library_takes_for_its_own_are_unknown(file: Path) -> None:
    assert faults_of(file, '_env_file = "/etc/passwd"') == ["_env_file: unknown key; delete it"]


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://api.eu.mailgun.net", "https://api.eu.mailgun.net"),
        ("https://api.eu.mailgun.net/", "https://api.eu.mailgun.net"),
        ("https://proxy.example.com:8443", "https://proxy.example.com:8443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_mailguns_url_is_scheme_and_server(file: Path, given: str, used: str) -> None:
    file.write_text(f"[mailgun]\ndomain = 'd'\nbase_url = '{given}'")
    mailgun = load_settings(file, {}).mailgun
    assert mailgun is not None
    assert mailgun.base_url == used
