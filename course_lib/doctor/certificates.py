"""Certificate authorities: which bundle the course hands on, and whether one's own network's authority is in it.

Networks that inspect TLS sign every site anew. Whoever runs one adds its authority to the system's store; programs that
bring their own list (Python's certifi, Java, Node) and containers don't know it unless they are told.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

from course_lib.doctor.check import Check
from course_lib.doctor.finding import Finding, error, note, ok, warning
from course_lib.doctor.machine import Machine
from course_lib.settings import settings

#: Where an administrator puts authorities of the house: Debian and Ubuntu; Fedora and RHEL.
_HOUSE = (Path("/usr/local/share/ca-certificates"), Path("/etc/pki/ca-trust/source/anchors"))
_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE")


def authorities(bundle: Path) -> dict[bytes, str]:
    """The certificates of a file, and the name of each.

    Raises:
        ssl.SSLError: the file holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(bundle)
    names = [_name(authority) for authority in context.get_ca_certs()]
    return dict(zip(context.get_ca_certs(binary_form=True), names, strict=True))


def _name(authority: Mapping[str, object]) -> str:
    subject = {key: value for part in authority.get("subject", ()) for key, value in part}  # type: ignore[attr-defined]
    return str(subject.get("commonName") or subject.get("organizationName") or "an authority without a name")


def house_authorities(folders: tuple[Path, ...] = _HOUSE) -> dict[bytes, str]:
    """Authorities that somebody added to this system."""
    found: dict[bytes, str] = {}
    for path in (p for folder in folders if folder.is_dir() for p in sorted(folder.rglob("*")) if p.is_file()):
        try:
            found |= authorities(path)
        except ssl.SSLError:
            continue  # a README, or a certificate in another notation
    return found


def judge(bundle: Path | None, environment: Mapping[str, str], house: dict[bytes, str]) -> Iterator[Finding]:
    """What the chosen bundle, the variables and the house's authorities make together."""
    for name in _VARIABLES:
        if environment.get(name) and not Path(environment[name]).is_file():
            yield error(
                f"{name} names {environment[name]}, which is no file: no download will work",
                f"Run `unset {name}`, or set it to a file of certificates.",
            )
    if bundle is None:
        yield warning(
            "no file of certificate authorities was found", "Install the package ca-certificates, or set SSL_CERT_FILE."
        )
        return
    try:
        known = authorities(bundle)
    except ssl.SSLError:
        yield error(
            f"{bundle} holds no certificates",
            "Run `sudo update-ca-certificates`, or set SSL_CERT_FILE to a file of certificates.",
        )
        return
    if missing := [name for key, name in house.items() if key not in known]:
        yield warning(
            f"this system has the authority {missing[0]!r} of its own, but {bundle} does not hold it",
            "Run `sudo update-ca-certificates` (Fedora, RHEL: `sudo update-ca-trust`), or set SSL_CERT_FILE to a bundle that does.",
        )
    elif house:
        names = ", ".join(sorted(set(house.values())))
        yield note(
            f"{bundle} is used; it holds authorities that were added to this system ({names}), as networks that inspect TLS have them. Builds get it as a secret, so it stays out of images"
        )
    else:
        yield ok(f"{bundle} is used; it holds {len(known)} authorities")


def examine(machine: Machine) -> list[Finding]:
    return list(judge(settings().ca_bundle, os.environ, house_authorities()))


CHECK = Check("certificates", examine)
