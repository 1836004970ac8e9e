"""The process among others: its log, its files, and what starts it."""
