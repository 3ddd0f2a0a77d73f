"""Everything a person can set, from the environment or course.toml, read in one place."""

from __future__ import annotations

import hashlib
import os
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import AliasChoices, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from course_lib.errors import CourseError

CHECKOUT = Path(__file__).resolve().parent.parent

Profile = Literal["cpu", "gpu"]
Images = Literal["auto", "registry", "debian"]
Target = Literal["local", "aws", "gcp", "hf", "kube-context"]

#: Where the usual systems keep the certificates they trust, a company's own included.
_CA_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def _name(variable: str) -> AliasChoices:
    """The name in course.toml (lower case) and the one in the environment."""
    return AliasChoices(variable, variable.lower())


def as_typed(file: Path | str) -> Path:
    """A path as one types it in the checkout's folder."""
    path = Path(file)
    return path.relative_to(CHECKOUT) if path.is_relative_to(CHECKOUT) else path


class Settings(BaseSettings):
    """The settings of one run. Environment first, then course.toml, then these defaults."""

    model_config = SettingsConfigDict(toml_file=CHECKOUT / "course.toml", extra="ignore", populate_by_name=True)

    profile: Profile = Field("cpu", validation_alias=_name("PROFILE"))
    """`gpu` builds on NVIDIA's NGC image and uses CUDA; `cpu` runs everywhere."""
    images: Images = Field("auto", validation_alias=_name("IMAGES"))
    """Where base images come from: a registry, Debian packages, or whichever this machine can reach."""
    target: Target = Field("local", validation_alias=_name("TARGET"))
    """Where the labs deploy to that could go to more than one place; `kube-context` is a cluster that is there already."""
    kube_context: str = Field("", validation_alias=_name("KUBE_CONTEXT"))
    """For TARGET=kube-context: the context of the kubeconfig; empty for its current one."""
    kube_registry: str = Field("", validation_alias=_name("KUBE_REGISTRY"))
    """For TARGET=kube-context: where images are pushed, and its nodes pull from, as in registry.example.com/me."""
    kube_cordon: bool = Field(False, validation_alias=_name("KUBE_CORDON"))
    """For TARGET=kube-context: whether the course may take one of its nodes out of service for a minute."""
    strict: bool = Field(False, validation_alias=_name("COURSE_STRICT"))
    """A check that is not passed raises: what an instructor's grading sets."""
    state_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_state_dir("course-lab")),
        validation_alias=_name("COURSE_STATE_DIR"),
    )
    """The ledger, evidence and logs live here, outside the checkout, so that cleanup outlives a deleted clone."""
    work_dir: Path = Field(CHECKOUT / "work", validation_alias=_name("COURSE_WORK_DIR"))
    """The learner's copies of notebooks and the files they write."""
    run_id: str = Field("", validation_alias=_name("COURSE_RUN_ID"))
    """Set by the runner: the run that evidence belongs to."""
    yes: bool = Field(False, validation_alias=_name("YES"))
    """Answer yes to every question, such as whether to install packages."""
    node_image: str = Field("", validation_alias=_name("COURSE_NODE_IMAGE"))
    """Another node image for kind than the one that would be chosen: a reference, or an archive of one."""
    ngc_base: str = Field("", validation_alias=_name("NGC_BASE"))
    """Another NGC image than the pinned one, for a GPU host."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def checkout_id(self) -> str:
        """Eight hexadecimal digits that tell this checkout from another on the same machine."""
        return hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:8]

    def object_name(self, name: str) -> str:
        """The name of a container, network or volume: neither two checkouts nor a notebook and a headless run collide."""
        run = f"{hashlib.sha256(self.run_id.encode()).hexdigest()[:4]}-" if self.run_id else ""
        return f"course-{self.checkout_id}-{run}{name}"

    @property
    def ca_bundle(self) -> Path | None:
        """The file of certificate authorities this machine trusts, or None where none is found."""
        candidates = [os.environ.get(name, "") for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")]
        return next((Path(c) for c in (*candidates, *_CA_BUNDLES) if c and Path(c).is_file()), None)


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process.

    Raises:
        CourseError: a value is not one of those that can be chosen.
    """
    try:
        found = Settings()  # type: ignore[call-arg]  # every field comes from the environment or has a default
    except tomllib.TOMLDecodeError as error:
        raise CourseError(
            "course.toml can't be read", why=str(error), do="Mend that line, or delete the file."
        ) from None
    except ValidationError as error:
        wrong = error.errors()[0]
        name = str(wrong["loc"][0]).upper() if wrong["loc"] else "a setting"
        raise CourseError(
            f"{name}={wrong['input']!r} can't be used",
            why=wrong["msg"],
            do=f"Set {name} to one of these, or leave it out.",
        ) from None
    try:
        found.state_dir.mkdir(parents=True, exist_ok=True)
        (found.state_dir / ".writable").touch()
    except OSError as error:
        raise CourseError(
            f"the course can't write to its folder {found.state_dir}",
            why=str(error),
            do=f"Give it back to yourself: sudo chown -R $USER {found.state_dir} (a run with sudo may have made it root's).",
        ) from None
    return found
