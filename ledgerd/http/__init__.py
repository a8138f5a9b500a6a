"""The way in from outside: one route table, one path from a request to its answer, problems, tokens and
accounts.
"""
