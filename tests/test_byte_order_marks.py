"""A byte order mark, as Windows' programs write it, is passed over wherever text is read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tornado.httpclient import HTTPClient

from pov_rt.auth.grants import Kind
from pov_rt.auth.sources import read_public_keys, read_secrets
from pov_rt.config import load as config
from pov_rt.config.settings import AuthSettings
from pov_rt.testing import RunningServer

MARK = b"\xef\xbb\xbf"
ONE = b'{"type":"t","action":"a","povId":"acme","userId":"bo"}'
LINES = {"Content-Type": "application/x-ndjson"}


def post(server: RunningServer, body: bytes, path: str, **headers: str) -> tuple[int, Any]:
    client = HTTPClient()
    try:
        token = server.token("app", Kind.SERVICE)
        answer = client.fetch(
            f"http://{server.address}{path}",
            method="POST",
            headers={"Authorization": f"Bearer {token}", **headers},
            body=body,
            raise_error=False,
        )
    finally:
        client.close()
    return answer.code, json.loads(answer.body)


@pytest.mark.parametrize(
    ("body", "headers", "count"),
    [
        (MARK + ONE, {}, 1),
        (MARK + b"[" + ONE + b"," + ONE + b"]", {}, 2),
        (MARK + ONE + b"\r\n" + ONE + b"\r\n", LINES, 2),
        (MARK + ONE + b"\n" + MARK + ONE, LINES, 2),  # two files, joined
        (MARK + b"\n" + ONE + b"\n" + MARK, LINES, 1),
    ],
)
def test_in_bodies(server: RunningServer, body: bytes, headers: dict[str, str], count: int) -> None:
    status, answer = post(server, body, "/api/activities", **headers)
    assert status in (200, 201)
    results = answer.get("results", [answer])
    assert ["error" in each for each in results] == [False] * count
    status, _ = post(server, MARK + b'{"type":"mention"}', "/api/users/ana/notifications")
    assert status == 200


def test_two_marks_are_no_json(server: RunningServer) -> None:
    status, answer = post(server, MARK * 2 + ONE, "/api/activities")
    assert (status, answer["error"]["code"]) == (400, "invalid_activity")


def test_what_is_published_from_a_file_of_windows_gets_ids(server: RunningServer) -> None:
    command = [sys.executable, "-m", "pov_rt.cli", "publish", "--url", server.address]
    done = subprocess.run(
        [*command, "--token", server.token("app", Kind.SERVICE)],
        input=MARK + ONE + b"\r\n" + ONE + b"\r\n",
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"2 published\n")


def test_in_files_of_keys_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(MARK + content)
        return str(tmp_path / name)

    key = Ed25519PrivateKey.generate().public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    point = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    jwks = {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": point, "kid": "1"}]}
    settings = AuthSettings(
        secret_files=[write("secret", b"s" * 40 + b"\r\n")],
        public_key_files=[write("key.pem", pem)],
        jwks_file=write("jwks.json", json.dumps(jwks).encode()),
    )
    assert [each.identity for each in read_secrets(settings)] == [b"s" * 40]
    assert len(read_public_keys(settings)) == 2
    file = Path(write("pov-rt.toml", b"[server]\r\nport = 1234\r\n"))
    write("jwt-secret", b"t" * 40 + b"\r\n" + b"u" * 40)
    loaded = config.load(
        file=file, flags={}, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)}
    ).settings
    assert loaded.server.port == 1234
    assert loaded.auth.secrets == ["t" * 40, "u" * 40]
