"""`pov-rt bench`: load on any server, and a ledger of what became of each message."""
