"""`pov-rt serve` as a process: what it prints, and how it starts anew."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.processes import SECRET, run, serve


def test_serve_without_a_secret_says_what_to_do(tmp_path: Path) -> None:
    done = run(tmp_path, "serve")
    assert done.returncode == 1
    assert "openssl rand -base64 48" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_plugin_stops_serve_and_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text('"""Bad."""\n\nimport nothing_of_that_name\n')
    done = run(tmp_path, "serve", "--plugins-dir", str(tmp_path), POV_RT_AUTH__SECRETS=SECRET)
    assert done.returncode == 1
    assert "bad.py:3: ModuleNotFoundError" in done.stderr
    assert "import nothing_of_that_name" in done.stderr


def test_a_port_that_is_taken_ends_a_development_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run(tmp_path, "serve", "--dev", "--port", port)
    assert (done.returncode, "cannot listen on" in done.stderr) == (1, True)


def test_a_folder_that_is_taken_ends_a_development_server(tmp_path: Path) -> None:
    with serve(tmp_path):
        done = run(tmp_path, "serve", "--dev", "--port", "0", "--admin-port", "0")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
