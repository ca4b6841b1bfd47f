"""The one error a person or script ever sees: a code, a sentence, and what to do about it."""

from __future__ import annotations

from typing import Any


class InstarError(Exception):
    """A refusal or failure with everything a person needs.

    Args:
        code: Stable kebab-case name for scripts, such as ``not-awake``.
        message: One sentence saying what is wrong.
        hint: What to do about it; empty when there is nothing to do.
        status: The HTTP status this error maps to.
        extra: Further JSON fields for the error object (``known``, ``prompt``, ``retry_in_ms``, …).
    """

    def __init__(
        self,
        code: str,
        message: str,
        hint: str = "",
        *,
        status: int = 409,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.status = status
        self.extra = extra or {}

    def to_json(self) -> dict[str, Any]:
        """The ``error`` object of the API."""
        return {"code": self.code, "message": self.message, "hint": self.hint, **self.extra}


def bad_input(field: str, message: str, hint: str = "") -> InstarError:
    """A 400 that names the field at fault."""
    return InstarError("bad-input", f"{field}: {message}", hint, status=400, extra={"field": field})
