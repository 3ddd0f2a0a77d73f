"""Proxies and certificate authorities: two sides that have to agree."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import certifi
import pytest
from machines import INFO, StartDouble

from course_lib.doctor import certificates, machine, proxies

PROXY = {"HTTPS_PROXY": "http://me:secret@proxy.example.org:3128"}
LOCAL = {"NO_PROXY": "localhost,127.0.0.1"}


def severities(environment: dict[str, str], info: dict[str, object], answers: bool = True) -> list[str]:
    return [f.severity for f in proxies.judge(environment, info, answers)]


def test_a_proxy_is_set_on_both_sides_or_on_none() -> None:
    engines = INFO | {"HttpsProxy": "http://proxy.example.org:3128"}
    assert severities({}, INFO) == ["ok"]
    assert severities(PROXY | LOCAL, engines) == ["ok"]
    assert severities(PROXY | LOCAL, INFO) == ["warning"]
    assert severities({}, engines) == ["warning"]
    assert severities(PROXY | LOCAL, {}, answers=False) == ["ok"]
    assert severities({"http_proxy": "http://p:1", "no_proxy": "*"}, engines) == ["ok"]


def test_a_proxy_for_this_machine_itself_is_an_error() -> None:
    engines = INFO | {"HttpsProxy": "http://proxy.example.org:3128"}
    for excepted in ("", "localhost", "127.0.0.10,.example.org"):
        error, _ = proxies.judge(PROXY | {"NO_PROXY": excepted}, engines, True)
        assert error.severity == "error" and "NO_PROXY=localhost,127.0.0.1" in error.remedy


def test_no_password_is_shown() -> None:
    for finding in proxies.judge(PROXY, INFO, True):
        assert "secret" not in finding.message + finding.remedy and "proxy.example.org:3128" in finding.message


def test_the_engines_proxy_is_read_from_the_engine(engine_double: StartDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    engine_double(HttpsProxy="http://proxy.example.org:3128")
    (finding,) = proxies.examine(machine.look(None))
    assert finding.severity == "warning" and "proxy.example.org" in finding.message


@pytest.fixture
def house_ca(tmp_path: Path) -> Path:
    """An authority as a company makes it."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    folder = tmp_path / "anchors"
    folder.mkdir()
    (folder / "README").write_text("Authorities of the house.\n")
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=The House CA"]
    subprocess.run(
        [*new, "-keyout", tmp_path / "key.pem", "-out", folder / "house.crt"], check=True, capture_output=True
    )
    return folder


def test_an_authority_of_the_house_has_to_be_in_the_bundle(house_ca: Path, tmp_path: Path) -> None:
    house = certificates.house_authorities((house_ca, tmp_path / "none"))
    assert list(house.values()) == ["The House CA"]
    public = Path(certifi.where())
    (missing,) = certificates.judge(public, {}, house)
    assert missing.severity == "warning" and "The House CA" in missing.message and str(public) in missing.message
    both = tmp_path / "both.pem"
    both.write_text(public.read_text() + (house_ca / "house.crt").read_text())
    (found,) = certificates.judge(both, {}, house)
    assert found.severity == "note" and "The House CA" in found.message and str(both) in found.message
    assert [f.severity for f in certificates.judge(public, {}, {})] == ["ok"]


def test_a_variable_that_names_no_file_is_an_error(tmp_path: Path) -> None:
    gone = {"SSL_CERT_FILE": str(tmp_path / "gone.pem")}
    error, rest = certificates.judge(Path(certifi.where()), gone, {})
    assert error.severity == "error" and "unset SSL_CERT_FILE" in error.remedy and rest.severity == "ok"


def test_a_bundle_without_certificates_is_an_error(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing\n")
    assert [f.severity for f in certificates.judge(empty, {}, {})] == ["error"]
    assert [f.severity for f in certificates.judge(None, {}, {})] == ["warning"]
