"""What a secret may be called. Apart from the vault, so that commands need not load cryptography."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

SecretName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z_][A-Za-z0-9_]*\Z")]
"""Secrets are handed to agents as environment variables, so a name is one of those."""
