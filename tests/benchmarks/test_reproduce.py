from benchmarks.reproduce import compare, show


def test_certificate_shows_each_difference_and_each_missing_output():
    outputs = compare({"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"})
    assert [path for path, row in outputs.items() if row["expected"] != row["actual"]] == [
        "b",
        "c",
        "d",
    ]
    assert outputs["c"]["actual"] == outputs["d"]["expected"] == "-"
    certificate = {
        "environment": {"cpu": "x"},
        "commit": "abc",
        "seconds": 1,
        "outputs": outputs,
        "changed_files": ["dvc.lock"],
    }
    text = show(certificate)
    assert text.count("DIFFERS") == 3
    assert "committed file changed: dvc.lock" in text
