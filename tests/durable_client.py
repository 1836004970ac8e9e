"""Follows a log with the official client, unmodified; prints each item's offset as a line.

    durable_client.py URL TOKEN_FILE catch-up|long-poll|sse OFFSET COUNT

It asks the file for a token before each request, drops what it has by its offset, and begins again
where an answer ends. What it gives up with is the last line.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from durable_streams import DurableStreamError, RetentionGoneError, stream

url, file, mode, start, count = sys.argv[1:]
live: Any = False if mode == "catch-up" else mode
epoch, last, left = start.rpartition("_")[0], -1, int(count)
headers: Any = {"Authorization": lambda: f"Bearer {Path(file).read_text()}"}
offset = start
while left:
    try:
        with stream(url, offset=offset, live=live, headers=headers) as res:
            for item in res.iter_json():
                if item["offset"] > last:
                    last = item["offset"]
                    print(last, flush=True)
                    left -= 1
                if not left:
                    break
            offset = res.offset
    except RetentionGoneError as error:
        details: Any = error.details
        found = details["error"] if isinstance(details, dict) else json.loads(details)["error"]
        print(json.dumps({"status": 410, "code": found["code"], "missed": found.get("missed")}))
        sys.exit(1)
    except DurableStreamError as error:
        if error.status not in (502, 503):
            print(json.dumps({"status": error.status}))
            sys.exit(1)
        time.sleep(0.2)
    except httpx.TransportError:  # the server is away for a moment
        time.sleep(0.2)
