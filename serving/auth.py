"""Check API keys, of which the service stores only the SHA-256.

    python -m serving.auth NAME     make a key; prints it once, with the entry for API_KEYS

A key is long and random, so a plain hash cannot be reversed. Several keys can be valid at once:
add the new one, move the clients, remove the old one.
"""

import hashlib
import hmac
import re
import secrets
import sys
from collections.abc import Mapping

from arithmetic.errors import UserError, cli_errors
from serving.settings import InvalidSettingsError, Settings

_ENTRY = re.compile(r"([A-Za-z0-9._-]{1,64})=([0-9a-f]{64})")

Digests = dict[str, str]  # hexadecimal SHA-256 of each key, by the key's name


def find_name(digests: Digests, headers: Mapping[bytes, bytes]) -> str | None:
    """Return the name of the key in `Authorization: Bearer` or `X-API-Key`, else None.

    It compares with every key in constant time, so that the time reveals nothing.
    """
    presented = headers.get(b"x-api-key", b"")
    scheme, _, credential = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        presented = credential
    digest = hashlib.sha256(presented.strip()).hexdigest()
    matching = [name for name, known in digests.items() if hmac.compare_digest(digest, known)]
    return matching[0] if matching else None


def load_keys(settings: Settings) -> Digests:
    """Return the configured keys, empty where no key is needed; raise InvalidSettingsError."""
    digests: Digests = {}
    entries = re.split(r"[,\s]+", settings.api_keys.strip()) if settings.api_keys else []
    for number, entry in enumerate(entries, 1):
        match = _ENTRY.fullmatch(entry)
        if match is None or match[1] in digests:
            raise InvalidSettingsError(
                f"entry {number} of API_KEYS is not NAME=SHA256, or repeats a name",
                "`python -m serving.auth NAME` prints an entry",
            )
        digests[match[1]] = match[2]
    return digests


def main(arguments: list[str]) -> None:
    """Make a key."""
    with cli_errors():
        if len(arguments) != 1 or not _ENTRY.fullmatch(f"{arguments[0]}={'0' * 64}"):
            raise UserError(
                "the key's name is missing, or has other characters than A-Z a-z 0-9 . _ -",
                "python -m serving.auth NAME",
            )
        key = secrets.token_urlsafe(32)
        print(f"key (for the client, shown only now): {key}")
        print(f"entry for API_KEYS: {arguments[0]}={hashlib.sha256(key.encode()).hexdigest()}")


if __name__ == "__main__":
    main(sys.argv[1:])
