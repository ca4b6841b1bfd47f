"""The environment an agent starts with: what a program needs, and none of the node's own secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from instar_node.contracts import RunRequest
from instar_node.delivery.rows import public_key
from instar_node.errors import InstarError

PASSED_ON = frozenset(
    {
        *(
            "PATH",
            "HOME",
            "USER",
            "LOGNAME",
            "SHELL",
            "LANG",
            "LANGUAGE",
            "TERM",
            "COLORTERM",
            "TZ",
            "TMPDIR",
        ),
        *(
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "NO_PROXY",
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "no_proxy",
        ),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE"),
    }
)
"""Variables an agent inherits by name. Anything else of the node's environment stays with the node."""

PASSED_ON_PREFIXES = ("LC_", "XDG_")

SecretLookup = Callable[[str], str | None]
"""Value of a vault secret by name, or ``None`` when the vault has none of that name."""


def agent_environment(
    own: Mapping[str, str], request: RunRequest, secret_names: tuple[str, ...], secret: SecretLookup
) -> dict[str, str]:
    """Environment of one run: an allow-list of ``own``, the named vault secrets, and ``INSTAR_*``.

    Raises:
        InstarError: ``secret-missing`` when a name of ``[agent] env_secrets`` is not in the vault.
    """
    environment = {
        name: value for name, value in own.items() if name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)
    }
    for name in secret_names:
        value = secret(name)
        if value is None:
            raise InstarError(
                "secret-missing",
                f"the agent wants the secret {name}, which the vault does not have",
                f"instar secret set {name}",
            )
        environment[name] = value
    environment["INSTAR_TOPIC"] = request.topic
    environment["INSTAR_KEY"] = public_key(request.key)
    environment["INSTAR_RUN"] = request.key  # what the reaper knows a run by
    environment["INSTAR_EPOCH"] = str(request.epoch)
    return environment
