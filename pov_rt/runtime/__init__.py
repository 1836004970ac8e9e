"""asyncio and the process: clocks, limits, logs, deadlines. No domain."""
