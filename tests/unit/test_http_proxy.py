"""Which HTTP proxy leads to Teleport is read from the environment as Teleport's own clients read it."""

import pytest

from services.watcher.teleport.http_proxy import HttpProxy, Refusal, http_proxy

PROXY = {"https": "http://proxy.example.com:3128"}


def test_https_proxy_comes_before_http_proxy_and_both_lead_to_teleport() -> None:
    both = {"https": "http://one:1", "http": "http://two:2"}
    assert str(http_proxy("teleport.example.com", 443, both)) == "one:1"
    assert str(http_proxy("teleport.example.com", 443, {"http": "http://two:2"})) == "two:2"
    assert http_proxy("teleport.example.com", 443, {}) is None


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://proxy:3128", "proxy", 3128),
        ("proxy:3128", "proxy", 3128),
        ("http://proxy/", "proxy", 80),
        ("http://[::1]:3128", "::1", 3128),
    ],
)
def test_a_proxy_may_be_written_in_several_ways(url: str, host: str, port: int) -> None:
    assert http_proxy("teleport.example.com", 443, {"https": url}) == HttpProxy(host, port, "", "")


def test_credentials_are_decoded_and_never_shown() -> None:
    proxy = http_proxy("teleport.example.com", 443, {"https": "http://us%20er:pass%2Fword@proxy:3128"})
    assert proxy is not None
    assert (proxy.user, proxy.password) == ("us er", "pass/word")
    for shown in (str(proxy), repr(proxy), proxy.url):
        assert "word" not in shown
        assert "er:" not in shown


@pytest.mark.parametrize("url", ["socks5://proxy:1080", "https://proxy", "http://", "http://proxy:x", "http://[::1"])
def test_a_url_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(Refusal, match="HTTPS_PROXY"):
        http_proxy("teleport.example.com", 443, {"https": url})


@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [
        ("localhost", ""),
        ("127.0.0.1", ""),
        ("::1", ""),
        ("teleport.example.com", "*"),
        ("teleport.example.com", "example.com"),
        ("teleport.example.com", "other.org, Teleport.Example.com"),
        ("Teleport.example.com", ".example.com"),
        ("teleport.example.com", "*.example.com"),
        ("teleport.example.com", "teleport.example.com:443"),
        ("10.1.2.3", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3"),
        ("10.1.2.3", "10.1.2.3:443"),
        ("fd00::7", "fd00::/8"),
    ],
)
def test_what_needs_no_proxy(host: str, no_proxy: str) -> None:
    assert http_proxy(host, 443, {**PROXY, "no": no_proxy}) is None


@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [
        ("teleport.example.com", ""),
        ("teleport.example.com", "ample.com"),
        ("example.com", ".example.com"),
        ("teleport.example.com", "teleport.example.com:3025"),
        ("10.1.2.3", "192.168.0.0/16,10.1.2.4"),
        ("teleport.example.com", ",, 10.0.0.0/8"),
    ],
)
def test_what_needs_one_all_the_same(host: str, no_proxy: str) -> None:
    assert str(http_proxy(host, 443, {**PROXY, "no": no_proxy})) == "proxy.example.com:3128"
