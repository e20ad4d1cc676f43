"""The authority: what it issues is accepted by others, what is wrong with it is named."""

from __future__ import annotations

import ipaddress
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from casemate import pki
from casemate.errors import (
    AuthorityDamaged,
    AuthorityExpired,
    AuthorityLocked,
    CasemateError,
    ClockWrong,
    FileExposed,
    LifetimeRefused,
    NameRefused,
    PkiError,
)
from casemate.pki import Authority

PHRASE = "three unrelated words"
NOW = datetime(2030, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "pki", "broker.example")


def parsed(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def store(authority: Authority) -> Store:
    return Store([parsed(authority.root_pem)])


def test_a_server_certificate_is_accepted_for_its_names_and_no_other(authority: Authority) -> None:
    issued = authority.issue_server(["Broker.Example.", "localhost", "127.0.0.1", "::1", "::1"])
    assert issued.names == ("broker.example", "localhost", "127.0.0.1", "::1")
    leaf, *chain = x509.load_pem_x509_certificates(issued.chain_pem)
    for name in ("broker.example", "localhost"):
        verifier = PolicyBuilder().store(store(authority)).build_server_verifier(x509.DNSName(name))
        assert len(verifier.verify(leaf, chain)) == 3
    address = x509.IPAddress(ipaddress.ip_address("::1"))
    PolicyBuilder().store(store(authority)).build_server_verifier(address).verify(leaf, chain)
    other = PolicyBuilder().store(store(authority)).build_server_verifier(x509.DNSName("other"))
    with pytest.raises(VerificationError):
        other.verify(leaf, chain)
    with pytest.raises(VerificationError):
        PolicyBuilder().store(store(authority)).build_client_verifier().verify(leaf, chain)


@pytest.mark.parametrize("kind", ["device", "user"])
def test_a_client_certificate_names_its_account(authority: Authority, kind: str) -> None:
    issued = authority.issue_client(kind, "t7@example.org")  # type: ignore[arg-type]
    leaf, *chain = x509.load_pem_x509_certificates(issued.chain_pem)
    verified = PolicyBuilder().store(store(authority)).build_client_verifier().verify(leaf, chain)
    assert verified.subjects is not None
    assert [name.value for name in verified.subjects] == [f"urn:casemate:{kind}:t7@example.org"]
    (common,) = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert common.value == "t7@example.org"
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert issued.not_after_s == int(leaf.not_valid_after_utc.timestamp())
    assert issued.fingerprint == leaf.fingerprint(hashes.SHA256())
    as_server = PolicyBuilder().store(store(authority)).build_server_verifier(x509.DNSName("t7"))
    with pytest.raises(VerificationError):
        as_server.verify(leaf, chain)


def test_a_long_name_stands_whole_in_the_alternative_name(authority: Authority) -> None:
    for length, commons in ((64, 1), (65, 0), (128, 0)):
        leaf = parsed(authority.issue_client("device", "n" * length).certificate_pem)
        assert len(leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)) == commons
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        assert uri == f"urn:casemate:device:{'n' * length}"


@pytest.mark.parametrize("name", ["", "a/b", "#", "a\n", "n" * 129, "../x", "t7\x00", "a b"])
def test_a_hostile_name_gets_no_certificate(authority: Authority, name: str) -> None:
    with pytest.raises(NameRefused):
        authority.issue_client("device", name)


def test_every_certificate_has_its_own_key_and_serial(authority: Authority) -> None:
    issued = [authority.issue_client("device", "t7") for _ in range(5)]
    assert len({one.key_pem for one in issued}) == 5
    assert len({parsed(one.certificate_pem).serial_number for one in issued}) == 5
    assert "PRIVATE" not in repr(issued[0])


def test_the_chain_has_the_right_constraints(tmp_path: Path, authority: Authority) -> None:
    root = parsed(authority.root_pem)
    issuer = parsed((tmp_path / "pki" / "issuer.crt").read_bytes())
    for certificate, length, days in ((root, 1, 3_652), (issuer, 0, 1_095)):
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert basic.critical
        assert (basic.value.ca, basic.value.path_length) == (True, length)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        assert usage.key_cert_sign
        assert not usage.digital_signature
        span = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        assert span == timedelta(days=days, seconds=300)
        assert "broker.example" in certificate.subject.rfc4514_string()
    subject = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    above = issuer.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert above.key_identifier == subject.key_identifier


