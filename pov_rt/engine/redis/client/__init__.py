"""A client of Redis: connections that come back, and the engine's functions called over them."""
