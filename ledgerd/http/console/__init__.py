"""The console: pages for people at /console/, for those who run the book and for borrowers.

Its calls go the way of the API's: the same handlers, the same rules, the same answers. What it holds itself
is who is logged in, and sums over the book.
"""
