"""The page on the plugin API is what the docstrings say, and leaves nothing out."""

from __future__ import annotations

from pathlib import Path

import pov_rt.plugin
from pov_rt import testing
from pov_rt.plugin import Context, Host, Plugin, Request
from pov_rt.registry.reference import reference

PAGE = Path(__file__).parent.parent.parent / "docs/plugin-api.md"


def test_the_committed_page_is_what_is_printed() -> None:
    assert PAGE.read_text() == reference(testing), "pov-rt schema plugin-api >docs/plugin-api.md"


def test_every_name_has_an_entry_and_every_method_a_line() -> None:
    page = reference(testing)
    for name in pov_rt.plugin.__all__:
        assert f"\n### {name}\n" in page
        after = page.split(f"\n### {name}\n", 1)[1].split("\n### ")[0]
        assert after.strip(), f"{name} has no text"
    for kind in (Host, Context, Request, Plugin):
        for name, value in vars(kind).items():
            if not name.startswith("_") and (callable(value) or isinstance(value, property)):
                assert f"`{name}" in page or f"`await {name}" in page, name
    assert "\n".join(line for line in page.splitlines() if " object at 0x" in line) == ""
