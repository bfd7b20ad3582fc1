"""The table of providers: every cell has its source, and a host belongs to one row at most."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec
import pytest

from segue.dialects.provider_families import FAMILIES, ProviderFamily, find_family_by_host
from segue.dialects.provider_profiles import PLAIN


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_every_cell_that_is_not_at_its_default_has_a_source(family: ProviderFamily) -> None:
    """And no other has one."""
    plain = msgspec.structs.asdict(PLAIN)
    changed = {name for name, value in msgspec.structs.asdict(family.profile).items() if value != plain[name]}
    assert set(family.sources) == changed
    for source in family.sources.values():
        assert urlsplit(source).scheme == "https"
        assert urlsplit(source).hostname


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("api.openai.com", "openai"),
        ("API.OPENAI.COM", "openai"),
        ("eu.api.openai.com", None),
        ("mine.openai.azure.com", "azure"),
        ("openai.azure.com", None),
        ("generativelanguage.googleapis.com", "gemini"),
        ("us-central1-aiplatform.googleapis.com", "vertex"),
        ("aiplatform.googleapis.com", "vertex"),
        ("api.mistral.ai", "mistral"),
        ("127.0.0.1", None),
        ("", None),
    ],
)
def test_a_host_says_whose_server_it_is(host: str, name: str | None) -> None:
    family = find_family_by_host(host)
    assert (family and family.name) == name


def test_no_host_belongs_to_two_providers() -> None:
    hosts = [host for family in FAMILIES.values() for host in family.hosts]
    assert len(hosts) == len(set(hosts))
    for family in FAMILIES.values():
        assert all(find_family_by_host(host.replace("*", "x")) is family for host in family.hosts)
