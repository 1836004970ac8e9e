"""A proxy that holds back what it is answered until its end, as many do: nginx by default."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import create_connection

import pytest

from bench.peers import free_port
from tests.browser.flows import until
from tests.browser.listener import HOST
from tests.processes import running

CONFIG = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/errors.log;
events {{}}
http {{
    access_log off;
    {temporary}
    server {{
        listen {host}:{port};
        location / {{
            proxy_pass http://{host}:{server};
            proxy_set_header Host $http_host;
            proxy_ignore_headers X-Accel-Buffering;
            proxy_buffers 8 64k;
        }}
    }}
}}
"""
"""No upgrades, HTTP/1.0 behind it, and no heed of a server that wants nothing held back."""


@contextmanager
def holding(folder: Path, server: int) -> Iterator[int]:
    """Run it before the server at a port; yield its own port."""
    program = shutil.which("nginx")
    if program is None:
        pytest.skip("nginx is missing: apt-get install -y nginx")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    port, config = free_port(), folder / "nginx.conf"
    config.write_text(
        CONFIG.format(folder=folder, temporary=temporary, host=HOST, port=port, server=server)
    )
    with running([program, "-c", str(config), "-p", str(folder)]) as process:

        def listens() -> bool:
            assert process.poll() is None, (folder / "errors.log").read_text()
            with suppress(OSError), create_connection((HOST, port)):
                return True
            return False

        until(listens)
        yield port
