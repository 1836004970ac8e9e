"""A server from outside: where it is, requests to it, what its answers say."""
