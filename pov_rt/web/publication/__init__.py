"""From a connection's bytes to the log and the answer, for a publication as most are.

A well-formed one that is small takes the short way: no HTTP server, request or handler is made for
it. All else on its connection takes the long way by Tornado, with the bytes that were read, and is
answered there; so is what went wrong with one that took the short way. The next publication takes
the short way again. In memory that takes a fifth of the CPU
(docs/measurements.md, publications over HTTP).
"""
