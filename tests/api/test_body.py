"""A short body is read by another decoder than a long one: both must find the same in it."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from api import body
from domain.errors import Malformed

NAMES = ('"a"', '"b"', r'"\u0061"', '"a:"', '""')
VALUES = (
    *('"a"', '"a:b"', r'"\u003a"', r'"\ud800"', r'"\ud83d\ude00"', '"ä"', '"\x7f"', '"\t"', r'"\/"', r'"\u0000"'),
    *("0", "-0", "-0.0", "01", "1.", ".5", "1e5", "1E-400", "1e999", "0.1", "2.2250738585072014e-308"),
    *("18446744073709551616", "-9223372036854775809", "1" * 390, "123456789.123456789123456789e-5"),
    *("true", "null", "NaN", "-Infinity", "nul", ""),
)
SPACE = st.sampled_from(("", "", "", " ", "\n", "\f"))


@st.composite
def an_object(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    members = draw(st.lists(st.tuples(st.sampled_from(NAMES), SPACE, values), max_size=3))
    return "{" + ",".join(f"{name}{space}:{value}" for name, space, value in members) + "}"


def a_list(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(values, max_size=3).map(lambda entries: f"[{','.join(entries)}]")


VALUE = st.recursive(st.sampled_from(VALUES), lambda inner: an_object(inner) | a_list(inner), max_leaves=6)


def what_came_of(read: Any, data: bytes) -> str:
    try:
        return repr(read(data))
    except Malformed as refusal:
        return f"refused: {refusal.errors}"


@given(st.builds("{}{}{}".format, SPACE, an_object(VALUE) | VALUE, SPACE).map(str.encode) | st.binary(max_size=10))
def test_a_short_body_means_what_it_means_to_the_careful_reader(data: bytes) -> None:
    assert what_came_of(body.parse, data) == what_came_of(body.parse_with_care, data)
