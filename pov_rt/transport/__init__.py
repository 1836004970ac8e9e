"""The bytes of one client; no message is known here."""
