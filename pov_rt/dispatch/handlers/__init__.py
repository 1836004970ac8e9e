"""Messages that are handled: handlers called, in order, and what they may do."""
