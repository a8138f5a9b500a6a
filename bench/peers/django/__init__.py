"""The peer that the design this service grew from describes: Django, REST framework, JWT and PostgreSQL."""

from bench.peers.django.peer import SWEEP, Book, DjangoPeer, Setting, make_book, sweep

__all__ = ["SWEEP", "Book", "DjangoPeer", "Setting", "make_book", "sweep"]
