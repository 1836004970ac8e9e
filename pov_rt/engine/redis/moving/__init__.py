"""Moving what is in Redis, and what was elsewhere to Redis."""
