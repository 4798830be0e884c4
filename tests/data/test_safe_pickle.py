"""Foreign pickles are read as plain data or not at all."""

import json
import os
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmpt_plugin.data.safe_pickle import SkippedArray, load_plain_pickle

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
plain = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=10,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=plain, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_data_of_any_protocol_is_read(tmp_path, data, protocol):
    path = tmp_path / "data.pkl"  # written anew for each example
    path.write_bytes(pickle.dumps(data, protocol))
    assert load_plain_pickle(path) == data


def test_bytes_and_sets_are_read(tmp_path):
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps({"a": b"\xff", "b": {1, 2}}))
    assert load_plain_pickle(path) == {"a": b"\xff", "b": {1, 2}}


def test_strings_of_python_2_are_read(tmp_path):
    path = tmp_path / "data.pkl"
    path.write_bytes(b"(S'id'\nS'caf\\xc3\\xa9'\nd.")  # {"id": "café"}, byte strings of protocol 0
    assert load_plain_pickle(path) == {"id": "café"}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_is_not_run(tmp_path, protocol):
    marker = tmp_path / "executed"

    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    path = tmp_path / "attack.pkl"
    path.write_bytes(pickle.dumps({0: ["video", Attack()]}, protocol))
    with pytest.raises(ValueError, match=r"attack\.pkl.* asks for the global \w+\.system"):
        load_plain_pickle(path)
    assert not marker.exists()


@pytest.mark.parametrize("data", [np.zeros(2), np.float32(1), complex(1, 2), print])
def test_even_harmless_classes_are_refused(tmp_path, data):
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(data))
    with pytest.raises(ValueError, match="asks for the global"):
        load_plain_pickle(path)


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps({0: ["a" * 40]})[:-9], b"\x80\x05b."])
def test_damage_names_the_file(tmp_path, content):
    path = tmp_path / "data.pkl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"data\.pkl: refused"):
        load_plain_pickle(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pkl"):
        load_plain_pickle(tmp_path / "none.pkl")


def test_reads_what_the_original_wrote(golden):
    metas = golden / "shards" / "data" / "feat" / "feat_how2_s3d_shard_small" / "train_meta.pkl"
    decoded = json.loads((golden / "shards" / "decoded" / "train_meta.json").read_text())
    assert {str(number): ids for number, ids in load_plain_pickle(metas).items()} == decoded
    youcook = golden / "eval_youcook" / "data" / "youcook" / "youcook_val.pkl"
    assert load_plain_pickle(youcook) == json.loads(youcook.with_suffix(".decoded.json").read_text())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_can_be_skipped(tmp_path, protocol):
    """As in the clip list of YouCook2, whose records carry features beside the id."""
    path = tmp_path / "clips.pkl"
    path.write_bytes(pickle.dumps([{"id": "a_1", "2d": np.ones((2, 3), np.float32), "n": np.float64(2)}], protocol))
    (record,) = load_plain_pickle(path, skip_arrays=True)
    assert record["id"] == "a_1"
    assert isinstance(record["2d"], SkippedArray)


def test_arrays_of_python_2_can_be_skipped(tmp_path):
    path = tmp_path / "clips.pkl"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I1\ntcnumpy\ndtype\n(S'u1'\nI0\nI1\ntRI00\nS'\\xff'\ntb"
    )
    path.write_bytes(b"(S'id'\nS'a_1'\nS'2d'\n" + array + b"d.")
    assert load_plain_pickle(path, skip_arrays=True)["id"] == "a_1"


def test_code_is_not_run_where_arrays_are_skipped(tmp_path):
    path = tmp_path / "attack.pkl"
    path.write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")
    with pytest.raises(ValueError, match=r"asks for the global os\.system"):
        load_plain_pickle(path, skip_arrays=True)
