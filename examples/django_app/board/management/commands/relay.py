"""Brings what is in the outbox to the server. Run it beside the app, for as long as that runs."""

import signal
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import connection

from pov_rt.client import Relay


class Command(BaseCommand):
    """Until SIGTERM or Ctrl-C; what is left is sent the next time."""

    help = "Brings what is in the outbox to pov-rt."

    def handle(self, *args: Any, **options: Any) -> None:
        """Relay, on a connection of its own."""
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())

        def connect() -> Any:
            return connection.get_new_connection(connection.get_connection_params())

        Relay(connect, settings.POV_RT_URL, settings.POV_RT_SERVICE).run(stop)
