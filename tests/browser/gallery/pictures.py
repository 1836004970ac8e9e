"""Lays out the pictures of all states on a page: pictures.py FOLDER [FOLDER OF OTHERS BESIDE]."""

from __future__ import annotations

import os
import sys
from html import escape
from pathlib import Path

STYLE = """
:root { color-scheme: light dark; font: 14px/20px system-ui, sans-serif; }
body { display: flex; gap: 24px; margin: 0; height: 100vh; }
section { flex: 1; overflow: auto; padding: 16px; }
figure { display: inline-block; vertical-align: top; margin: 0 16px 24px 0; max-width: 100%; }
img { max-width: 100%; display: block; border: 1px solid #8886; }
section.ours img { zoom: .5; }
"""


def figure(path: Path, page: Path, name: str) -> str:
    # Of another folder it may be anywhere.
    address = os.path.relpath(path, page.parent)
    return (
        f'<figure><figcaption>{escape(name)}</figcaption><img src="{escape(address)}"'
        f' loading="lazy" alt="{escape(name)}"></figure>'
    )


def lay_out(folder: Path, beside: Path | None = None) -> Path:
    """Write `index.html` into a folder of folders of pictures, one for each kind; return it."""
    page = folder / "index.html"
    ours = []
    for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
        ours.append(f"<h2>{escape(kind.name)}</h2>")
        ours += [figure(path, page, path.stem) for path in sorted(kind.glob("*.png"))]
    sections = [f'<section class="ours">{"".join(ours)}</section>']
    if beside is not None:
        others = sorted(beside.resolve().glob("*.png"))
        theirs = [figure(path, page.resolve(), path.stem) for path in others]
        sections.append(f"<section>{''.join(theirs)}</section>")
    page.write_text(
        "<!doctype html>\n<meta charset=utf-8>\n<title>Every state of the components</title>\n"
        f"<style>{STYLE}</style>\n{''.join(sections)}\n"
    )
    return page


if __name__ == "__main__":
    print(lay_out(*(Path(each) for each in sys.argv[1:])))
