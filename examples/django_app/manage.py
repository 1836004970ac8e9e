"""A board that its team sees live: Django beside pov-rt.

In a checkout; the server, the relay and the app in a terminal each, the last two with the secret:

    pip install django pyjwt 'pov-rt[client]'
    pov-rt serve --dev
    export POV_RT_SECRET=$(cat .dev/dev-secret)
    python examples/django_app/manage.py migrate
    python examples/django_app/manage.py relay
    python examples/django_app/manage.py runserver 8000

Open http://127.0.0.1:8000 in two browsers, sign in, and press the buttons. settings.py has the
tracker, views.py the socket's token and the outbox, migrations/ its table, relay.py what sends it.
"""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "board.settings")
    execute_from_command_line(sys.argv)
