"""What gunicorn serves."""

from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

application = get_wsgi_application()
# Django imports the views at the first request of each worker: rather once, before they are forked.
assert get_resolver().url_patterns
