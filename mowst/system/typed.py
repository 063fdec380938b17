"""Values that must be of a type."""

from __future__ import annotations

import re
from typing import Any

from mowst.errors import InputError


def check_type_of(name: str, value: Any, hint: Any) -> None:
    """Refuse a value of another type than its field's; a whole number is a number, true and false are none.

    Raises:
        InputError: it is one.
    """
    from typeguard import TypeCheckError, check_type

    try:
        check_type(value, hint)
        if hint in (int, float) and isinstance(value, bool):
            raise TypeCheckError("is a bool")
    except TypeCheckError:
        from graphkd.checks import shown  # which --help need not wait for

        wanted = (
            hint.__name__ if isinstance(hint, type) else re.sub(r"typing\.Literal\[(.*?)\]", r"one of \1", str(hint))
        )
        raise InputError(f"{name}: must be {wanted}, got {shown(value)}") from None
