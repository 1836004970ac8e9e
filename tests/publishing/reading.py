"""The logs of a server's PoVs, read over HTTP."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pov_rt.remote.addresses import parse_url
from pov_rt.remote.http import Http
from tests.checker.clients import make_token
from tests.publishing.activities import Seen, recognise

PAGE = 1000


class Log:
    """A PoV's log, read as far as it goes."""

    def __init__(self, pov: str) -> None:
        self.pov = pov
        self.seen: list[Seen] = []
        self._after = 0

    def read(self, http: Http, token: str) -> bool:
        """Read a page; return whether there is more. Raises OSError if the server is away."""
        path = f"/api/povs/{self.pov}/activities?after={self._after}&limit={PAGE}"
        answer = http.request("GET", path, token)
        if answer.status != 200:
            raise OSError(f"{path} answers {answer.status}: {answer.body[:200]!r}")
        page = json.loads(answer.body)
        for each in page["activities"]:
            self.seen.append(recognise(each["data"], self.pov))
            self._after = each["offset"]
        return "next" in page


class Logs:
    """Those of all PoVs."""

    def __init__(self, url: str, povs: Sequence[str]) -> None:
        self._http = Http(parse_url(url))
        self._token = make_token("reader", "main", service=True)
        self.logs = [Log(pov) for pov in povs]

    def read(self) -> None:
        """Read all that is new. Raises OSError if the server is away."""
        for log in self.logs:
            while log.read(self._http, self._token):
                pass

    def count(self, begin: str = "") -> int:
        """Return how many were read, of PoVs whose names begin so."""
        return sum(len(log.seen) for log in self.logs if log.pov.startswith(begin))

    def close(self) -> None:
        """Close the connection."""
        self._http.close()
