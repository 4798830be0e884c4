"""Foreign pickles run nothing, and ask for no more memory than their own size explains."""

import pickle
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpt_plugin.files import check_pickle

atoms = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
plain = st.recursive(
    atoms,
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner) | st.frozensets(st.text())
    ),
)


@given(plain, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_data_passes(value: object, protocol: int):
    check_pickle(pickle.dumps(value, protocol))


def test_a_memo_place_beyond_the_pickle():
    claiming = b"\x80\x02Nr\xff\xff\xff\x7f."  # LONG_BINPUT 2**31 - 1
    with pytest.raises(ValueError, match="memo place 2,147,483,647"):
        check_pickle(claiming)


def test_tuples_nested_too_deeply():
    nested = b"\x80\x02)" + b"\x85" * 101 + b"."
    with pytest.raises(ValueError, match="deeper than 100"):
        check_pickle(nested)
    value: object = 0
    for _ in range(99):
        value = (value,)
    check_pickle(pickle.dumps(value))


def test_tuples_of_the_same_tuple_again_and_again():
    doubling = b"\x80\x02)" + b"2\x86" * 60 + b"."  # DUP TUPLE2: 2**60 members
    started = time.monotonic()
    with pytest.raises(ValueError, match="more than 100,000,000 members"):
        check_pickle(doubling)
    assert time.monotonic() - started < 1


def test_the_same_through_the_memo():
    doubling = b"\x80\x02)q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"."  # BINGET BINGET TUPLE2 BINPUT
    with pytest.raises(ValueError, match="more than 100,000,000 members"):
        check_pickle(doubling)


def test_a_long_list_is_no_deep_one():
    check_pickle(pickle.dumps({str(number): [number, (number, "x")] for number in range(2_000)}))
    check_pickle(pickle.dumps([0] * 20_000, 0))
