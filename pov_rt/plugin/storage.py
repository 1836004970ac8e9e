"""What a plugin keeps: its own values in the engine's store, as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from pov_rt.engine.base import Store
from pov_rt.protocol.encoding import DECODE_ERRORS, encode
from pov_rt.protocol.errors import TooLarge, Unavailable

ValueT = TypeVar("ValueT")

MAX_KEY_CHARS = 512
MAX_VALUE_BYTES = 256 * 1024
MAX_VALUES = 1000
"""That are read at a time."""
ATTEMPTS = 100
"""To change a value that others change, too."""


class Storage:
    """The values of one plugin, by key: over restarts, in backups, on all nodes.

    A value is anything that can be JSON, such as a struct, a dict or a number, of 256 KiB at most;
    a key has 1 to 512 characters. What is kept of a user is put with the user's id (`user_id=`), so
    that it is found, and erased, when the user is. All plugins together have `engine.store_bytes`,
    one of them half of that.

    Raises `Unavailable` where the engine cannot do it, or there is no room, `TooLarge` for a value,
    ValueError for a key.
    """

    def __init__(self, store: Store, space: str) -> None:
        self._store = store
        self._space = space

    async def get(self, key: str, kind: type[ValueT]) -> ValueT | None:
        """Return a value as `kind`, which checks it; None if there is none.

        Raises TypeError if it is something else: an older version of the plugin put it.
        """
        found = await self._store.get(self._space, _checked(key))
        return None if found is None else _decode(key, found, kind)

    async def put(self, key: str, value: object, *, user_id: str = "") -> None:
        """Set a value; it is safe when this returns."""
        await self._store.put(self._space, _checked(key), _encode(key, value), user_id)

    async def update(
        self,
        key: str,
        kind: type[ValueT],
        change: Callable[[ValueT | None], ValueT | None],
        *,
        user_id: str = "",
    ) -> ValueT | None:
        """Change a value by a function of the old one, and return the new one.

        The function gets None where there is none, and returns None to remove it. It may be called
        several times: once more whenever somebody else was faster. So nobody's change is lost.
        """
        _checked(key)
        for _ in range(ATTEMPTS):
            old = await self._store.get(self._space, key)
            value = change(None if old is None else _decode(key, old, kind))
            new = None if value is None else _encode(key, value)
            if old == new or await self._store.swap(self._space, key, old, new, user_id):
                return value
        raise Unavailable(f"too many change {key!r} at a time", retry_after_s=1.0)

    async def remove(self, key: str) -> bool:
        """Remove a value; return whether it was there."""
        return await self._store.remove(self._space, _checked(key))

    async def items(
        self, kind: type[ValueT], *, prefix: str = "", after: str = "", limit: int = 100
    ) -> Mapping[str, ValueT]:
        """Return up to `limit` (1,000) values whose keys begin with `prefix`, in their order.

        `after` is the last key of the page before.
        """
        limit = min(limit, MAX_VALUES)
        found = await self._store.read(self._space, prefix, after, limit)
        return {key: _decode(key, body, kind) for key, body in found}


def _checked(key: str) -> str:
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY_CHARS or "\0" in key:
        raise ValueError(f"a key must have 1 to {MAX_KEY_CHARS} characters, and none of them zero")
    return key


def _encode(key: str, value: object) -> bytes:
    body = encode(value)
    if len(body) > MAX_VALUE_BYTES:
        raise TooLarge(
            f"the value of {key!r} has {len(body)} bytes, of {MAX_VALUE_BYTES} that are allowed"
        )
    return body


def _decode(key: str, body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except DECODE_ERRORS as error:
        raise TypeError(f"the value of {key!r} in the store is another one: {error}") from error
