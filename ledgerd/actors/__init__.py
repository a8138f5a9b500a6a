"""A mailbox a loan: messages are decided one at a time and answered once what they were decided on is
durable.
"""
