"""The rules: pure functions over integers. No clock, no I/O, no asyncio; nothing of ours is imported from
above.
"""
