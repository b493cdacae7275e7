"""What the router takes from the configuration."""

import re

import pytest

from services.router.settings import RouterConfiguration
from shared.settings import DeliverySettings, Settings, SettingsError
from shared.settings_reading import load_settings
from shared.settings_values import RuleEffect


def settings(sender: str, domain: str | None = None) -> Settings:
    delivery = DeliverySettings(sender=sender, message_id_domain=domain)
    return Settings(delivery=delivery, role_to_recipients={"*": ("ann@example.com",)})


def test_message_ids_have_the_senders_domain_in_a_labels() -> None:
    assert RouterConfiguration.of(settings("access@bücher.example")).message_id_domain == "xn--bcher-kva.example"


def test_who_tells_nobody_hears_how_to_name_somebody_in_a_file_and_without_one() -> None:
    with pytest.raises(SettingsError) as raised:
        RouterConfiguration.of(load_settings(None, {"ACCESS_MAIL__DELIVERY__SENDER": "access@example.com"}))
    (fault,) = raised.value.faults
    assert "'*' = [\"somebody@example.com\"]" in fault
    environ = {"ACCESS_MAIL__DELIVERY__SENDER": "access@example.com"}
    (named,) = re.findall("ACCESS_MAIL__[A-Z_]+", fault)
    assert RouterConfiguration.of(load_settings(None, {**environ, named: "ann@example.com"})).role_map["*"]


def test_a_domain_that_is_none_is_a_fault() -> None:
    with pytest.raises(SettingsError) as raised:
        RouterConfiguration.of(settings("access@example.com", "x>\nBcc: x@y"))
    assert raised.value.faults == [
        "delivery.message_id_domain: no domain name; write one like example.com, or delete the line"
    ]


@pytest.mark.parametrize(("environ", "effect"), [({}, RuleEffect.REPLACE), ({"rules": "add"}, RuleEffect.ADD)])
def test_rules_replace_the_role_map_or_add_to_it(environ: dict[str, str], effect: RuleEffect) -> None:
    routing = {f"ACCESS_MAIL__ROUTING__{name.upper()}": value for name, value in environ.items()}
    loaded = load_settings(None, {"ACCESS_MAIL__DELIVERY__SENDER": "a@example.com", **routing})
    whole = loaded.model_copy(update={"role_to_recipients": {"*": ("ann@example.com",)}})
    assert RouterConfiguration.of(whole).rules is effect


def test_another_effect_of_rules_is_a_fault() -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings(None, {"ACCESS_MAIL__ROUTING__RULES": "merge"})
    assert "replace" in raised.value.faults[0]
    assert "add" in raised.value.faults[0]
