"""Merging by type, and the words for what is wrong; each with TOML or variables as they come."""

from __future__ import annotations

import tomllib

import pytest

from pov_rt.config.merge import Merged
from pov_rt.config.settings import Settings, SettingsError

SECRET = "s" * 32


def add_toml(merged: Merged, text: str) -> None:
    merged.add(tomllib.loads(text), "a.toml")


def add_variables(merged: Merged, **variables: str) -> None:
    for name in sorted(variables):
        merged.put(name.lower().split("__"), variables[name], f"environment {name}", is_text=True)


def complaint(**variables: str) -> str:
    merged = Merged()
    add_variables(merged, **variables)
    with pytest.raises(SettingsError) as caught:
        merged.build()
    return str(caught.value)


def test_tables_merge_and_lists_replace() -> None:
    merged = Merged()
    add_toml(
        merged,
        "server.allowed_origins = ['https://a.example', 'https://b.example']\n"
        "[auth.roles.member]\n[plugins.poll]\nmax = 5\ncolours.blue = 1\n",
    )
    add_toml(
        merged,
        "server.allowed_origins = ['https://c.example']\n"
        "[auth.roles.lead]\ncan = ['publish']\n[plugins.poll]\ncolours.red = 2\n",
    )
    settings = merged.build()
    assert settings.server.allowed_origins == ["https://c.example"]
    assert {name: role.can for name, role in settings.auth.roles.items()} == {
        "member": [],
        "lead": ["publish"],
    }
    assert settings.plugins == {"poll": {"max": 5, "colours": {"blue": 1, "red": 2}}}


def test_a_table_takes_the_place_of_a_plain_option_and_back() -> None:
    merged = Merged()
    add_toml(merged, "plugins.poll = {a = 1, b = {c = 1}}")
    add_toml(merged, "plugins.poll = {a = {x = 2}, b = 3}")
    assert merged.build().plugins == {"poll": {"a": {"x": 2}, "b": 3}}


def test_nothing_merged_is_the_defaults() -> None:
    assert Merged().build() == Settings()


