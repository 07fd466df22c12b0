"""Signatures: OpenSSF model-signing signs, our few lines verify, and each judges as the other."""

import base64
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from model_signing.verifying import Config

from arithmetic import bundle
from registry import signature, signing
from registry.errors import UntrustedBundle, UnusableKey


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    private, public = signing.make_keys(tmp_path / "pair")
    monkeypatch.setenv(signing.VARIABLE, str(private))
    return private, public


@pytest.fixture
def signed(keys: tuple[Path, Path], tmp_path: Path) -> Path:
    """The repository's own bundle, with its signature beside its files."""
    folder = tmp_path / "bundle"
    shutil.copytree(Path(__file__).resolve().parents[1] / "bundle", folder)
    made = signing.sign(folder, tmp_path / signature.NAME)
    assert made is not None
    made.rename(folder / signature.NAME)
    return folder


def theirs(folder: Path, public: Path) -> bool:
    """What model-signing's own verifier says."""
    ignored = folder / signature.NAME
    from model_signing.hashing import Config as Hashing

    hashing = Hashing().set_ignored_paths(paths=[ignored], ignore_git_paths=True)
    verifier = Config().use_elliptic_key_verifier(public_key=public).set_hashing_config(hashing)
    try:
        verifier.verify(folder, ignored)
    except Exception:  # noqa: BLE001  # it raises whatever its libraries do
        return False
    return True


def ours(folder: Path, public: Path) -> bool:
    try:
        signature.check(folder, public)
    except UntrustedBundle:
        return False
    return True


def payload(folder: Path, change: Callable[[dict], object]) -> None:
    path = folder / signature.NAME
    content = json.loads(path.read_text())
    statement = json.loads(base64.b64decode(content["dsseEnvelope"]["payload"]))
    change(statement)
    content["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    path.write_text(json.dumps(content))


def flip(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 3] ^= 1
        (folder / name).write_bytes(bytes(content))

    return change


TAMPERINGS: dict[str, Callable[[Path], object]] = {
    "weights": flip("weights.safetensors"),
    "graph": flip("decoders/addition.onnx"),
    "digest in the payload": lambda folder: payload(
        folder, lambda it: it["predicate"]["resources"][0].update(digest="0" * 64)
    ),
    "subject": lambda folder: payload(
        folder, lambda it: it["subject"][0].update(digest={"sha256": "0" * 64})
    ),
    "file left out": lambda folder: payload(folder, lambda it: it["predicate"]["resources"].pop()),
    "no JSON": lambda folder: (folder / signature.NAME).write_text("{"),
    "a list": lambda folder: (folder / signature.NAME).write_text("[]"),
    "no signature": lambda folder: (folder / signature.NAME).unlink(),
}


def test_what_is_signed_is_accepted_by_both(signed: Path, keys: tuple[Path, Path]) -> None:
    assert theirs(signed, keys[1])
    assert ours(signed, keys[1])
    assert bundle.digest(signed) == bundle.digest(Path(__file__).resolve().parents[1] / "bundle")


@pytest.mark.parametrize("name", TAMPERINGS)
def test_what_was_tampered_with_is_refused_by_both(
    signed: Path, keys: tuple[Path, Path], name: str
) -> None:
    TAMPERINGS[name](signed)
    assert not theirs(signed, keys[1])
    assert not ours(signed, keys[1])


@pytest.mark.parametrize("curve", ["secp384r1", "secp521r1", "prime256v1"])
def test_keys_of_openssl_do_as_well(
    signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, curve: str
) -> None:
    """All the curves that model-signing takes, in the older form of PEM that openssl writes."""
    private, public = tmp_path / "o.pem", tmp_path / "o.pub.pem"
    make = ["openssl", "ecparam", "-name", curve, "-genkey", "-noout", "-out", str(private)]
    subprocess.run(make, check=True, capture_output=True)
    public.write_bytes(signing.public_pem(private))
    with pytest.raises(UntrustedBundle, match="not by the trusted key"):
        signature.check(signed, public)
    (signed / signature.NAME).unlink()
    monkeypatch.setenv(signing.VARIABLE, str(private))
    assert signing.sign(signed, tmp_path / "again.sig")
    shutil.copyfile(tmp_path / "again.sig", signed / signature.NAME)
    assert ours(signed, public)
    assert theirs(signed, public)


def test_without_a_key_nothing_is_signed_and_nothing_asked_for(
    signed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(signing.VARIABLE)
    (signed / signature.NAME).unlink()
    assert signing.sign(signed, tmp_path / "none.sig") is None
    assert not (tmp_path / "none.sig").exists()
    signature.check(signed, None)


def test_a_key_that_is_none_is_one_sentence(
    signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: tuple[Path, Path]
) -> None:
    """Before anything is trained, recorded or served by it."""
    monkeypatch.setenv(signing.VARIABLE, str(keys[1]))
    with pytest.raises(UnusableKey, match=r"pair\.pub\.pem is no private key"):
        signing.configured()
    monkeypatch.setenv(signing.VARIABLE, str(tmp_path / "missing"))
    with pytest.raises(UnusableKey, match="cannot be read"):
        signing.configured()
    with pytest.raises(UnusableKey, match="is no public key"):
        signature.check(signed, keys[0])
    rsa = tmp_path / "rsa.pem"
    subprocess.run(["openssl", "genrsa", "-out", str(rsa)], check=True, capture_output=True)
    monkeypatch.setenv(signing.VARIABLE, str(rsa))
    with pytest.raises(UnusableKey, match="NIST elliptic curve"):
        signing.configured()
    with pytest.raises(UnusableKey, match="cannot be written"):
        signing.make_keys(keys[0].with_suffix(""))
    assert keys[0].stat().st_mode & 0o077 == 0, "others can read the private key"
    keys[0].unlink()
    with pytest.raises(UnusableKey, match=r"pair\.pub\.pem cannot be written"):
        signing.make_keys(keys[0].with_suffix(""))
    assert not keys[0].exists(), "a public key in use has lost its private half"
    with pytest.raises(UnusableKey, match="names a folder"):
        signing.make_keys(Path())
