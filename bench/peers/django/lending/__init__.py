"""The Django app: users, loans, bills, payments, and the payment's service."""
