"""Settings of the Django peer: production's (no debug), and nothing that its one route does not use.

Where the database is and what signs tokens comes from the environment, set by `peer.py`.
"""

import os
from datetime import timedelta

DEBUG = False
SECRET_KEY = os.environ["DJANGO_PEER_KEY"]
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "bench.peers.django.urls"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "rest_framework",
    "bench.peers.django.lending",
]
AUTH_USER_MODEL = "lending.User"
MIDDLEWARE: list[str] = []  # no sessions, cookies, messages or admin: an API of tokens needs none
USE_TZ = True
TIME_ZONE = "Asia/Kolkata"
USE_I18N = False
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ["PGHOST"],
        "PORT": os.environ["PGPORT"],
        "USER": os.environ["PGUSER"],
        "NAME": os.environ["PGDATABASE"],
        "CONN_MAX_AGE": None,  # a connection for each thread of a worker, for as long as it lives
        # Statements are prepared once on each connection, and their values bound by the server.
        "OPTIONS": {"server_side_binding": True, "prepare_threshold": 2},
    }
}

REST_FRAMEWORK = {
    # The token says who calls and what for; no query looks it up again.
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework_simplejwt.authentication.JWTStatelessUserAuthentication"
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "UNAUTHENTICATED_USER": None,
}

SIMPLE_JWT = {
    "ALGORITHM": "HS256",
    "SIGNING_KEY": SECRET_KEY,
    "ACCESS_TOKEN_LIFETIME": timedelta(days=1),
    "ISSUER": "ledgerd-bench",
    "AUDIENCE": "ledgerd-bench",
}
