"""Details that a plugin declares as a struct: msgspec checks them."""

from __future__ import annotations

from typing import Any

import msgspec

from pov_rt.protocol.errors import InvalidActivity
from pov_rt.protocol.faults import Fault, find_fault, join_path


class StructDetails:
    """Details as a struct has them; `source` is its class."""

    def __init__(self, kind: type[msgspec.Struct]) -> None:
        self.source = kind

    def check(self, details: dict[str, Any]) -> None:
        """Raise `InvalidActivity` that names the field at fault."""
        try:
            msgspec.convert(details, self.source, str_keys=True)
        except msgspec.ValidationError as error:
            fault = find_fault(self.source, details)
            if fault is None or not (fault.path or fault.is_own):
                # An object they are: it is something else, such as a tag.
                fault = Fault("", str(error), is_own=True)
            fault = fault._replace(path=join_path("details", fault.path))
            raise InvalidActivity(fault.sentence, field=fault.path) from error
