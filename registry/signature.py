"""Whether a bundle's signature is right: OpenSSF model-signing's format, with `cryptography` alone.

The format is a Sigstore bundle (v0.3) around a DSSE envelope around an in-toto statement, which
lists the SHA-256 of every file. model-signing's own verifier brings packages larger than the
service, which needs this one case: a signature by an elliptic-curve key that it was given. The
tests let each of the two judge what the other accepts and refuses.
"""

import base64
import binascii
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arithmetic import bundle
from arithmetic.config import load_config
from registry import SIGNATURE_PATH
from registry.errors import UntrustedBundle, UnusableKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

# The name of the signature in a folder that was pulled; it is no part of the bundle's digest.
NAME = Path(SIGNATURE_PATH).name
# The curves that model-signing takes, and the hash that goes with each.
CURVES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def check(folder: Path, trusted_key: Path | None) -> None:
    """Check a pulled bundle's signature against a public key; without a key nothing is asked for.

    Args:
        folder: a bundle with its signature beside its files, as `registry.pull` leaves it.
        trusted_key: PEM file of an elliptic-curve public key.

    Raises:
        UntrustedBundle: unsigned, signed by another key, or the files are not the signed ones.
        UnusableKey: `trusted_key` is no such file.
    """
    if trusted_key is not None:
        verify(folder, folder / NAME, load_key(trusted_key))


def verify(folder: Path, signature: Path, key: "EllipticCurvePublicKey") -> None:
    """Raise UntrustedBundle unless the file `signature` signs exactly the bundle's files."""
    signed = _signed_files(signature, key)
    names = bundle.files(load_config(folder).grammar.operations)
    actual = {name: bundle.file_digest(folder / name) for name in names}
    for name in sorted(signed.keys() | actual.keys()):
        if signed.get(name) != actual.get(name):
            raise UntrustedBundle(
                f"the signature of the bundle is for another {name} (signed "
                f"{signed.get(name, 'none')[:12]}, found {actual.get(name, 'none')[:12]}); "
                "serve a version that was registered with the trusted key"
            )


def load_key(path: Path) -> "EllipticCurvePublicKey":
    """A public key from a PEM file; raises UnusableKey."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    mend = "give TRUSTED_KEY the public half of the pair that `make keys` writes"
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise UnusableKey(f"{path} cannot be read ({error.strerror}); {mend}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnusableKey(f"{path} is no public key in PEM; {mend}") from error
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise UnusableKey(f"{path} is no key of a NIST elliptic curve; {mend}")
    return key


def _signed_files(signature: Path, key: "EllipticCurvePublicKey") -> dict[str, str]:
    """Path to SHA-256 of the files that a valid signature speaks of."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

    algorithm = getattr(hashes, CURVES[key.curve.name])
    try:
        content = json.loads(signature.read_bytes())
        envelope = content["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        (one,) = envelope["signatures"]
        if (content["mediaType"], envelope["payloadType"]) != (_MEDIA_TYPE, _PAYLOAD_TYPE):
            raise ValueError("another media type")
        # DSSE's pre-authentication encoding: what is signed names its own type and length.
        signed = f"DSSEv1 {len(_PAYLOAD_TYPE)} {_PAYLOAD_TYPE} {len(payload)} ".encode() + payload
        key.verify(base64.b64decode(one["sig"], validate=True), signed, ECDSA(algorithm()))
        return _resources(json.loads(payload))
    except FileNotFoundError as error:
        raise UntrustedBundle(
            "the bundle is not signed, and TRUSTED_KEY asks for a signature; record it with "
            "SIGNING_KEY set, or serve a version that was"
        ) from error
    except InvalidSignature as error:
        raise UntrustedBundle(
            "the bundle's signature is not by the trusted key; correct TRUSTED_KEY, or serve a "
            "version that was registered with it"
        ) from error
    except (OSError, binascii.Error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UntrustedBundle(
            "the bundle's signature is not one of model-signing's; record the version again with "
            "SIGNING_KEY set"
        ) from error


def _resources(statement: dict[str, Any]) -> dict[str, str]:
    """The files of an in-toto statement; raises ValueError if it is not of the expected kind."""
    if statement["predicateType"] != _PREDICATE_TYPE:
        raise ValueError(f"predicate {statement['predicateType']}")
    (subject,) = statement["subject"]
    resources = statement["predicate"]["resources"]
    if any(resource["algorithm"] != "sha256" for resource in resources):
        raise ValueError("files hashed by another algorithm than SHA-256")
    files = {str(resource["name"]): str(resource["digest"]) for resource in resources}
    whole = hashlib.sha256(b"".join(bytes.fromhex(one["digest"]) for one in resources))
    if len(files) != len(resources) or subject["digest"]["sha256"] != whole.hexdigest():
        raise ValueError("its own list of files does not hash to its subject")
    return files
