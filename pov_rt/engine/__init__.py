"""Engines: where activities, marks, leases and sets live. One URL chooses."""