@pytest.mark.parametrize(
    ("text", "name", "problem"),
    [
        (
            "[server]\nprot = 1",
            "server.prot",
            "there is no such setting; did you mean server.port?",
        ),
        ("port = 1", "port", "there is no such setting; did you mean server.port?"),
        ("[xyzzy]\na = 1", "xyzzy", "there is no such setting"),
        (
            "[auth.roles.'a b']\ncam = []",
            'auth.roles."a b".cam',
            'there is no such setting; did you mean auth.roles."a b".can?',
        ),
        (
            "[server]\nport = 70000",
            "server.port",
            "must be a whole number from 0 to 65535, not 70000",
        ),
        (
            "[server]\nport = '80'",
            "server.port",
            'must be a whole number from 0 to 65535, not "80"',
        ),
        (
            "ping.interval_s = inf",
            "ping.interval_s",
            "must be a number above 0 and at most 1000000000, not Infinity",
        ),
        ("server = 5", "server", "must be a table of settings"),
        (
            "server.port.a = 5",
            "server.port",
            "must be a whole number from 0 to 65535, not an object",
        ),
        (
            "log.level = 'loud'",
            "log.level",
            "must be 'debug', 'info', 'warning' or 'error', not \"loud\"",
        ),
        ("dev = 'yes'", "dev", 'must be true or false, not "yes"'),
        ("plugins.poll = 5", "plugins.poll", "must be a table of settings"),
        (
            "plugins.poll.enabled = 2020-01-01",
            "plugins.poll.enabled",
            "must be true or false",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_file_and_remedy(text: str, name: str, problem: str) -> None:
    merged = Merged()
    add_toml(merged, text)
    with pytest.raises(SettingsError) as caught:
        merged.build()
    assert str(caught.value) == f"{name} (a.toml): {problem}"


@pytest.mark.parametrize(
    ("variable", "value", "name", "problem"),
    [
        ("SERVER__PORT", "80a", "server.port", 'must be a whole number from 0 to 65535, not "80a"'),
        ("SERVER_PORT", "80", "server_port", "there is no such setting; did you mean server.port?"),
        ("SERVER", "80", "server", "must be a table of settings"),
        ("SERVER", '{"port": "80a"}', "server.port", "must be a whole number"),
        ("", "80", '""', "there is no such setting"),
        ("LIMITS__TYPES", '["a"', "limits.types", "this is no JSON: Input data was truncated"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str, name: str, problem: str) -> None:
    assert complaint(**{variable: value}).startswith(f"{name} (environment {variable}): {problem}")


@pytest.mark.parametrize("text", ["[", "[" * 50_000, '["\udcff"]'], ids=["cut", "deep", "bytes"])
def test_a_variable_that_starts_like_json_has_to_be_json(text: str) -> None:
    problem = "plugins.poll.max (environment PLUGINS__POLL__MAX): this is no JSON: "
    assert complaint(PLUGINS__POLL__MAX=text).startswith(problem)


def test_variables_are_read_by_the_type_of_their_setting() -> None:
    merged = Merged()
    add_variables(
        merged,
        DEV="1",
        SERVER__UNIX="",
        SERVER__ALLOWED_ORIGINS="https://a.example, https://b.example,",
        SERVER__ALLOWED_HOSTS='["rt.example"]',
        SERVER__HOST="[::1]",
        LIMITS__TYPES="task",
        LIMITS__ACTIONS="",
        PING__INTERVAL_S="2.5",
        AUTH__ROLES='{"Lead":{"can":["publish"]}}',
        AUTH__ROLES__MEMBER__CAN="subscribe,publish",
        PLUGINS__POLL__MAX="5",
        PLUGINS__POLL__CHOICES='["a","b"]',
        PLUGINS__POLL__ENABLED="false",
    )
    settings = merged.build()
    assert settings.dev is True
    assert settings.server.unix is None
    assert settings.server.allowed_origins == ["https://a.example", "https://b.example"]
    assert settings.server.allowed_hosts == ["rt.example"]
    assert settings.server.host == "[::1]"
    assert (settings.limits.types, settings.limits.actions) == (["task"], None)
    assert settings.ping.interval_s == 2.5
    assert settings.auth.roles["Lead"].can == ["publish"]
    assert settings.auth.roles["member"].can == ["subscribe", "publish"]
    assert settings.plugins == {"poll": {"max": "5", "choices": ["a", "b"], "enabled": False}}


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        (f"{SECRET},{SECRET}", [f"{SECRET},{SECRET}"]),
        (f"{{{SECRET}", [f"{{{SECRET}"]),
        (f"[{SECRET}", [f"[{SECRET}"]),
        (f'["{SECRET}", 5]', [f'["{SECRET}", 5]']),
        (f'["{SECRET}", "old\\n"]', [SECRET, "old\n"]),
        (f" {SECRET}\r\n\n \nold\n", [f" {SECRET}", "old"]),
        (f"[\udcff{SECRET}", [f"[\udcff{SECRET}"]),
        ("[" * 50_000, ["[" * 50_000]),
        ("", []),
    ],
    ids=["comma", "brace", "bracket", "no list", "list", "lines", "bytes", "deep", "empty"],
)
def test_a_secret_in_a_variable_may_have_any_character_in_it(text: str, secrets: list[str]) -> None:
    merged = Merged()
    add_variables(merged, AUTH__SECRETS=text)
    assert merged.build().auth.secrets == secrets


def test_no_complaint_shows_a_secret() -> None:
    for variable in ("AUTH", "AUTH__SECRETS", "AUTH__SECRETS__0"):
        for value in (SECRET, f'["{SECRET}"', f'{{"secrets":"{SECRET}"', f"[{'1' * 40}]"):
            merged = Merged()
            add_variables(merged, **{variable: value})
            try:
                merged.build()
            except SettingsError as error:
                assert SECRET not in str(error)  # noqa: PT017  (some of them are fine)
                assert "1" * 40 not in str(error)  # noqa: PT017
