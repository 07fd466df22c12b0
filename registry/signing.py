"""Sign and verify model directories by OpenSSF model-signing, where a key is configured.

`SIGNING_KEY` names the PEM file of an elliptic-curve private key, and `record` signs with it;
`TRUSTED_KEY` names the public key, and a download without its signature is refused. To make a pair:

    openssl ecparam -name prime256v1 -genkey -noout -out signing-key.pem
    openssl ec -in signing-key.pem -pubout -out signing-key.pub.pem
"""

import os
from pathlib import Path

from arithmetic.errors import InvalidModelError
from registry.client import first_line
from registry.exceptions import RegistryError

SIGNING_KEY, TRUSTED_KEY = "SIGNING_KEY", "TRUSTED_KEY"


def signature_path(directory: Path) -> Path:
    """Return where a model directory's signature lies: beside it."""
    return directory.with_name(f"{directory.name}.sig")


def sign(directory: Path) -> Path | None:
    """Sign all files of `directory`; return the signature's file, None without a SIGNING_KEY.

    Raises:
        RegistryError: the key is not a private key in PEM without a password.
    """
    key = os.environ.get(SIGNING_KEY)
    if not key:
        return None
    from model_signing import signing

    signature = signature_path(directory)
    try:
        signing.Config().use_elliptic_key_signer(private_key=Path(key)).sign(directory, signature)
    except (OSError, ValueError, TypeError) as error:  # TypeError: it has a password
        raise RegistryError(
            f"cannot sign with {SIGNING_KEY}={key}: {first_line(error)}",
            "name an elliptic-curve private key in PEM without a password, or unset it",
        ) from error
    return signature


def verify(directory: Path) -> None:
    """Check `directory` against its signature, if a TRUSTED_KEY is configured.

    Raises:
        InvalidModelError: there is no signature, it is by another key, or of other files, or the
            key is not a public key in PEM.
    """
    key, signature = os.environ.get(TRUSTED_KEY), signature_path(directory)
    if not key:
        return
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=Path(key))
        verifier.verify(directory, signature)
    except (InvalidSignature, OSError, ValueError, KeyError, TypeError) as error:
        title = f"the model {directory.name} has no valid signature by {TRUSTED_KEY}={key}"
        raise InvalidModelError(
            f"{title}: {first_line(error)}",
            f"correct {TRUSTED_KEY}, or serve a version that was registered with its {SIGNING_KEY}",
        ) from error
