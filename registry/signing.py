"""Sign and verify model directories by OpenSSF model-signing, where a key is configured.

`SIGNING_KEY` names the PEM file of an elliptic-curve private key, and `record` signs with it;
`TRUSTED_KEY` names the public key, and a download without its signature is refused. To make a pair:

    openssl ecparam -name prime256v1 -genkey -noout -out signing-key.pem
    openssl ec -in signing-key.pem -pubout -out signing-key.pub.pem
"""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from registry.exceptions import RegistryError, UntrustedModelError

SIGNING_KEY, TRUSTED_KEY = "SIGNING_KEY", "TRUSTED_KEY"


def signature_path(directory: Path) -> Path:
    """Return where a model directory's signature lies: beside it."""
    return directory.with_name(f"{directory.name}.sig")


def trusted_key() -> Path | None:
    """Return the configured public key; raise RegistryError if the file does not exist."""
    return _key(TRUSTED_KEY)


def sign(directory: Path) -> Path | None:
    """Sign all files of `directory`; return the signature's file, None without a SIGNING_KEY.

    Raises:
        RegistryError: the key is not a private key in PEM without a password.
    """
    key = _key(SIGNING_KEY)
    if key is None:
        return None
    signing = _library("signing")
    signature = signature_path(directory)
    try:
        signing.Config().use_elliptic_key_signer(private_key=key).sign(directory, signature)
    except (ValueError, TypeError) as error:  # TypeError: it has a password
        message = f"{SIGNING_KEY}={key} is not a private key: {error}"
        raise RegistryError(message, "name an elliptic-curve key in PEM, no password") from error
    return signature


def verify(directory: Path, signature: Path) -> None:
    """Check `directory` against its signature, if a TRUSTED_KEY is configured.

    Raises:
        UntrustedModelError: there is no signature, it is by another key, or of other files.
        RegistryError: the key is not a public key in PEM.
    """
    key = trusted_key()
    if key is None:
        return
    if not signature.is_file():
        raise UntrustedModelError(
            f"the model {directory.name} is not signed, and {TRUSTED_KEY} is set",
            f"register it with {SIGNING_KEY} set, or serve a version that was",
        )
    verifying = _library("verifying")
    from cryptography.exceptions import InvalidSignature

    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except ValueError as error:
        message = f"{TRUSTED_KEY}={key} is not a public key: {error}"
        raise RegistryError(message, "name an elliptic-curve key in PEM") from error
    try:
        verifier.verify(directory, signature)
    except (InvalidSignature, ValueError, KeyError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UntrustedModelError(
            f"the signature of the model {directory.name} is not valid: {reason}",
            f"correct {TRUSTED_KEY}, or serve a version that was registered with it",
        ) from error


def _key(variable: str) -> Path | None:
    name = os.environ.get(variable)
    if not name:
        return None
    if not Path(name).is_file():
        raise RegistryError(f"{variable}={name} is not a file", "name a key in PEM, or unset it")
    return Path(name)


def _library(module: str) -> Any:
    try:
        return import_module(f"model_signing.{module}")
    except ImportError as error:
        raise RegistryError(
            f"{SIGNING_KEY} or {TRUSTED_KEY} is set, and model-signing cannot be imported: {error}",
            "install it: requirements/serving.lock names it",
        ) from error
