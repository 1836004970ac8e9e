"""Activity trackers: turn an application's requests into activities."""
