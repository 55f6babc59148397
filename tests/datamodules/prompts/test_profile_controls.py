"""Profiles made wrong on purpose: who gets whose, and how many attributes are wrong or missing."""

from collections import Counter

import pytest

from datamodules.prompts.profiles import ProfileControl

CITIES = ["kyoto", "osaka", "kyoto", "kyoto"]
PROFILES = {f"user {number}": {"city": CITIES[number % 4], "number": str(number)} for number in range(2000)}


def test_nothing_is_done_by_default():
    assert ProfileControl().apply(PROFILES) == PROFILES


def test_everybody_gets_the_profile_of_somebody_else():
    shuffled = ProfileControl(shuffled=True).apply(PROFILES)
    assert shuffled.keys() == PROFILES.keys()
    assert all(shuffled[user] != profile for user, profile in PROFILES.items())
    assert sorted(profile["number"] for profile in shuffled.values()) == sorted(map(str, range(2000)))
    assert shuffled == ProfileControl(shuffled=True).apply(dict(reversed(PROFILES.items())))
    assert shuffled != ProfileControl(shuffled=True, seed=1).apply(PROFILES)


def test_shares_of_wrong_and_missing_attributes():
    spoilt = ProfileControl(wrong=0.3, missing=0.2).apply(PROFILES)
    what = Counter()
    for user, profile in PROFILES.items():
        for name, value in profile.items():
            found = spoilt[user].get(name)
            what["missing" if found is None else "right" if found == value else "wrong"] += 1
    # 4,000 attributes: two standard errors are 0.015.
    assert what["wrong"] / 4000 == pytest.approx(0.3, abs=0.02)
    assert what["missing"] / 4000 == pytest.approx(0.2, abs=0.02)
    wrong_cities = {spoilt[user].get("city") for user, profile in PROFILES.items() if profile["city"] == "osaka"}
    assert wrong_cities == {"osaka", "kyoto", None}


def test_a_wrong_value_is_drawn_as_the_others_are_distributed():
    profiles = {f"user {number}": {"age": ("old", "young", "young", "young")[number % 4]} for number in range(2000)}
    profiles |= {f"child {number}": {"age": "child"} for number in range(400)}
    spoilt = ProfileControl(wrong=1.0).apply(profiles)
    of_children = Counter(spoilt[user]["age"] for user in profiles if user.startswith("child"))
    assert of_children["child"] == 0
    assert of_children["young"] / 400 == pytest.approx(0.75, abs=0.05)  # 1,500 of the 2,000 others


def test_what_somebody_gets_does_not_depend_on_the_others_there():
    few = {user: PROFILES[user] for user in list(PROFILES)[:50]}
    control = ProfileControl(missing=0.5)
    assert control.apply(few) == {user: profile for user, profile in control.apply(PROFILES).items() if user in few}


@pytest.mark.parametrize("shares", [(-0.1, 0.0), (0.0, 1.1), (0.6, 0.5)])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(ValueError, match="are shares: none below 0, and together at most 1"):
        ProfileControl(wrong=shares[0], missing=shares[1])


def test_there_must_be_others():
    with pytest.raises(ValueError, match="1 profiles cannot be shuffled"):
        ProfileControl(shuffled=True).apply({"ada": {"age": "old"}})
    with pytest.raises(ValueError, match="age is 'old' for everybody: there is no wrong value to give"):
        ProfileControl(wrong=1.0).apply({"ada": {"age": "old"}, "ben": {"age": "old"}})