def test_keys_and_folders_are_private(tmp_path: Path, authority: Authority) -> None:
    assert authority.fingerprint
    folder = tmp_path / "pki"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in folder.iterdir():
        wanted = 0o600 if file.suffix == ".key" else 0o644
        assert stat.S_IMODE(file.stat().st_mode) == wanted, file


def test_a_loaded_authority_issues_what_the_first_one_would(
    tmp_path: Path, authority: Authority
) -> None:
    again = Authority.load(tmp_path / "pki")
    assert again.fingerprint == authority.fingerprint == pki.fingerprint(authority.root_pem)
    leaf, *chain = x509.load_pem_x509_certificates(again.issue_client("user", "a").chain_pem)
    PolicyBuilder().store(store(authority)).build_client_verifier().verify(leaf, chain)


def test_python_itself_takes_certificate_and_key(tmp_path: Path, authority: Authority) -> None:
    issued = authority.issue_server(["localhost"])
    for name, content in (("crt", issued.chain_pem), ("key", issued.key_pem)):
        (tmp_path / name).write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")


def test_daily_work_needs_no_root_key(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "pki" / "root.key").unlink()
    assert Authority.load(tmp_path / "pki").root_pem == authority.root_pem


def test_a_passphrase_encrypts_both_keys(tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    Authority.create(folder, "b", PHRASE)
    assert pki.is_locked(folder)
    for key in ("root.key", "issuer.key"):
        content = (folder / key).read_bytes()
        with pytest.raises(TypeError):
            serialization.load_pem_private_key(content, None)
        serialization.load_pem_private_key(content, PHRASE.encode())
    Authority.load(folder, PHRASE).issue_client("device", "t7")
    for wrong in (None, "", PHRASE + " ", PHRASE[:-1]):
        with pytest.raises(AuthorityLocked) as caught:
            Authority.load(folder, wrong)
        assert PHRASE[:-1] not in str(caught.value)


@pytest.mark.parametrize("phrase", ["", "short", "x" * 1_025])
def test_a_passphrase_of_the_wrong_length_is_refused_before_anything_is_made(
    tmp_path: Path, phrase: str
) -> None:
    with pytest.raises(PkiError):
        Authority.create(tmp_path / "pki", "b", phrase)
    assert not (tmp_path / "pki").exists()


def test_an_authority_is_never_overwritten(tmp_path: Path, authority: Authority) -> None:
    with pytest.raises(PkiError, match="already"):
        Authority.create(tmp_path / "pki", "b")
    assert Authority.load(tmp_path / "pki").root_pem == authority.root_pem


@pytest.mark.parametrize("file", ["root.crt", "issuer.crt", "issuer.key"])
@pytest.mark.parametrize("content", [None, b"", b"garbage", "cut", "other"])
def test_a_damaged_authority_is_refused_and_the_file_named(
    tmp_path: Path, authority: Authority, file: str, content: bytes | str | None
) -> None:
    assert authority.fingerprint
    path = tmp_path / "pki" / file
    good = path.read_bytes()
    if content is None:
        path.unlink()
    elif content == "other":
        Authority.create(tmp_path / "other", "b")
        path.write_bytes((tmp_path / "other" / file).read_bytes())
    else:
        path.write_bytes(good[: len(good) // 2] if isinstance(content, str) else content)
    with pytest.raises(AuthorityDamaged, match="pki"):
        Authority.load(tmp_path / "pki")


def test_a_leaf_cannot_stand_in_for_the_issuer(tmp_path: Path, authority: Authority) -> None:
    issued = authority.issue_client("device", "evil")
    (tmp_path / "pki" / "issuer.crt").write_bytes(issued.certificate_pem)
    (tmp_path / "pki" / "issuer.key").write_bytes(issued.key_pem)
    with pytest.raises(AuthorityDamaged):
        Authority.load(tmp_path / "pki")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o660])
def test_an_exposed_key_is_refused(tmp_path: Path, authority: Authority, mode: int) -> None:
    assert authority.fingerprint
    (tmp_path / "pki" / "issuer.key").chmod(mode)
    with pytest.raises(FileExposed, match=r"issuer\.key") as caught:
        Authority.load(tmp_path / "pki")
    assert "chmod 600" in caught.value.hint


def test_the_moments_when_the_authority_becomes_valid_and_invalid(tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    Authority.create(folder, "b", clock=lambda: NOW)
    begin = (NOW - timedelta(seconds=300)).replace(microsecond=0)
    end = (NOW + timedelta(days=1_095)).replace(microsecond=0)
    tick = timedelta(microseconds=1)
    Authority.load(folder, clock=lambda: begin)
    Authority.load(folder, clock=lambda: end - tick)
    with pytest.raises(ClockWrong, match="clock of this machine says 2030") as caught:
        Authority.load(folder, clock=lambda: begin - tick)
    assert "set the clock" in caught.value.hint
    with pytest.raises(AuthorityExpired, match="expired on 2033-01-01"):
        Authority.load(folder, clock=lambda: end)


def test_an_authority_that_expires_while_it_is_open_signs_no_more(tmp_path: Path) -> None:
    moments = [NOW]
    authority = Authority.create(tmp_path / "pki", "b", clock=lambda: moments[-1])
    authority.issue_client("device", "t7", lifetime_days=1)
    moments.append(NOW + timedelta(days=1_095))
    with pytest.raises(AuthorityExpired):
        authority.issue_client("device", "t7", lifetime_days=1)
    moments.append(NOW - timedelta(days=1))
    with pytest.raises(ClockWrong):
        authority.issue_server(["localhost"], lifetime_days=1)


def test_a_certificate_begins_five_minutes_ago_and_ends_on_time(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path / "pki", "b", clock=lambda: NOW)
    leaf = parsed(authority.issue_client("device", "t7", lifetime_days=90).certificate_pem)
    assert leaf.not_valid_before_utc == datetime(2030, 1, 2, 2, 59, 5, tzinfo=UTC)
    assert leaf.not_valid_after_utc == datetime(2030, 4, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize("days", [0, -1, 398, 10**9])
def test_a_lifetime_out_of_range_is_refused(authority: Authority, days: int) -> None:
    with pytest.raises(LifetimeRefused):
        authority.issue_client("device", "t7", lifetime_days=days)
    for admitted in (1, 397):
        authority.issue_client("device", "t7", lifetime_days=admitted)


def test_no_certificate_outlives_its_issuer(tmp_path: Path) -> None:
    moments = [NOW]
    authority = Authority.create(tmp_path / "pki", "b", clock=lambda: moments[-1])
    moments.append(NOW + timedelta(days=1_000))
    authority.issue_client("device", "t7", lifetime_days=94)
    with pytest.raises(LifetimeRefused) as caught:
        authority.issue_client("device", "t7", lifetime_days=96)
    assert "at most" in caught.value.hint


@pytest.mark.parametrize(
    "name",
    ["", ".", "a b", "*.example.org", "a..b", "-a", "a-", "a_b", "x" * 64, "ä.example", "a/b",
     "1.2.3", "256.1.1.1", "fe80::1%eth0", "a\n", "a" + ".a" * 127],
)  # fmt: skip
def test_what_is_no_host_is_refused(authority: Authority, name: str) -> None:
    with pytest.raises(PkiError):
        authority.issue_server(["localhost", name])


def test_the_number_of_server_names_is_bounded(authority: Authority) -> None:
    with pytest.raises(PkiError):
        authority.issue_server([])
    with pytest.raises(PkiError):
        authority.issue_server(f"h{number}" for number in range(101))
    authority.issue_server(f"h{number}" for number in range(100))


def test_the_names_of_this_machine_can_stand_in_a_certificate(authority: Authority) -> None:
    names = pki.machine_names()
    assert names[:3] == ("localhost", "127.0.0.1", "::1")
    assert authority.issue_server(names).names == names


def test_a_fingerprint_is_pairs_with_colons(authority: Authority) -> None:
    pairs = authority.fingerprint.split(":")
    assert len(pairs) == 32
    assert all(len(pair) == 2 and int(pair, 16) >= 0 and pair == pair.upper() for pair in pairs)
    with pytest.raises(CasemateError):
        pki.fingerprint(b"nothing")
