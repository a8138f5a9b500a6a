"""Durable state: the journal (the only truth of loans), the tables (projections of it, and people), behind
one seam.
"""
