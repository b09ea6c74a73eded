"""Amounts in and out."""

from datetime import UTC, datetime

import pytest

from cli import units


@pytest.mark.parametrize(
    ("text", "resource_class", "amount"),
    [
        ("8192", "memory_mib", 8192),
        ("8GiB", "memory_mib", 8192),
        ("1.5TiB", "memory_mib", 1572864),
        ("2tib", "storage_gib", 2048),
        ("1024 MiB", "storage_gib", 1),
        ("4", "cpu", 4),
    ],
)
def test_an_amount_is_read_in_the_unit_of_its_class(text: str, resource_class: str, amount: int) -> None:
    assert units.amount(text, resource_class) == amount


@pytest.mark.parametrize(
    ("text", "resource_class"), [("4GiB", "cpu"), ("1.5", "cpu"), ("100MiB", "storage_gib"), ("-1", "cpu"), ("", "cpu")]
)
def test_what_is_no_whole_amount_of_the_class_is_refused(text: str, resource_class: str) -> None:
    with pytest.raises(ValueError, match=r"amount|unit|whole"):
        units.amount(text, resource_class)


def test_a_class_is_assigned_an_amount() -> None:
    assert units.assignment("memory_mib=64GiB") == ("memory_mib", 65536)
    assert units.assignment("nvme=2") == ("nvme", 2)
    with pytest.raises(ValueError, match="class=amount"):
        units.assignment("nvme")


@pytest.mark.parametrize(
    ("value", "resource_class", "text"),
    [
        (8192, "memory_mib", "8 GiB"),
        (512, "memory_mib", "512 MiB"),
        (1572864, "memory_mib", "1.5 TiB"),
        (40, "storage_gib", "40 GiB"),
        (12500, "cpu_milli", "12.5"),
        (12000, "cpu", "12,000"),
        (None, "cpu", "–"),
    ],
)
def test_people_see_the_unit_that_they_think_in(value: int | None, resource_class: str, text: str) -> None:
    assert units.human(value, resource_class) == text


def test_durations_have_units() -> None:
    assert units.duration_s("90") == 90
    assert units.duration_s("2m") == 120
    assert units.duration_s("500ms") == 0.5
    with pytest.raises(ValueError, match="duration"):
        units.duration_s("soon")


def test_known_classes_come_first_and_counts_last() -> None:
    assert units.class_order({"vms", "nvme", "gpu", "cpu", "memory_mib"}) == ["cpu", "memory_mib", "gpu", "nvme", "vms"]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("4711", "4711"),
        ("2026-11-24T15:00:00Z", "2026-11-24T15:00:00Z"),
        ("2026-11-24T15:00:00+08:00", "2026-11-24T07:00:00Z"),
        ("2026-11-24 15:00", "2026-11-24T15:00:00Z"),
        ("2026-11-24", "2026-11-24T00:00:00Z"),
        ("1h", "2026-12-01T08:30:00Z"),
        ("2d", "2026-11-29T09:30:00Z"),
        ("90s", "2026-12-01T09:28:30Z"),
        ("09:00", "2026-12-01T09:00:00Z"),
        ("22:00", "2026-11-30T22:00:00Z"),
    ],
)
def test_a_moment_is_a_position_a_time_or_how_long_ago(text: str, moment: str) -> None:
    assert units.moment(text, now=datetime(2026, 12, 1, 9, 30, tzinfo=UTC)) == moment


@pytest.mark.parametrize("text", ["tomorrow", "", "-1", "1w", "99999999d", "25:00", "2026-13-01"])
def test_what_is_no_moment_says_which_there_are(text: str) -> None:
    with pytest.raises(ValueError, match=r"a position, a time \(2026-11-24T15:00:00Z"):
        units.moment(text, now=datetime(2026, 12, 1, tzinfo=UTC))
