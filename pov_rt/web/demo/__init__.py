"""Under --dev: an app to see all of it in, a small board of proofs of value.

It is written as an app's developer would: a Tornado application of its own, which knows of the
server what any app does: where it posts its activities, and how its users get their tokens.
"""
