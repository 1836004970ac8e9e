"""The version, in one place: the package's metadata, `welcome`, and the generated documents."""

VERSION = "0.1.0"
