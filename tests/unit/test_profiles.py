"""Profiles: Prefect's own commands find the server of each folder, and none takes the profile of another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_PROFILES_PATH,
    Profile,
    load_profiles,
    save_profiles,
    temporary_settings,
)

from assetcore.blocks import OWNERS, profile


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}/api"


def known() -> dict[str, str]:
    """The address of each profile."""
    return {one.name: one.settings[PREFECT_API_URL] for _, one in load_profiles(include_defaults=False).items()}


@pytest.fixture(autouse=True)
def profiles(tmp_path: Path) -> Iterator[Path]:
    """A file of profiles that nobody has written yet."""
    path = tmp_path / "prefect" / "profiles.toml"
    with temporary_settings({PREFECT_PROFILES_PATH: path}):
        yield path


def test_the_first_folder_keeps_the_profile_and_others_have_their_own() -> None:
    """Whatever the order in which they ask again; also where they are called the same, or their server has moved."""
    one, two, three = Path("/a/notes"), Path("/b/my notes"), Path("/c/my notes")
    assert profile(url(1), one) == ("assetcore", True)
    assert profile(url(2), two) == ("assetcore-my-notes", True)
    assert profile(url(3), three) == ("assetcore-my-notes-2", True)
    for port, folder, name in [
        (2, two, "assetcore-my-notes"),
        (1, one, "assetcore"),
        (3, three, "assetcore-my-notes-2"),
    ]:
        assert profile(url(port), folder) == (name, False)
    assert profile(url(4), one) == ("assetcore", True)
    assert profile(url(5), three) == ("assetcore-my-notes-2", True)
    assert known() == {"assetcore": url(4), "assetcore-my-notes": url(2), "assetcore-my-notes-2": url(5)}


def test_folders_that_share_a_server_share_its_profile() -> None:
    """Until one of them has another server: then it is the first one's still."""
    assert profile(url(1), Path("/a")) == ("assetcore", True)
    assert profile(url(1), Path("/b")) == ("assetcore", False)
    assert profile(url(2), Path("/b")) == ("assetcore-b", True)
    assert known() == {"assetcore": url(1), "assetcore-b": url(2)}


@pytest.mark.parametrize("note", [None, "", "[]", "{"])
def test_a_profile_of_which_nobody_knows_whose_it_is_stays(profiles: Path, note: str | None) -> None:
    """What somebody wrote himself, or an earlier version, points where it did; it is used where it points here."""
    collection = load_profiles(include_defaults=False)
    collection.add_profile(Profile(name="assetcore", settings={PREFECT_API_URL: url(1)}))
    save_profiles(collection)
    if note is not None:
        profiles.with_name(OWNERS).write_text(note)
    assert profile(url(2), Path("/b")) == ("assetcore-b", True)
    assert profile(url(1), Path("/a")) == ("assetcore", False)
    assert profile(url(3), Path("/a")) == ("assetcore", True)
