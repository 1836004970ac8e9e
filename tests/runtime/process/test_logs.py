"""The log's lines, written to real pipes, files and terminals."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from pov_rt.protocol.tenants import TenantId
from pov_rt.runtime.bounds import Shares
from pov_rt.runtime.clock import ManualClock
from pov_rt.runtime.process import logs
from pov_rt.runtime.process.logs import (
    MAX_CHARS,
    LineFormatter,
    Throttle,
    configure,
)

TOKEN = jwt.encode({"userId": "alice"}, "s" * 32)
BIDI = "a\nb\x1b[2J\x7f\x85\u2028\u202e\u2066\ufeffz"

log = logging.getLogger("tests.logs")


@pytest.fixture(autouse=True)
def restored_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    logging.getLogger("tornado.general").setLevel(logging.NOTSET)
    root.handlers = handlers
    root.setLevel(level)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def use(stream: io.StringIO, **settings: Any) -> None:
    configure(
        settings.get("format", "auto"), settings.get("level", "info"), stream=stream, environ={}
    )


def fail(message: str = "") -> None:
    raise ValueError(message)


def only_line(stream: io.StringIO) -> dict[str, Any]:
    """Return the one JSON line that was logged."""
    text = stream.getvalue()
    assert text.endswith("\n")
    assert len(text.splitlines()) == 1
    fields = json.loads(text)
    assert isinstance(fields, dict)
    return fields


def test_a_json_line_has_the_event_and_its_fields(stream: io.StringIO) -> None:
    use(stream)
    fields = {"user": "älice", "code": 4002, "age_s": 1.5, "clean": True, "incident": None}
    log.info("closed %s", "now", extra=fields | {"path": Path("/a"), "level": "mine"})
    line = only_line(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    expected = {"level": "info", "logger": "tests.logs", "message": "closed now", "path": "/a"}
    assert line == fields | expected
    assert list(line)[:3] == ["level", "logger", "message"]
    assert "älice" in stream.getvalue()


def test_an_exception_is_one_field_of_its_line(stream: io.StringIO) -> None:
    use(stream)
    try:
        fail("first\nsecond")
    except ValueError:
        log.exception("failed", stack_info=True)
    trace = only_line(stream)["exception"]
    assert trace.startswith("Traceback (most recent call last):\n")
    assert "ValueError: first\nsecond\nStack (most recent call last):\n" in trace


def test_an_exception_logged_outside_of_one_has_no_traceback(stream: io.StringIO) -> None:
    use(stream)
    log.error("failed", exc_info=True)
    assert "exception" not in only_line(stream)


def test_lines_below_the_level_are_not_logged(stream: io.StringIO) -> None:
    use(stream, level="warning")
    log.info("no")
    assert stream.getvalue() == ""
    use(stream, level="debug")
    log.debug("yes")
    assert only_line(stream)["message"] == "yes"


def test_a_clients_words_cannot_break_a_json_line_and_arrive_unchanged(
    stream: io.StringIO,
) -> None:
    use(stream)
    log.info("user %s", BIDI, extra={"user": BIDI})
    line = only_line(stream)
    assert line["message"] == f"user {BIDI}"
    assert line["user"] == BIDI
    assert stream.getvalue().rstrip("\n").isprintable()


def test_an_id_of_a_team_has_one_spelling_in_words_and_in_fields(stream: io.StringIO) -> None:
    use(stream)
    shares = Shares("slots", "limits.slots", 10, 1)
    owner = TenantId.of("red", "ana")
    shares.bound.refuse(owner, f"{owner} is one too many")
    line = only_line(stream)
    assert line["owner"] == "red/ana"
    assert "red/ana is one too many" in json.dumps(line)
    assert "1f" not in stream.getvalue()


def test_a_lone_surrogate_is_logged_escaped(stream: io.StringIO) -> None:
    use(stream)
    log.info("%s", "\ud800", extra={"user": "\udfff"})
    line = only_line(stream)
    assert (line["message"], line["user"]) == ("\ud800", "\udfff")
    assert stream.getvalue().isascii()
    use(stream, format="text")
    log.info("\ud800")
    assert r"tests.logs: \ud800" in stream.getvalue()


def test_a_text_line_is_for_people(stream: io.StringIO) -> None:
    use(stream, format="text")
    log.warning("closed", extra={"user": "alice", "reason": "slow consumer", "empty": "", "n": 5})
    line = r'\d\d:\d\d:\d\d\.\d{3} warning tests.logs: closed user=alice reason="slow consumer" '
    assert re.fullmatch(line + r'empty="" n=5\n', stream.getvalue())


def test_a_clients_words_cannot_forge_a_text_line(stream: io.StringIO) -> None:
    use(stream, format="text")
    try:
        fail("x\n12:00:00.000 info forged: line\x1b[2J")
    except ValueError:
        log.exception("failed %s", BIDI, extra={"user": f'bob" role="admin {BIDI}'})
    first, *rest = stream.getvalue().splitlines()
    assert r"failed a\nb\x1b[2J\x7f\x85\u2028\u202e\u2066\ufeffz" in first
    assert r'user="bob\" role=\"admin ' in first
    assert r"  | 12:00:00.000 info forged: line\x1b[2J" in rest
    assert all(line.startswith("  | ") and line.isprintable() for line in rest)


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_gets_colours_unless_they_are_unwanted(no_color: str) -> None:
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as screen, open(theirs, "w") as terminal:
        configure("auto", "info", stream=terminal, environ={"NO_COLOR": no_color})
        log.error("failed", extra={"user": "alice"})
        text = screen.read(4096).decode()
    assert ("\x1b[31merror  \x1b[0m" in text) is not bool(no_color)
    assert re.sub(r"\x1b\[\d+m", "", text).endswith("error   tests.logs: failed user=alice\r\n")


def test_only_the_stream_that_is_the_journal_gets_priorities(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as file:
        status = os.fstat(file.fileno())
        journal = f"{status.st_dev}:{status.st_ino}"
        for value in (journal, "1:1"):
            configure("auto", "info", stream=file, environ={"JOURNAL_STREAM": value})
            log.error("failed")
        configure("text", "info", stream=file, environ={"JOURNAL_STREAM": journal})
        try:
            fail()
        except ValueError:
            log.critical("failed", exc_info=True)
        file.seek(0)
        lines = file.read().splitlines()
    assert lines[0].startswith('<3>{"time":')
    assert lines[1].startswith('{"time":')
    assert len(lines) > 4
    assert all(line.startswith("<2>") for line in lines[2:])


def test_a_pipe_gets_json() -> None:
    script = (
        "import logging, sys; from pov_rt.runtime.process.logs import configure\n"
        "configure('auto', 'info', stream=sys.stdout); logging.info('hello')"
    )
    folder = Path(logs.__file__).parent.parent
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, check=True
    )
    assert json.loads(run.stdout)["message"] == "hello"
    assert run.stderr == b""


@pytest.mark.parametrize("settings", [{"format": "json"}, {"format": "text"}], ids=str)
def test_a_token_is_never_logged_wherever_it_comes_from(
    stream: io.StringIO, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    use(stream, **settings)
    logging.getLogger("tornado.access").info("101 GET /ws/?token=%s (::1) 1.00ms", TOKEN)
    log.info(f"said {TOKEN}", extra={"uri": f"/ws/?token={TOKEN}"})  # noqa: G004
    log.info("fields", extra={"access_token": "opaque", "cookie": f"accessToken={TOKEN}"})
    log.info("%d wrong arguments", TOKEN)
    log.info("bytes %r", TOKEN.encode())
    log.info("values", extra={"seen": [TOKEN]})
    try:
        fail(f"{{'Authorization': 'Bearer opaque', 'Cookie': 'a={TOKEN}'}}")
    except ValueError:
        log.exception("failed")
    log.info("long %s", "x" * (MAX_CHARS // 2 - 20) + TOKEN + " y" * MAX_CHARS)
    text = stream.getvalue() + "".join(capsys.readouterr())
    assert text.count("[token]") == 12
    assert "opaque" not in text
    assert not any(part in text for part in TOKEN.split("."))


def test_a_secret_field_is_hidden_from_a_coloured_line_too() -> None:
    formatter = logs.TextFormatter(priorities=False, colours=True)
    record = logging.makeLogRecord({"msg": "x", "token": "opaque"})
    assert formatter.format(record).endswith("token=\x1b[0m[token]")


def test_a_huge_message_loses_its_middle(stream: io.StringIO) -> None:
    use(stream)
    log.info("%s", "a" * MAX_CHARS + "b" * MAX_CHARS)
    message = only_line(stream)["message"]
    assert message == "a" * (MAX_CHARS // 2) + " [...] " + "b" * (MAX_CHARS // 2)


def test_a_throttle_lets_a_line_a_second_through_and_counts_the_others(
    stream: io.StringIO,
) -> None:
    use(stream)
    clock = ManualClock()
    throttle = Throttle(log, clock=clock)
    for n in range(5):
        throttle.log(logging.WARNING, "refused %d", n, address="::1")
    assert only_line(stream)["message"] == "refused 0"
    for _ in range(2):
        clock.advance(1)
        throttle.log(logging.WARNING, "refused")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line.get("suppressed") for line in lines] == [None, 4, None]
    assert lines[0]["address"] == "::1"


def test_a_throttle_has_the_real_clock_by_default(stream: io.StringIO) -> None:
    use(stream)
    Throttle(log, per_s=0.001).log(logging.INFO, "once")
    assert only_line(stream)["message"] == "once"


@pytest.mark.parametrize(
    ("level", "shown"),
    [("debug", [True, True]), ("info", [False, True]), ("error", [False, False])],
)
def test_what_tornado_says_of_no_http_is_for_debugging_only(
    stream: io.StringIO, level: str, shown: list[bool]
) -> None:
    use(stream, level=level)
    for severity in (logging.INFO, logging.WARNING):
        logging.getLogger("tornado.general").log(severity, "Malformed HTTP message")
    assert [f'"level":"{name}"' in stream.getvalue() for name in ("info", "warning")] == shown


def test_a_format_has_to_render() -> None:
    with pytest.raises(NotImplementedError):
        LineFormatter(priorities=False).format(logging.makeLogRecord({}))
