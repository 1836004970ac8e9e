"""What the settings' types cannot say and `find_problems` does."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pov_rt.config.settings import (
    AuthSettings,
    ServerSettings,
    Settings,
    describe_access,
    find_problems,
)

SECRET = "s" * 32


def problems(**tables: dict[str, Any]) -> list[tuple[str, str]]:
    tables["auth"] = {"secrets": [SECRET], "default_povs": "*"} | tables.get("auth", {})
    tables["server"] = {"data": "/var/lib/pov-rt"} | tables.get("server", {})
    return list(find_problems(msgspec.convert(tables, Settings)))


def test_the_defaults_with_a_key_have_no_problem() -> None:
    assert problems() == []


@pytest.mark.parametrize(
    "auth",
    [
        {"secret_files": ["a"]},
        {"public_key_files": ["a"]},
        {"jwks_file": "a"},
        {"jwks_url": "https://id.example/jwks"},
    ],
)
def test_any_kind_of_key_is_enough(auth: dict[str, Any]) -> None:
    assert problems(auth={"secrets": []} | auth) == []


def test_under_dev_no_key_is_needed() -> None:
    assert list(find_problems(Settings(dev=True, server=ServerSettings(data=".dev")))) == []


@pytest.mark.parametrize(
    ("section", "name", "value", "words"),
    [
        ("auth", "secrets", [SECRET, "ä" * 15], "[1] has 30 bytes; HS256 needs at least 32"),
        ("auth", "secrets", [], "there is no key"),
        ("auth", "jwks_url", "http://id.example/jwks", "must be an https:// URL"),
        ("auth", "jwks_url", "http://8.8.8.8/jwks", "must be an https:// URL"),
        ("auth", "jwks_url", "https://[id/jwks", "must be an https:// URL"),
        ("auth", "jwks_url", "https:jwks", "must be an https:// URL"),
        ("auth", "jwks_url", "ftp://localhost/jwks", "must be an https:// URL"),
        ("auth", "warning_s", 3600, "must be below auth.socket_ttl_s"),
        ("auth", "default_povs", None, 'default_povs = "none"  # no PoV'),
        ("auth", "require_grants", True, "says the opposite of auth.default_povs"),
        ("auth", "issuer", "", "is empty"),
        ("auth", "audiences", ["api", "pov-rt.socket"], "exchanged again and again"),
        ("auth", "audiences", [""], "it is empty"),
        ("auth", "types", [], "no token would be accepted"),
        ("auth", "types", ["at+jwt", ""], "has an empty type"),
        ("server", "trusted_proxies", ["::1", "proxy"], "'proxy' is no IP address"),
        ("server", "trusted_proxies", ["10.0.0.7/8"], "host bits"),
        ("server", "trusted_proxies", ["10.0.0.0/33"], "nor a network like '10.0.0.0/8'"),
        ("server", "client_ip_header", "Forwarded", "is not read"),
        ("server", "admin_port", 8765, "is also server.port"),
        ("server", "allowed_hosts", ["https://a.example"], "is no host name"),
        ("server", "allowed_hosts", ["a.example:80"], "is no host name"),
        ("server", "allowed_hosts", ["*"], "is no host name"),
        ("server", "public_url", "https://rt.example/", "is no origin"),
        ("server", "public_url", "https://rt.example:443", "is no origin"),
        ("server", "public_url", "ftp://rt.example", "is no origin"),
        ("server", "client_ip_header", "X Real IP", "is no name of a header"),
        ("limits", "bodies_bytes_per_user", 1024, "must be from limits.publish_bytes, 4194304,"),
        ("limits", "bodies_bytes_per_user", 1 << 30, "to limits.bodies_bytes, 67108864"),
        ("limits", "failed_rate", "x/s", "'x/s' is no rate"),
        ("limits", "queue_slow_bytes", 1024 * 1024, "must be below limits.queue_bytes, 1048576"),
        ("limits", "details_bytes", 64 * 1024, "must be below limits.message_bytes, 65536"),
        ("limits", "message_rate", "0/s", "'0/s' is no rate; its number must be above 0"),
        ("limits", "token_rate", "5", "'5' is no rate; write it like '5/s'"),
        ("engine", "url", "mysql://host", "there is no engine 'mysql'; there are: memory"),
        ("engine", "url", "", "there is no engine ''"),
    ],
)
def test_a_setting_that_cannot_work_is_told(
    section: str, name: str, value: object, words: str
) -> None:
    ((found, problem),) = problems(**{section: {name: value}})
    assert found == f"{section}.{name}"
    assert words in problem


@pytest.mark.parametrize("scheme", ["memory", "sqlite"])
def test_workers_need_a_log_that_they_share(scheme: str) -> None:
    url = f"{scheme}:///tmp/a"
    (told,) = problems(engine={"url": url}, server={"workers": 4})
    assert told == (
        "server.workers",
        f"4 processes need a log that they share, and {scheme}:// is one process's own: set "
        "engine.url to a redis://HOST, or server.workers to 1",
    )
    for good in ("redis://h", "rediss://h", "redis+sentinel://h", "rediss+sentinel://h"):
        assert problems(engine={"url": good}, server={"workers": 4}) == []


@pytest.mark.parametrize(
    ("ports", "words"),
    [
        ({"port": 8767}, "the workers take 8766 to 8769, and server.port is 8767"),
        ({"admin_port": 65533}, "the last worker's would be 65536; 65535 is the highest"),
        ({"admin_port": 65532}, None),
        ({"port": 8767, "unix": "/run/pov-rt.sock"}, None),
        ({"port": 8770}, None),
        ({"admin_port": 0, "port": 3}, None),
    ],
)
def test_each_worker_has_an_admin_port(ports: dict[str, object], words: str | None) -> None:
    found = problems(engine={"url": "redis://h"}, server={"workers": 4, **ports})
    assert [problem[: len(words or "")] for _, problem in found] == [words] * bool(words)


@pytest.mark.parametrize("sees_all", [True, False])
def test_what_older_versions_called_the_choice_counts_as_one(sees_all: bool) -> None:
    assert problems(auth={"default_povs": None, "require_grants": not sees_all}) == []
    choice = "*" if sees_all else "none"
    assert problems(auth={"default_povs": choice, "require_grants": not sees_all}) == []
    auth = AuthSettings(require_grants=not sees_all)
    assert auth.sees_all_by_default == sees_all
    chosen = msgspec.convert({"default_povs": choice}, AuthSettings)
    assert describe_access(auth) == describe_access(chosen)


def test_one_sentence_says_who_may_see_what() -> None:
    assert describe_access(AuthSettings(default_povs="*")) == (
        "a token may see the PoVs that its claim povs lists, and one without it may see every PoV "
        "of every team"
    )
    auth = AuthSettings(
        default_povs="none", issuer="https://id", audiences=["a", "b"], types=["at+jwt"]
    )
    assert describe_access(auth) == (
        "a token may see the PoVs that its claim povs lists, and one without it may see none (the "
        "app's tokens must have iss 'https://id', aud 'a' or 'b', typ 'at+jwt')"
    )


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "app.example",
        "https://",
        "https://*.example",
        "https://app.example/",
        "https://app.example/path",
        "https://App.example",
        "https://äpp.example",
        "https://user@app.example",
        "https://app.example:443",
        "http://app.example:80",
        "https://app.example:x",
        "https://app.example\n",
        "https://a.example,https://b.example",
    ],
)
def test_what_no_browser_sends_is_no_origin(origin: str) -> None:
    ((name, problem),) = problems(server={"allowed_origins": ["https://a.example", origin]})
    assert name == "server.allowed_origins"
    assert problem.startswith(f"{origin!r} is no origin; write scheme://host")


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example",
        "http://localhost:3000",
        "http://127.0.0.1:8080",
        "https://[2001:db8::1]:8443",
        "https://xn--pp-fka.example",
        "capacitor://localhost",
        "null",
        "file://",
        "app://-",
        "app://",
        "ws://app.example",
        "chrome-extension://abcdefgh",
        "http://app.example:443",
    ],
)
def test_what_browsers_send_is_an_origin(origin: str) -> None:
    assert problems(server={"allowed_origins": [origin], "allowed_hosts": ["[::1]", "a-b.c"]}) == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9000", "[::1]"])
def test_keys_may_come_over_http_from_this_machine(host: str) -> None:
    assert problems(auth={"jwks_url": f"http://{host}/jwks"}) == []


@pytest.mark.parametrize(
    "server", [{"port": 0, "admin_port": 0}, {"admin_port": 8765, "unix": "/run/pov-rt.sock"}]
)
def test_ports_that_do_not_collide_are_no_problem(server: dict[str, Any]) -> None:
    assert problems(server=server) == []


def test_a_pattern_of_povs_says_something_and_with_teams_names_one() -> None:
    good = {"acme-*": {"max_age_s": 60}, "*/x": {"max_entries": 5}}
    assert problems(pov=good) == []
    assert problems(pov={"*/x": {"max_entries": 5}}, auth={"tenants": True}) == []
    for pattern, own, auth, words in (
        ("acme-*", {}, {}, "says nothing"),
        ("", {"max_entries": 5}, {}, "is no pattern of ids"),
        ("a\x1fb", {"max_entries": 5}, {}, "is no pattern of ids"),
        ("acme-*", {"max_entries": 5}, {"tenants": True}, "write 'TEAM/acme-*'"),
    ):
        ((name, problem),) = problems(pov={pattern: own}, auth=auth)
        assert name.startswith("pov.")
        assert words in problem


def test_the_longest_age_is_that_of_any_pattern() -> None:
    settings = msgspec.convert({"engine": {"max_age_s": 10}, "pov": {"a": {}}}, Settings)
    assert settings.longest_s == 10.0
    settings = msgspec.convert({"pov": {"a": {"max_age_s": 1e8}}}, Settings)
    assert settings.longest_s == 1e8
