"""What is secret in a text, and what is left of it."""

from __future__ import annotations

import jwt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pov_rt.protocol.redaction import is_secret, redact, redact_url

TOKEN = jwt.encode({"userId": "alice"}, "s" * 32)
SAFE = "abcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;="


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"a {TOKEN} b", "a [token] b"),
        (f"({TOKEN[:-20]}", "([token]"),
        (f"x%3D{TOKEN.replace('.', '%2E')}&a=1", "x%3D[token]&a=1"),
        ("/ws/?a=1&token=abc&b=2", "/ws/?a=1&token=[token]&b=2"),
        ("accessToken=abc; theme=dark", "accessToken=[token]; theme=dark"),
        ("pov-rt.v1, bearer.abc.def", "pov-rt.v1, bearer.[token]"),
        ("BEARER abcdefgh", "BEARER [token]"),
        ("Authorization: Basic dTpw", "Authorization: Basic [token]"),
        ("{'Authorization': 'Bearer abc', 'a': 1}", "{'Authorization': 'Bearer [token]', 'a': 1}"),
        (r'{"m":"{\"authorization\": \"abc\"}"}', r'{"m":"{\"authorization\": \"[token]\"}"}'),
        ("no bearer token", "no bearer token"),
        ("authorization failed for user", "authorization failed for user"),
        ("GET /api/auth/ws-token 200", "GET /api/auth/ws-token 200"),
        ("hey.Joe.is", "hey.Joe.is"),
    ],
)
def test_what_looks_like_a_token_is_redacted_and_nothing_else(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://idp.example/jwks", "https://idp.example/jwks"),
        (
            "https://idp.example:8443/realms/main/certs",
            "https://idp.example:8443/realms/main/certs",
        ),
        ("http://user:pass@[::1]:80/jwks?apikey=S&x", "http://****@[::1]:80/jwks?apikey=****&****"),
        ("http://user@h/", "http://****@h/"),
        ("redis://app:a/b?c#d@h/0?db=1", "redis://****@h/0?db=****"),
        ("http://h:80/a@b/c", "http://h:80/****/c"),
        ("http://user:0/S/@h/c", "http://user:0/****/c"),
        ("http://h/a?mail=a@b&c", "http://h/****"),
        ("http://user:@S#@h/c", "http://****"),
        ("http://user:a/b@h/c?key=a@S", "http://****"),
        ("http://a@b:c@h/d", "http://****@h/d"),
        ("sqlite:///srv/a@b/c", "sqlite:///srv/a@b/c"),
        ("http://h?a=1;b=2#c", "http://h?a=****&b=****#****"),
        ("https://h/T0/B0/aB3dE5gH7jK9mN1pQ3sT5vW7", "https://h/T0/B0/****"),
        ("https://h/bot123456789:AAExyz-abc_defgHIJ/send", "https://h/****/send"),
        ("https://h/0123456789abcdef0123/x", "https://h/****/x"),
        ("https://h/openid-configuration", "https://h/openid-configuration"),
        (
            "sqlite:///var/lib/pov-rt-1234567/pov-rt.db",
            "sqlite:///var/lib/pov-rt-1234567/pov-rt.db",
        ),
        ("sqlite://", "sqlite://"),
        ("memory://", "memory://"),
    ],
)
def test_of_a_url_only_what_says_where_it_leads_is_left(url: str, expected: str) -> None:
    assert redact_url(url) == expected
    assert redact(f"cannot fetch {url}") == f"cannot fetch {expected}"
    assert redact(f"cannot fetch '{url}', so") == f"cannot fetch '{expected}', so"
    assert redact(f'{{"message":"({url}): no"}}') == f'{{"message":"({expected}): no"}}'
    assert redact(redact(url)) == expected


@given(
    st.text("/?#@:%" + SAFE, max_size=10),
    st.text("/?#@:%" + SAFE, max_size=10),
    st.text("?&;=@/" + SAFE, max_size=10),
    st.sampled_from(["h.example", "h.example:8443", "[::1]", "[::1]:80"]),
)
@example("@", "#", "", "h.example")
@example("0/", "/", "", "h.example")
@example("0?", "=", "", "h.example")
def test_no_part_of_a_password_or_of_a_query_is_left(
    before: str, after: str, more: str, host: str
) -> None:
    secret = "CANARY"
    for url in (
        f"http://user:{before}{secret}{after}@{host}/jwks",
        f"http://{secret}:pw@{host}/jwks",
        f"http://{host}/jwks?key={secret}{more}",
        f"http://{host}/jwks?{secret}",
        f"http://{host}/jwks#{secret}{more}",
    ):
        assert secret not in redact_url(url), url
        assert secret not in redact(f"cannot fetch {url}: no"), url


@pytest.mark.parametrize(
    ("name", "value", "hidden"),
    [
        *((name, "x", True) for name in ("secret", "api_key", "apikey", "key", "keys", "password")),
        *((name, "x", True) for name in ("passwd", "auth_token", "headers", "headers.X", "pin")),
        *((name, "x", True) for name in ("secrets.main", "Authorization", "cookie", "private_pem")),
        *((name, "x", False) for name in ("url", "keyboard", "monkey", "pinned", "ttl", "events")),
        ("pin", 1234, True),
        ("token_ttl_s", 60, False),
        ("secret", None, False),
        ("private", True, False),
    ],
)
def test_an_options_name_says_whether_it_is_a_secret(
    name: str, value: object, hidden: bool
) -> None:
    assert is_secret(name, value) is hidden
