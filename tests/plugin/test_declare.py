"""What a type checker says to plugin authors."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

HEAD = """from pov_rt.plugin import Context, Event, Host, Message, Plugin
State = dict[str, int]
plugin = Plugin[State]("p")
plain = Plugin("q")
class Ask(Message, tag="ask"):
    text: str
class Answer(Message, tag="answer"):
    size: int
class Closed(Event, tag="poll.closed"):
    pov_id: str
"""

GOOD = """@plugin.on(Ask)
def one(message: Ask, context: Context[State]) -> Answer:
    return Answer(size=context.state["x"] + len(message.text))
@plugin.on(Ask, grant="g", rate="5/s", unordered=True)
async def two(message: Ask, context: Context[State]) -> Answer | None:
    done = await context.subscribe("acme")
    return Answer(size=done.offset)
@plain.on(Ask)
def three(message: Ask, context: Context) -> None: ...
@plugin.every(5)
async def four(host: Host[State]) -> None:
    host.state["x"] = 1
@plugin.hears(Closed)
def five(event: Closed, host: Host[State]) -> None:
    host.announce(Closed(pov_id=event.pov_id))
"""

WRONG = (
    "@plugin.on(Ask)\ndef f(message: Answer, context: Context[State]) -> None: ...\n",
    "@plugin.on(Ask)\ndef f(message: Ask, context: Context[list[int]]) -> None: ...\n",
    "@plugin.on(Ask)\ndef f(message: Ask, context: Context[State]) -> int: ...\n",
    "@plugin.on(Ask)\nasync def f(message: Ask, context: Context[State]) -> int: ...\n",
    "@plugin.hears(Closed)\ndef f(event: Ask, host: Host[State]) -> None: ...\n",
    "@plugin.hears(Ask)\ndef f(event: Ask, host: Host[State]) -> None: ...\n",
    "Answer(7)\n",
    "Answer(size='x')\n",
    "Answer()\n",
)


def test_right_plugins_pass_the_strict_checker_and_wrong_ones_do_not(tmp_path: Path) -> None:
    code, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "docs/plugins.md").read_text(), re.S)
    (tmp_path / "example.py").write_text(code)
    (tmp_path / "good.py").write_text(HEAD + GOOD)
    for number, text in enumerate(WRONG):
        (tmp_path / f"wrong_{number}.py").write_text(HEAD + text)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary"),
            *("--disable-error-code=empty-body", "--cache-dir", ROOT / ".mypy_cache"),
            *sorted(tmp_path.glob("*.py")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    blamed = re.findall(r"^\S*?(\w+)\.py:(\d+): error", done.stdout, re.M)
    first = HEAD.count("\n") + 1
    assert {name for name, _ in blamed} == {f"wrong_{n}" for n in range(len(WRONG))}, done.stdout
    assert {int(line) for _, line in blamed} <= {first, first + 1}
