"""Those of a new project, as few as do, and what pov-rt adds to them at the end."""

import os
from pathlib import Path

from django.core.management.utils import get_random_secret_key

from pov_rt.tracker import ServiceToken, Track

SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY") or get_random_secret_key()
DEBUG = True  # for `runserver` on your own machine
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "board.urls"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "board",
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DATABASE", Path(__file__).parent.parent / "board.sqlite3"),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]
MIDDLEWARE = [
    "django.middleware.common.CommonMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "pov_rt.tracker.django.ActivityTracker",
]

POV_RT_URL = os.environ.get("POV_RT_URL", "http://127.0.0.1:8765")
POV_RT_SECRET = os.environ["POV_RT_SECRET"]  # one of the server's `auth.secrets`; never in a page
POV_RT_SERVICE = ServiceToken(POV_RT_SECRET, "django-app")
# Best effort: a form that was answered with its redirect becomes an activity, beside the response.
POV_RT_TRACKER = {
    "url": POV_RT_URL,
    "token": POV_RT_SERVICE,
    "rules": [
        Track(
            "POST",
            "/povs/{pov_id}/tasks/{task_id}/done",
            type="task",
            action="completed",
            statuses=(302,),
        )
    ],
    # As in the socket's token: pov-rt knows people by these names.
    "actor": lambda request: request.user.get_username(),
}
