from benchmarks.reproduce import compare, is_equal, show


def test_each_difference_and_each_missing_output_is_shown():
    expected, actual = {"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"}
    outputs = compare({"expected": expected, "actual": actual})
    assert [path for path, row in outputs.items() if not is_equal(row)] == ["b", "c", "d"]
    assert outputs["c"]["actual"] == outputs["d"]["expected"] == "-"
    assert show(outputs).count("DIFFERS") == 3
