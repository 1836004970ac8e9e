"""From what somebody wants to publish to an entry of the log."""
