"""The peer's one route, with and without the trailing slash."""

from django.urls import re_path

from bench.peers.django.lending.views import MakePayment

urlpatterns = [re_path(r"^api/make-payment/?$", MakePayment.as_view())]
