"""The times of posts as social networks write them, in milliseconds since 1970 in UTC.

Besides Arrow's own times, three forms are read:

    ISO 8601         2018-10-10T20:19:24.5+09:00, with `Z`, or without a zone, which is read as UTC
    Twitter's API    Wed Oct 10 20:19:24 +0000 2018 (whatever the weekday says)
    epoch numbers    seconds below 1e11 (the year 5138), milliseconds from there to 1e14; as numbers or as strings

Fractions of a millisecond are cut off. A column of one form is parsed in one go; any other is parsed value by value,
with the same result.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ISO = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-5][0-9](?:\.[0-9]{1,6})?"
ISO_WITH_ZONE, ISO_WITHOUT_ZONE = ISO + r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])$", ISO + "$"
TWITTER = r"^[A-Z][a-z]{2} [A-Z][a-z]{2} [0-9]{2} [0-9]{2}:[0-9]{2}:[0-5][0-9] \+0000 [0-9]{4}$"
TWITTER_FORMAT = "%a %b %d %H:%M:%S %z %Y"
NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]+)?")
FIRST_MILLISECONDS, LAST_MILLISECONDS = 1e11, 1e14
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def milliseconds(values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Times of a column of strings, numbers or timestamps, and which values are given and are no time.

    Times are int64, null where there is none.
    """
    if pa.types.is_timestamp(values.type):
        found = _of_timestamps(values)
    elif not pa.types.is_string(values.type):
        found = _of_numbers(values)
    else:
        try:
            found = _of_one_form(values)
        except pa.ArrowInvalid:
            found = None
        if found is None:
            found = pa.array([None if value is None else _of_string(value) for value in values.to_pylist()], pa.int64())
    return found, pc.and_(values.is_valid(), found.is_null())


def _of_one_form(values: pa.Array) -> pa.Array | None:
    """The times, where all values have one form; None or ArrowInvalid otherwise."""
    given = values.drop_null()
    if not len(given):
        return pa.nulls(len(values), pa.int64())
    forms = (form for form in (ISO_WITH_ZONE, ISO_WITHOUT_ZONE, TWITTER) if re.match(form, given[0].as_py()))
    form = next(forms, None)
    if form is None or not pc.all(pc.match_substring_regex(given, form)).as_py():
        return None
    if form == TWITTER:
        times = pc.strptime(values, format=TWITTER_FORMAT, unit="us")
        days = pc.utf8_slice_codeunits(values, 8, 10).cast(pa.int64())
        if not pc.all(pc.equal(pc.day(times), days)).as_py():  # the 31st of February is no time
            return None
    else:
        times = values.cast(pa.timestamp("us", "UTC") if form == ISO_WITH_ZONE else pa.timestamp("us"))
    return _of_timestamps(times)


def _of_timestamps(values: pa.Array) -> pa.Array:
    factor, divisor = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "ns": (1, 1_000_000)}[values.type.unit]
    ticks = values.cast(pa.int64()).fill_null(0).to_numpy()
    return pa.array(ticks * factor // divisor, mask=values.is_null().to_numpy(zero_copy_only=False))


def _of_numbers(values: pa.Array) -> pa.Array:
    numbers = values.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):
        seconds = np.abs(numbers) < FIRST_MILLISECONDS
        bad = ~(np.abs(numbers) < LAST_MILLISECONDS)
        times = np.floor(np.where(seconds, np.round(numbers * 1000, 3), numbers))
    return pa.array(np.where(bad, 0, times).astype(np.int64), mask=bad)


def _of_string(value: str) -> int | None:
    value = value.strip()
    if NUMBER.fullmatch(value):
        return _of_numbers(pa.array([float(value)]))[0].as_py()
    for parse in (datetime.fromisoformat, lambda text: datetime.strptime(text, TWITTER_FORMAT)):
        try:
            time = parse(value)
            elapsed = (time if time.tzinfo else time.replace(tzinfo=UTC)) - EPOCH
        except (ValueError, OverflowError):
            continue
        return (elapsed.days * 86_400 + elapsed.seconds) * 1000 + elapsed.microseconds // 1000
    return None
