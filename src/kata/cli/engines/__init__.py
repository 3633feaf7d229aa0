"""What ``kata install`` knows of container engines: where each is configured, and with what.

The one rule: a plan is made without touching anything; only ``owned`` writes, and only our files.
"""
