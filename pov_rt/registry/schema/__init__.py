"""What a server says and takes, described for machines, and how two descriptions differ."""

from pov_rt.registry.schema.documents import address, asyncapi, first_line, openapi, tag_of

__all__ = ["address", "asyncapi", "first_line", "openapi", "tag_of"]
