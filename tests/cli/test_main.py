"""The commands, as processes: what a user types and sees."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

from pov_rt.registry.scaffold import PLUGIN
from tests.processes import SECRET, run


def test_no_commands_first_sentence_is_cut(tmp_path: Path) -> None:
    shown = run(tmp_path, "--help").stdout
    assert "\n  serve " in shown
    assert "..." not in shown.partition("Commands:")[2]


def test_config_check_and_show(tmp_path: Path) -> None:
    good = run(tmp_path, "config", "check", POV_RT_AUTH__SECRETS=SECRET)
    assert (good.returncode, good.stdout) == (
        0,
        "the settings are good: a token may see the PoVs that its claim povs lists, "
        "and one without it may see every PoV of every team\n",
    )
    bad = run(tmp_path, "config", "check", POV_RT_AUTH__SECRETS="short")
    assert (bad.returncode, "auth.secrets" in bad.stderr) == (1, True)
    undecided = {"POV_RT_AUTH__SECRETS": SECRET, "POV_RT_AUTH__DEFAULT_POVS": ""}
    open_question = run(tmp_path, "config", "check", **undecided)
    assert open_question.returncode == 1
    for line in ('default_povs = "*"', 'default_povs = "none"'):
        assert f"\n  {line} " in open_question.stderr
    shown = run(tmp_path, "config", "show", POV_RT_AUTH__SECRETS=SECRET)
    assert SECRET not in shown.stdout
    assert "environment POV_RT_AUTH__SECRETS" in shown.stdout
    development = run(tmp_path, "config", "check", "--dev")
    assert (development.returncode, (tmp_path / "data").exists()) == (0, False)


def test_schema_and_plugins_list_know_the_settings(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "greet.py").write_text(PLUGIN.format(name="greet"))
    file = tmp_path / "pov-rt.toml"
    file.write_text(
        '[server]\nplugins_dir = "more"\nport = 9000\n[plugins.ping]\nenabled = false\n'
    )
    for side in ("asyncapi", "openapi"):
        done = run(tmp_path, "schema", side, "--config", str(file))
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert "127.0.0.1:9000" in json.dumps(document["servers"])
        if side == "asyncapi":
            assert "receive.greet.say" in document["operations"]
            assert "receive.ping" not in document["operations"]
    done = run(tmp_path, "schema", "typescript", "--config", str(file))
    assert "\n  'greet.say': GreetSaid\n" in done.stdout
    assert "ping: " not in done.stdout
    listed = run(tmp_path, "plugins", "list", "--config", str(file)).stdout
    assert "greet.say" in listed
    assert re.search(r"^ping +built-in +off: plugins.ping.enabled is false$", listed, re.M)


def test_plugins_list_names_every_type(tmp_path: Path) -> None:
    done = run(tmp_path, "plugins", "list")
    rows = [line.split()[:2] for line in done.stdout.splitlines()]
    names = sorted(path.stem for path in Path("plugins").glob("[a-z]*.py"))
    assert rows == [[name, "built-in"] for name in names]
    for name in ("authoriser", "webhooks"):
        assert f"off: plugins.{name}.url is not set" in done.stdout


def test_before_a_reload_settings_are_checked_without_credentials(tmp_path: Path) -> None:
    """What systemd runs for a reload cannot read them; a reload does not take them over either."""
    file = tmp_path / "pov-rt.toml"
    file.write_text("[server]\n")
    check, gone = ("config", "check", "--config", str(file)), str(tmp_path / "gone")
    done = run(tmp_path, *check, CREDENTIALS_DIRECTORY=gone)
    assert (done.returncode, "config check --reload" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr
    done = run(tmp_path, *check, "--reload", CREDENTIALS_DIRECTORY=gone)
    assert (done.returncode, done.stderr) == (0, "")
    done = run(tmp_path, *check, "--reload")
    assert (done.returncode, "there is no key" in done.stderr) == (1, True), "none is to come"
    file.write_text("[server]\ncolour = 3\n")
    done = run(tmp_path, *check, "--reload", CREDENTIALS_DIRECTORY=gone)
    assert (done.returncode, "colour" in done.stderr) == (1, True)


def test_config_check_names_every_mistake_at_once(tmp_path: Path) -> None:
    file = tmp_path / "rt.toml"
    file.write_text(
        '[server]\nprot = 1\nadmin_port = "x"\nallowed_origins = ["no origin"]\n'
        '[log]\nlevel = "loud"\n[engine]\nurl = "nosql://"\n[plugins.nobody]\n'
    )
    given = {"POV_RT_AUTH__GRACE_S": "soon", "POV_RT_PING__INTERVALS": "5"}
    done = run(tmp_path, "config", "check", "--config", str(file), **given)
    assert done.returncode == 1
    for name in ("server.prot", "admin_port", "log.level", "auth.grace_s", "ping.intervals"):
        assert name in done.stderr, done.stderr
    assert "must be 'debug', 'info', 'warning' or 'error', not" in done.stderr
    file.write_text(
        '[server]\nallowed_origins = ["no origin"]\n[engine]\nurl = "nosql://"\n[plugins.nobody]\n'
        '[activities."task.completed"]\ndetails = "none.json"\n'
    )
    done = run(tmp_path, "config", "check", "--config", str(file))
    for words in (
        "allowed_origins",
        f"{tmp_path}/none.json: cannot be read",
        "there is no engine",
        "no key",
        "no plugin of that name",
    ):
        assert words in done.stderr, done.stderr


def test_plugins_list_says_what_is_off_and_new_refuses_what_cannot_load(tmp_path: Path) -> None:
    off = {"POV_RT_PLUGINS__PRESENCE__ENABLED": "false"}
    lines = run(tmp_path, "plugins", "list", **off).stdout.splitlines()
    (presence,) = [line for line in lines if line.startswith("presence ")]
    assert presence.endswith("off: plugins.presence.enabled is false")
    for name, words in (
        ("presence", "the server's own"),
        ("pov", "the server's own"),
        ("class", "cannot be called"),
        ("Poll", "begin with a small letter"),
    ):
        done = run(tmp_path, "plugins", "new", name)
        assert (done.returncode, words in done.stderr) == (1, True), done.stderr
    done = run(tmp_path, "plugins", "new", "poll", "--dir", "nowhere")
    assert "there is no folder nowhere" in done.stderr
    assert list(tmp_path.glob("*.py")) == []


def test_a_port_in_use_says_which_flag_chooses_another(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for flags, flag in (
            (["--port", port, "--admin-port", "0"], "--port (server.port)"),
            (["--port", "0", "--admin-port", port], "--admin-port (server.admin_port)"),
        ):
            done = run(tmp_path, "serve", *flags, POV_RT_AUTH__SECRETS="x" * 40,
                       POV_RT_ENGINE__URL="memory://")  # fmt: skip
            assert done.returncode == 1
            assert f"127.0.0.1:{port}: another program does already" in done.stderr
            assert flag in done.stderr
            assert "Errno" not in done.stderr


def test_a_command_loads_none_of_the_others() -> None:
    code = (
        "import sys, click\n"
        "from pov_rt.cli.main import MODULES, main\n"
        "main.get_command(click.Context(main), 'serve')\n"
        "import pov_rt.cli.node.process\n"
        "names = {f'pov_rt.cli.{each}' for each in MODULES.values()} | {'pov_rt.client'}\n"
        "print(*sorted(names & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["pov_rt.cli.node.serve"]


def test_what_talks_to_a_server_loads_nothing_that_is_one() -> None:
    code = (
        "import sys\n"
        "from pov_rt.cli import client, explain, people, publisher, tail\n"
        "from pov_rt.cli.bench import command\n"
        "from pov_rt.cli.top import command\n"
        "parts = [f'pov_rt.{each}' for each in ('engine.sqlite', 'registry', 'server', 'web')]\n"
        "print(*sorted(each for each in sys.modules if each.startswith(('tornado', *parts))))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
