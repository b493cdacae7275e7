"""Which proxy leads to Teleport is read from the environment as Teleport's own clients read it."""

import pytest

from services.watcher.teleport.forward_proxy import ForwardProxy, Refusal, forward_proxy

PROXY = {"https": "http://proxy.example.com:3128"}


def test_https_proxy_comes_before_http_proxy_and_both_lead_to_teleport() -> None:
    both = {"https": "http://one:1", "http": "http://two:2"}
    assert str(forward_proxy("teleport.example.com", 443, both)) == "http://one:1 (HTTPS_PROXY)"
    assert str(forward_proxy("teleport.example.com", 443, {"http": "http://two:2"})) == "http://two:2 (HTTP_PROXY)"
    assert forward_proxy("teleport.example.com", 443, {}) is None


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port"),
    [
        ("http://proxy:3128", "http", "proxy", 3128),
        ("HTTP://proxy:3128", "http", "proxy", 3128),
        ("proxy:3128", "http", "proxy", 3128),
        ("http://proxy/", "http", "proxy", 80),
        ("http://[::1]:3128", "http", "::1", 3128),
        ("https://proxy", "https", "proxy", 443),
        ("socks5://proxy", "socks5", "proxy", 1080),
        ("socks5h://proxy:9050", "socks5h", "proxy", 9050),
    ],
)
def test_a_proxy_may_be_written_in_several_ways(url: str, scheme: str, host: str, port: int) -> None:
    found = forward_proxy("teleport.example.com", 443, {"https": url})
    assert found == ForwardProxy(scheme, host, port, "HTTPS_PROXY")


def test_credentials_are_decoded_and_never_shown() -> None:
    proxy = forward_proxy("teleport.example.com", 443, {"https": "http://us%20er:pass%2Fword@proxy:3128"})
    assert proxy is not None
    assert (proxy.user, proxy.password) == ("us er", "pass/word")
    for shown in (str(proxy), repr(proxy)):
        assert "word" not in shown
        assert "er:" not in shown


@pytest.mark.parametrize(
    "url", ["socks4://proxy:1080", "ftp://u:secret@proxy", "http://", "http://u:secret@proxy:x", "http://[::1"]
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(Refusal, match="HTTPS_PROXY must be") as caught:
        forward_proxy("teleport.example.com", 443, {"https": url})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("credentials", ["u:p%C3%A4ss", f"u:{'x' * 256}", f"{'x' * 256}:p"])
def test_credentials_that_socks_cannot_carry_are_refused(credentials: str) -> None:
    with pytest.raises(Refusal, match="HTTP_PROXY: a SOCKS proxy takes"):
        forward_proxy("teleport.example.com", 443, {"http": f"socks5://{credentials}@proxy"})
    assert forward_proxy("teleport.example.com", 443, {"http": f"http://{credentials}@proxy"})


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
        ("fd00::7", "fd00::7"),
        ("fd00::7", "FD00:0::7"),
        ("fd00::7", "[fd00::7]:443"),
        ("fd00::7", "10.0.0.0/8,[fd00::7]"),
    ],
)
def test_what_needs_no_proxy(host: str, no_proxy: str) -> None:
    assert forward_proxy(host, 443, {**PROXY, "no": no_proxy}) is None


@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [
        ("teleport.example.com", ""),
        ("teleport.example.com", "ample.com"),
        ("example.com", ".example.com"),
        ("teleport.example.com", "teleport.example.com:3025"),
        ("10.1.2.3", "192.168.0.0/16,10.1.2.4"),
        ("teleport.example.com", ",, 10.0.0.0/8"),
        ("teleport.example.com", ":443"),
        ("10.1.2.3", "10.1.2.3:3025"),
        ("fd00::7", "[fd00::7]:3025,10.0.0.0/8"),
    ],
)
def test_what_needs_one_all_the_same(host: str, no_proxy: str) -> None:
    assert str(forward_proxy(host, 443, {**PROXY, "no": no_proxy})) == "http://proxy.example.com:3128 (HTTPS_PROXY)"
