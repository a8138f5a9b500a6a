"""The console: pages for people at /console/, for those who run the book and for borrowers.

Its calls go the way of the API's: the same handlers, the same rules, the same answers. It knows nothing that the
API could not tell, and holds nothing but who is logged in.
"""
