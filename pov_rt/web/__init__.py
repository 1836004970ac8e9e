"""HTTP and WebSocket: the one place that knows Tornado."""
