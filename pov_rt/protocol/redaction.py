"""What must not be written anywhere: one rule for the log, `config show`, errors and tracebacks.

Of a URL these are secret: who asks (`user:password@`), every value of its query, its fragment, and
parts of its path that look like tokens, as in webhooks' addresses.
"""

from __future__ import annotations

import re

HIDDEN = "****"
TOKEN = "[token]"  # noqa: S105  (stands in for one)

_JWT = re.compile(r"eyJ[A-Za-z0-9_-]+(?:(?:\.|%2[Ee])[A-Za-z0-9_-]*){1,2}")
_LABELS = ("token=", "bearer", "authorization")
_LABELLED = re.compile(
    r"""(
        token= |
        bearer\. |
        bearer\s+(?=\S{8}) |  # not "bearer token"
        authorization["'\\]*\s*[:=,]\s*["'\\]*(?:[a-z]+\s+)?  # header, repr and JSON
    )
    [^\x00-\x20"'\\;,&<>(){}\[\]]+""",
    re.IGNORECASE | re.VERBOSE,
)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"<>]+")
_AFTER = re.compile(r"[\\'`)\]},.;:!?]*$")
"""What ends a sentence or a quotation around a URL."""

_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[^:\[\]@]*)(?::[0-9]{1,5})?")
_SEGMENT_CHARS = 16
"""Fewer have no token worth the name: 16 of base64 are 96 bits."""

_SECRET_NUMBER = re.compile(r"(^|[._])(secret|password|passphrase|pin|key|token)$")
_PLUGIN_SECRET = re.compile(
    r"secret|passw|passphrase|token|credential|api_?key|private|(^|_)keys?$|authorization|cookie"
    r"|^headers$|signature|(^|_)pin$"
)


def redact(text: str) -> str:
    """Return the text without what is secret in URLs, and with `[token]` for each token."""
    if "://" in text:
        text = _URL.sub(_redact_found, text)
    if "eyJ" in text:
        text = _JWT.sub(TOKEN, text)
    lower = text.lower()
    if any(label in lower for label in _LABELS):
        text = _LABELLED.sub(rf"\1{TOKEN}", text)
    return text


def is_token(text: str) -> bool:
    """Tell whether this is a token and nothing else."""
    return _JWT.fullmatch(text) is not None


def redact_url(url: str) -> str:
    """Return a URL with what is secret in it left out; also one that is wrong."""
    scheme, _, rest = url.partition("://")
    bare = re.split("[/?#]", rest, maxsplit=1)[0]
    rest = rest.removeprefix(bare)
    at = ""
    if bare and "@" in rest:
        if _HOST.fullmatch(bare):
            # Or a user with a password that begins like a port: nothing before the '@' is sure.
            rest = _hide_until_at(rest)
        elif "@" in bare or rest.count("@") > 1:
            return f"{scheme}://{HIDDEN}"  # each could be in the password, or in what follows it
        else:
            # A password with a '/', '?' or '#' in it, which ought to be encoded.
            _, at, rest = rest.partition("@")
            bare = re.split("[/?#]", rest, maxsplit=1)[0]
            rest = rest.removeprefix(bare)
    else:
        _, at, bare = bare.rpartition("@")
    rest, hash_sign, _ = rest.partition("#")
    path, question_mark, query = rest.partition("?")
    if bare:  # else it is a path of this machine
        path = "/".join(map(_redact_segment, path.split("/")))
    query = "&".join(map(_redact_parameter, re.split("[&;]", query))) if query else ""
    return "".join(
        (scheme, "://", at and f"{HIDDEN}@", bare, path, question_mark, query)
        + ((hash_sign, HIDDEN) if hash_sign else ())
    )


def is_secret(name: str, value: object) -> bool:
    """Tell whether an option of a plugin is a secret, by the dotted name it has in the plugin."""
    if value is None or isinstance(value, bool):
        return False
    if isinstance(value, int | float):  # `token_ttl_s` is none
        return _SECRET_NUMBER.search(name.lower()) is not None
    return any(map(_PLUGIN_SECRET.search, name.lower().split(".")))


def _redact_found(found: re.Match[str]) -> str:
    after = _AFTER.search(found[0])
    end = after.start() if after else len(found[0])
    return redact_url(found[0][:end]) + found[0][end:]


def _hide_until_at(rest: str) -> str:
    """Hide what is before a URL's last '@', with what is left of the path's segment there."""
    before, _, after = rest.rpartition("@")
    if set(before) & set("?#"):  # it is in the query, or in what may be a password
        return f"/{HIDDEN}"
    return f"/{HIDDEN}{after[len(re.split('[/?#]', after, maxsplit=1)[0]) :]}"


def _redact_segment(segment: str) -> str:
    if len(segment) < _SEGMENT_CHARS:
        return segment
    digits = sum(map(str.isdigit, segment))
    letters = sum(map(str.isalpha, segment))
    is_mixed = segment.lower() != segment != segment.upper()
    looks = (digits >= 4 and letters >= 4) or (digits and is_mixed) or digits >= _SEGMENT_CHARS
    return HIDDEN if looks else segment


def _redact_parameter(parameter: str) -> str:
    name, equals, _ = parameter.partition("=")
    return f"{name}={HIDDEN}" if equals else HIDDEN
