"""The sources of the settings, with real files and folders; the environment is handed in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pov_rt.config import load as config
from pov_rt.config.load import Loaded, check, dev_secret, load, reloadable, show
from pov_rt.config.settings import ENGINES, MIN_SECRET_BYTES, Settings, SettingsError
from pov_rt.registry.build import build_registry
from tests.processes import running

SECRET = "s" * MIN_SECRET_BYTES


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pov-rt.toml"
    path.touch(mode=0o600)
    return path


def load_text(file: Path, text: str, **environ: str) -> Loaded:
    file.write_text(text, encoding="utf-8")
    return load(file=file, flags={}, environ=environ)


def load_environ(**environ: str) -> Loaded:
    return load(file=None, flags={}, environ=environ)


def environ_complaint(**environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_environ(**environ)
    return str(caught.value)


def test_without_any_source_every_setting_is_its_default() -> None:
    loaded = load_environ()
    assert loaded.settings == Settings()
    assert set(loaded.sources.values()) == {"default"}
    assert loaded.sources["auth.grace_s"] == "default"
    assert loaded.warnings == ()


def test_a_later_source_wins_and_each_setting_names_its_source(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "conf.d"
    folder.mkdir()
    (folder / "20-b.toml").write_text("ping.interval_s = 20")
    (folder / "10-a.toml").write_text("ping = {interval_s = 10, timeout_s = 5}")
    (folder / ".#20-b.toml").write_text("what an editor left")
    (folder / "README").write_text("not TOML")
    file.write_text("limits.subscriptions = 1\nserver.host = '::'\nserver.port = 1\n")
    loaded = load(
        file=file,
        flags={"server.port": 3, "server.unix": None},
        environ={"POV_RT_SERVER__PORT": "2", "POV_RT_SERVER__HOST": "::1", "PATH": "/bin"},
    )
    server, ping = loaded.settings.server, loaded.settings.ping
    assert (server.host, server.port, server.unix) == ("::1", 3, None)
    assert (ping.interval_s, ping.timeout_s) == (20, 5)
    expected = {
        "limits.subscriptions": str(file),
        "ping.timeout_s": str(folder / "10-a.toml"),
        "ping.interval_s": str(folder / "20-b.toml"),
        "server.host": "environment POV_RT_SERVER__HOST",
        "server.port": "--port",
        "server.unix": "default",
    }
    assert {name: loaded.sources[name] for name in expected} == expected


def test_the_file_is_found_by_variable_or_at_its_usual_place(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("server.port = 1")
    assert load_environ(POV_RT_CONFIG=str(file)).settings.server.port == 1
    monkeypatch.setattr(config, "DEFAULT_FILE", file)
    assert load_environ(POV_RT_CONFIG="").sources["server.port"] == str(file)


def test_a_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    with pytest.raises(SettingsError, match=f"^--config: there is no file {missing}$"):
        load(file=missing, flags={}, environ={})
    assert environ_complaint(POV_RT_CONFIG=str(missing)).startswith("environment POV_RT_CONFIG:")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"^cannot read {tmp_path}: Is a directory$"):
        load(file=tmp_path, flags={}, environ={})
    too_long = tmp_path / ("x" * 300)
    with pytest.raises(SettingsError, match=r"cannot read .*: File name too long"):
        load(file=too_long, flags={}, environ={})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a = 1\nb = = 2\n", "Invalid value (at line 2, column 5)"),
        (b"[server]\nport =", "Invalid value (at line 2, the end of the file)"),
        (b"\xef\xbb\xbf[server]\nhost = '\xff'\n", "line 2 is not UTF-8"),
        (b"a = " + b"[" * 5000, "maximum recursion depth exceeded"),
    ],
)
def test_a_syntax_error_names_file_and_line(file: Path, content: bytes, problem: str) -> None:
    file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load(file=file, flags={}, environ={})
    assert str(caught.value).startswith(f"{file}: {problem}")


def test_a_byte_order_mark_is_no_error(file: Path) -> None:
    assert load_text(file, "\ufeffserver.port = 5").settings.server.port == 5


def test_credentials_stand_over_variables(tmp_path: Path) -> None:
    (tmp_path / "jwt-secret").write_text(f"{SECRET}new\r\n\n{SECRET}old")
    (tmp_path / "jwt-public-key-b.pem").touch()
    (tmp_path / "jwt-public-key-a.pem").touch()
    (tmp_path / "jwks.json").touch()
    loaded = load_environ(CREDENTIALS_DIRECTORY=str(tmp_path), POV_RT_AUTH__SECRETS="x")
    assert loaded.settings.auth.secrets == [f"{SECRET}new", f"{SECRET}old"]
    names = ["jwt-public-key-a.pem", "jwt-public-key-b.pem"]
    assert loaded.settings.auth.public_key_files == [str(tmp_path / name) for name in names]
    assert loaded.settings.auth.jwks_file == str(tmp_path / "jwks.json")
    assert loaded.sources["auth.secrets"] == "credential jwt-secret"
    assert loaded.sources["auth.public_key_files"] == f"credential {', '.join(names)}"
    assert loaded.sources["auth.jwks_file"] == "credential jwks.json"


@pytest.mark.parametrize(
    ("content", "problem"), [(b"\n \n", "is empty"), (b"\xff" * 40, "is no text; it needs")]
)
def test_an_unusable_secret_credential_is_named(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    (tmp_path / "jwt-secret").write_bytes(content)
    expected = f"auth.secrets (credential jwt-secret): {tmp_path}/jwt-secret {problem}"
    assert environ_complaint(CREDENTIALS_DIRECTORY=str(tmp_path)).startswith(expected)


def test_the_data_folder_is_systemds_or_under_dev_a_local_one() -> None:
    loaded = load_environ(STATE_DIRECTORY="/var/lib/a:/var/lib/b", POV_RT_DEV="1")
    assert loaded.settings.server.data == "/var/lib/a"
    assert loaded.sources["server.data"] == "environment STATE_DIRECTORY"
    loaded = load_environ(POV_RT_DEV="1")
    assert loaded.settings.server.data == ".dev"
    assert loaded.sources["server.data"] == "default under --dev"
    assert load_environ(STATE_DIRECTORY="/a", POV_RT_SERVER__DATA="/b").settings.server.data == "/b"


def test_a_file_with_a_secret_that_everybody_can_read_is_warned_of(
    file: Path, tmp_path: Path
) -> None:
    credential, missing = tmp_path / "jwt-secret", tmp_path / "missing"
    credential.write_text(SECRET)
    for path in (file, credential):
        path.chmod(0o644)
    text = f"auth.secrets = ['{SECRET}']\nauth.secret_files = ['{credential}', '{missing}']"
    assert load_text(file, text).warnings == tuple(
        f"{path} has a secret, and all users can get at it; run: chmod o= {path}"
        for path in sorted((str(file), str(credential)))
    )
    assert load_text(file, "server.port = 1").warnings == ()
    file.chmod(0o640)
    credential.chmod(0o640)
    assert load_text(file, text).warnings == ()
    credential.chmod(0o604)
    assert len(load_environ(CREDENTIALS_DIRECTORY=str(tmp_path)).warnings) == 1


@pytest.mark.parametrize(
    ("more", "count"),
    [
        ("", 1),
        ("server.public_url = 'https://rt.example'", 0),
        ("server.trusted_proxies = ['10.0.0.2']", 0),
        ("server.unix = '/run/pov-rt.sock'", 0),
    ],
)
def test_hosts_whose_scheme_nobody_tells_are_warned_of(file: Path, more: str, count: int) -> None:
    file.touch(mode=0o600)
    warnings = load_text(file, f"server.allowed_hosts = ['rt.example']\n{more}").warnings
    assert ["set server.public_url" in each for each in warnings] == [True] * count


def test_an_origin_that_any_site_can_have_is_warned_of(file: Path) -> None:
    file.touch(mode=0o600)
    for origins, count in (("['null']", 1), ("['file://', 'https://a.example']", 0)):
        warnings = load_text(file, f"server.allowed_origins = {origins}").warnings
        assert ["sandboxed frame" in each for each in warnings] == [True] * count


def test_show_yields_every_setting_and_masks_what_is_secret(file: Path) -> None:
    loaded = load_text(
        file,
        f"""
        auth.secrets = ['{SECRET}', '{SECRET}']
        engine.url = 'redis://app:{SECRET}/@host/0?password={SECRET}&db=1'
        engine.redis.sentinel_password = 'short'
        server.allowed_hosts = ['ä.example']
        [plugins.poll]
        api_key = '{SECRET}'
        max = 5
        hooks = [{{ url = 'https://u:{SECRET}@host', token = '{SECRET}', at = 2020-01-01 }}]
        """,
        POV_RT_SERVER__DATA="/a\udcff\x1b[2J",
    )
    shown = {name: (text, source) for name, text, source in show(loaded)}
    assert shown["auth.secrets"] == ('["****", "****"]', str(file))
    assert shown["engine.url"][0] == '"redis://****@host/0?password=****&db=****"'
    assert shown["engine.redis.sentinel_password"][0] == '"****"'
    assert shown["plugins.poll.api_key"][0] == '"****"'
    assert shown["plugins.poll.max"] == ("5", str(file))
    assert shown["plugins.poll.hooks"][0] == (
        '[{"url": "https://****@host", "token": "****", "at": "2020-01-01"}]'
    )
    assert shown["server.unix"] == ("null", "default")
    assert shown["auth.roles"] == ("{}", "default")
    assert all(text.isascii() and text.isprintable() for text, _ in shown.values())
    assert SECRET not in str(shown)


def test_check_tells_every_problem_with_its_source(file: Path) -> None:
    text = "engine.url = 'mysql://'\nauth.require_grants = true"
    loaded = load_text(file, text, POV_RT_AUTH__SECRETS="short")
    with pytest.raises(SettingsError) as caught:
        check(loaded)
    assert str(caught.value).splitlines() == [
        "auth.secrets (environment POV_RT_AUTH__SECRETS): "
        "[0] has 5 bytes; HS256 needs at least 32; make a secret with: openssl rand -base64 48",
        f"engine.url ({file}): there is no engine 'mysql'; there are: {', '.join(ENGINES)}",
    ]


@pytest.mark.parametrize(
    ("environ", "sees_all", "source"),
    [
        ({"POV_RT_DEV": "1"}, True, "default under --dev"),
        ({"POV_RT_AUTH__DEFAULT_POVS": "none"}, False, "environment POV_RT_AUTH__DEFAULT_POVS"),
        ({"POV_RT_DEV": "1", "POV_RT_AUTH__REQUIRE_GRANTS": "true"}, False, "default"),
        ({"POV_RT_AUTH__REQUIRE_GRANTS": "0"}, True, "default"),
        ({}, False, "default"),
    ],
)
def test_under_dev_a_token_without_povs_sees_all_unless_it_is_said_otherwise(
    environ: dict[str, str], sees_all: bool, source: str
) -> None:
    loaded = load_environ(**environ)
    assert loaded.settings.auth.sees_all_by_default == sees_all
    assert loaded.sources["auth.default_povs"] == source


@pytest.mark.parametrize(
    ("name", "words"),
    [("DEFAULT_POVS", "must be '*' or 'none'"), ("REQUIRE_GRANTS", "must be true or false")],
)
def test_a_choice_that_is_none_is_told_what_there_is(name: str, words: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(words)):
        load_environ(**{f"POV_RT_AUTH__{name}": "all"})


def test_the_dev_secret_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    data = tmp_path / "a" / "data"
    settings = load_environ(POV_RT_DEV="1", POV_RT_SERVER__DATA=str(data)).settings
    (secret,) = dev_secret(settings).auth.secrets
    assert len(secret) >= MIN_SECRET_BYTES
    assert dev_secret(settings).auth.secrets == [secret]
    assert (data / "dev-secret").stat().st_mode & 0o777 == 0o600
    assert os.listdir(data) == ["dev-secret"]


def test_processes_that_start_at_once_agree_on_the_dev_secret(tmp_path: Path) -> None:
    script = (
        "import sys; from pov_rt.config.load import dev_secret, load\n"
        "settings = load(file=None, flags={'dev': True}, environ={}).settings\n"
        "sys.stdin.read(); print(dev_secret(settings).auth.secrets[0])"
    )
    command = [sys.executable, "-c", script]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                running(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            for _ in range(3)
        ]
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None
        outputs = {process.communicate(timeout=20)[0] for process in processes}
    assert outputs == {(tmp_path / ".dev" / "dev-secret").read_text()}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"POV_RT_DEV": "1", "POV_RT_AUTH__SECRETS": SECRET},
        {"POV_RT_DEV": "1", "POV_RT_AUTH__SECRET_FILES": "/x"},
    ],
)
def test_a_secret_is_made_only_under_dev_without_one(environ: Mapping[str, str]) -> None:
    settings = load(file=None, flags={}, environ=environ).settings
    assert dev_secret(settings) is settings


def test_a_dev_secret_that_cannot_be_kept_or_used_is_told(tmp_path: Path) -> None:
    def make(data: Path) -> None:
        dev_secret(load_environ(POV_RT_DEV="1", POV_RT_SERVER__DATA=str(data)).settings)

    (tmp_path / "dev-secret").write_text("short")
    with pytest.raises(SettingsError, match=r"the secret in .*/dev-secret is damaged; delete"):
        make(tmp_path)
    with pytest.raises(SettingsError, match=r"cannot keep a secret in .*: File exists"):
        make(tmp_path / "dev-secret")


def test_a_reload_applies_keys_origins_and_log_level_only() -> None:
    def settings(**environ: Any) -> Settings:
        return load_environ(**{f"POV_RT_{name}": value for name, value in environ.items()}).settings

    old = settings(PLUGINS__POLL__MAX="5")
    new = settings(
        AUTH__SECRETS=SECRET,
        AUTH__ROLES__LEAD__CAN="publish",
        SERVER__ALLOWED_ORIGINS="https://a.example",
        SERVER__ALLOWED_HOSTS="a.example",
        LOG__LEVEL="debug",
        LOG__FORMAT="json",
        SERVER__PORT="1",
        PLUGINS__POLL__LEAST="5",
    )
    applied, restart = reloadable(old, new)
    assert set(applied) == {
        "auth.secrets",
        "auth.roles",
        "auth.roles.lead.can",
        "server.allowed_origins",
        "server.allowed_hosts",
        "log.level",
    }
    assert restart == ["log.format", "plugins.poll.least", "plugins.poll.max", "server.port"]
    assert reloadable(old, old) == ([], [])


def test_the_example_of_the_docs_is_a_file_and_its_variables_that_work(file: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/configuration.md").read_text()
    text = page.split("\n## An example\n")[1].split("\n## ")[0]
    (toml,) = re.findall(r"```toml\n(.*?)```", text, re.S)
    loaded = load_text(file, toml, POV_RT_AUTH__SECRETS=SECRET, STATE_DIRECTORY="/var/lib/pov-rt")
    check(loaded)
    build_registry(loaded.settings.plugins)
    assert loaded.settings.server.trusted_proxies == ["127.0.0.1"]
    (shell,) = re.findall(r"```bash\n(.*?)```", text, re.S)
    printed = subprocess.run(
        ["bash", "-c", f"set -a; {shell}\nenv -0"],
        capture_output=True,
        text=True,
        check=True,
        env={},
    )
    environ = dict(line.split("=", 1) for line in printed.stdout.split("\0") if "=" in line)
    settings = load_environ(**environ).settings
    assert settings.server.allowed_origins == ["https://app.example", "https://other.example"]
    assert settings.limits.types == ["task", "phase"]
    assert settings.auth.roles["lead"].can == ["subscribe", "publish"]
    assert len(settings.auth.secrets) == 1


def test_the_token_of_the_commands_is_no_setting() -> None:
    assert load_environ(POV_RT_TOKEN="x").settings == Settings()


def test_a_pattern_of_povs_that_cannot_work_is_named_with_its_file(file: Path) -> None:
    good = {
        "POV_RT_AUTH__SECRETS": SECRET,
        "POV_RT_AUTH__DEFAULT_POVS": "*",
        "STATE_DIRECTORY": "/var/lib/pov-rt",
    }
    loaded = load_text(file, '[pov."acme-*"]\n[pov.demo]\nmax_entries = 5\n', **good)
    with pytest.raises(SettingsError) as raised:
        check(loaded)
    assert str(raised.value) == (
        f'pov."acme-*" ({file}): says nothing: set max_age_s, max_entries, audit, or several'
    )
    with pytest.raises(SettingsError, match=r'pov\."acme-\*"\.max_age_s'):
        load_text(file, '[pov."acme-*"]\nmax_age_s = 0\n', **good)
    shown = {name: value for name, value, _ in show(loaded)}
    assert shown["pov.demo.max_entries"] == "5"


def test_a_schemas_path_is_that_of_the_file_that_names_it(file: Path, tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "more.toml").write_text('activities."task.*".details = "more.json"')
    loaded = load_text(
        file,
        '[activities."task.completed"]\ndetails = "schemas/task.json"\n'
        '[activities."task.begun"]\ndetails = "/etc/begun.json"\n[activities."a.b"]\n',
    )
    assert {key: each.details for key, each in loaded.settings.activities.items()} == {
        "task.completed": str(tmp_path / "schemas/task.json"),
        "task.begun": "/etc/begun.json",
        "task.*": str(tmp_path / "conf.d/more.json"),
        "a.b": None,
    }
    assert loaded.sources['activities."task.completed".details'] == str(file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("activities = 5", "activities"),
        ("activities.x = 5", "activities.x"),
        ("activities.x.details = 5", "activities.x.details"),
        ('[activities.task.completed]\ndetails = "x"', "activities.task.completed"),
    ],
)
def test_what_is_no_table_of_activities_is_named(file: Path, text: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_text(file, text)
    assert str(caught.value).startswith(f"{words} ({file}): ")


def test_a_name_with_a_dot_that_lacks_its_quotation_marks_is_shown_with_them(file: Path) -> None:
    for table, written in (
        ("activities.task.completed", 'activities."task.completed"'),
        ("auth.roles.head.of", 'auth.roles."head.of"'),
    ):
        with pytest.raises(SettingsError) as caught:
            load_text(file, f"[{table}]\n")
        assert str(caught.value).endswith(f"a name with a dot needs quotation marks: {written}")


def test_activities_are_what_a_reload_takes_over(file: Path) -> None:
    old = load_text(file, "").settings
    new = load_text(file, 'activities."a.b".details = "x.json"').settings
    assert reloadable(old, new)[1] == reloadable(new, old)[1] == []
    assert 'activities."a.b".details' in reloadable(old, new)[0]
