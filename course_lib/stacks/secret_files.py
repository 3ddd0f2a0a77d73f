"""What a stack has to keep secret, made on the spot: a TLS certificate with its own authority, and an API key.

Each is a file that Compose mounts into the containers that need it (https://docs.docker.com/compose/how-tos/use-secrets/):
none stands in an environment variable, which `docker inspect` shows to everybody, or in an image.
"""

from __future__ import annotations

import datetime
import secrets
from pathlib import Path

import trustme

NAMES = ("localhost", "127.0.0.1", "::1", "proxy")


def make(folder: Path, *, days: int = 30) -> None:
    """Writes ca.pem, tls.crt, tls.key and inference_key into a folder that only its owner may enter; what is there stays.

    Args:
        days: how long the certificate is good.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if not (folder / "tls.key").exists():
        authority = trustme.CA(organization_name="course stack")
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        issued = authority.issue_cert(*NAMES, not_after=until)
        issued.cert_chain_pems[0].write_to_path(folder / "tls.crt")
        issued.private_key_pem.write_to_path(folder / "tls.key")
        authority.cert_pem.write_to_path(folder / "ca.pem")
    if not (folder / "inference_key").exists():
        (folder / "inference_key").write_text(secrets.token_urlsafe(32) + "\n")
    for file in folder.iterdir():
        # The containers' users have other numbers than this one's owner. Nobody else gets here: the folder is closed.
        file.chmod(0o444)
