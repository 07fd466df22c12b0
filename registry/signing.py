"""A signature beside a bundle, by OpenSSF model-signing, when a key is configured.

`SIGNING_KEY` names a PEM file with the private half of an elliptic-curve key pair; `make keys`
makes one. Whoever registers holds it; `registry.signature` verifies with the public half.

    python -m registry.signing signing-key      writes signing-key.pem and signing-key.pub.pem
"""

import argparse
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from arithmetic.errors import reported
from registry.errors import UntrustedBundle, UnusableKey
from registry.signature import CURVES, verify

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

VARIABLE = "SIGNING_KEY"


def configured() -> Path | None:
    """The private key's file, None if the environment names none.

    Raises:
        UnusableKey: there is no such file, or it is no private key of an elliptic curve.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    public_pem(Path(named))
    return Path(named)


def is_signed_as_configured(bundle: Path, signature: Path) -> bool:
    """Whether the file `signature` is the configured key's over `bundle`; True without a key."""
    key = configured()
    if key is None:
        return True
    try:
        verify(bundle, signature, _private_key(key).public_key())
    except UntrustedBundle:
        return False
    return True


def sign(bundle: Path, signature: Path) -> Path | None:
    """Sign all files of `bundle` into the file `signature`; None if no key is configured."""
    key = configured()
    if key is None:
        return None
    from model_signing.signing import Config

    Config().use_elliptic_key_signer(private_key=key).sign(bundle, signature)
    return signature


def make_keys(stem: Path) -> tuple[Path, Path]:
    """Write a new pair to `<stem>.pem` and `<stem>.pub.pem`; raises UnusableKey if one is there."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    if not stem.name:
        raise UnusableKey(f"{stem} names a folder; give the pair a name: KEY=signing-key")
    private, public = stem.with_name(f"{stem.name}.pem"), stem.with_name(f"{stem.name}.pub.pem")
    content = generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    try:
        if public.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(public))
        # Nobody else may read it, not even for a moment; and a key in use is not replaced.
        with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        public.write_bytes(public_pem(private))
    except OSError as error:
        raise UnusableKey(
            f"{error.filename} cannot be written ({error.strerror}); name another by KEY=…"
        ) from error
    return private, public


def public_pem(private: Path) -> bytes:
    """The public half of a private key's file as PEM; raises UnusableKey."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = _private_key(private).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _private_key(private: Path) -> "EllipticCurvePrivateKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    mend = f"give {VARIABLE} the private half of the pair that `make keys` writes"
    try:
        key = load_pem_private_key(private.read_bytes(), None)
    except OSError as error:
        raise UnusableKey(f"{private} cannot be read ({error.strerror}); {mend}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it has a password
        raise UnusableKey(f"{private} is no private key in PEM without password; {mend}") from error
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise UnusableKey(f"{private} is no key of a NIST elliptic curve; {mend}")
    return key


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a pair of keys for signing bundles.")
    parser.add_argument("stem", type=Path, help="path of the pair, without its suffixes")
    with reported():
        private, public = make_keys(parser.parse_args().stem)
        print(
            f"SIGNING_KEY={private} signs what is recorded; keep it secret\n"
            f"TRUSTED_KEY={public} lets the service refuse what it did not sign"
        )


if __name__ == "__main__":
    main()
