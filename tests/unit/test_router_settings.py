"""What the router takes from the configuration."""

import pytest

from services.router.settings import RouterConfiguration
from shared.settings import DeliverySettings, Settings, SettingsError


def settings(sender: str, domain: str | None = None) -> Settings:
    delivery = DeliverySettings(sender=sender, message_id_domain=domain)
    return Settings(delivery=delivery, role_to_recipients={"*": ("ann@example.com",)})


def test_message_ids_have_the_senders_domain_in_a_labels() -> None:
    assert RouterConfiguration.of(settings("access@bücher.example")).message_id_domain == "xn--bcher-kva.example"


def test_a_domain_that_is_none_is_a_fault() -> None:
    with pytest.raises(SettingsError) as raised:
        RouterConfiguration.of(settings("access@example.com", "x>\nBcc: x@y"))
    assert raised.value.faults == [
        "delivery.message_id_domain: no domain name; write one like example.com, or delete the line"
    ]
