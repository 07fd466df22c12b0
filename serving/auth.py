"""API keys. The service knows only their SHA-256: a key is random and long, so nothing slower than
that is needed to keep it from being guessed.

    python -m serving.auth NAME     make a key; prints it once, with the line for API_KEYS

Several keys at once, so that one can be replaced: add the new one, move the clients, drop the old.
"""

import hashlib
import hmac
import re
import secrets
import sys
from pathlib import Path

from serving.settings import InvalidSettings, Settings

_ENTRY = re.compile(r"([A-Za-z0-9._-]{1,64})=([0-9a-f]{64})")


class Keys:
    """The keys that open this service."""

    def __init__(self, digests: dict[str, str]):
        """From the name of each key to the SHA-256 of the key, hexadecimal."""
        self._digests = [(name, bytes.fromhex(digest)) for name, digest in digests.items()]

    def name_of(self, headers: list[tuple[bytes, bytes]]) -> str | None:
        """Whose key a request carries, in `Authorization: Bearer` or `X-API-Key`; None: nobody's.

        Compares with every key, in constant time, so that the time tells nothing.
        """
        presented = None
        for name, value in headers:
            if name == b"x-api-key":
                presented = value
            elif name == b"authorization" and value[:7].lower() == b"bearer ":
                presented = value[7:]
        if presented is None:
            return None
        digest = hashlib.sha256(presented.strip()).digest()
        found = None
        for name_of_key, known in self._digests:
            if hmac.compare_digest(digest, known):
                found = name_of_key
        return found


def keys_from(settings: Settings) -> Keys | None:
    """The configured keys, None where none are asked for; raises InvalidSettings."""
    text, source = settings.api_keys, "API_KEYS"
    if settings.api_keys_file is not None:
        if text:
            raise InvalidSettings("API_KEYS and API_KEYS_FILE are both set; set one of them")
        text, source = _read(settings.api_keys_file), "API_KEYS_FILE"
    digests: dict[str, str] = {}
    for entry in re.split(r"[,\s]+", text.strip()):
        if not entry and source == "API_KEYS" and not text:
            return None
        match = _ENTRY.fullmatch(entry)
        if match is None or match[1] in digests:
            raise InvalidSettings(
                f"{source} has an entry that is not NAME=SHA256, or a name twice (entry "
                f"{len(digests) + 1}); `python -m serving.auth NAME` prints a right one"
            )
        digests[match[1]] = match[2]
    return Keys(digests)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(
            f"API_KEYS_FILE {path} cannot be read ({error}); give a file with a line for each key"
        ) from error


def main() -> int:
    if len(sys.argv) != 2 or not _ENTRY.fullmatch(f"{sys.argv[1]}={'0' * 64}"):
        print("usage: python -m serving.auth NAME (letters, digits, . _ -)", file=sys.stderr)
        return 2
    key = secrets.token_urlsafe(32)
    print(f"key, for the client; it is shown only now:  {key}")
    print(f"entry, for API_KEYS:  {sys.argv[1]}={hashlib.sha256(key.encode()).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
