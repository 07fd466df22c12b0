import json

from benchmarks import results_file


def test_result_is_continued_only_on_the_same_commit_without_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(results_file, "RESULTS", tmp_path)
    path = results_file.write("x", {"rows": [1], "code": "one"})
    content = json.loads(path.read_text())
    assert {"date", "machine", "commit", "rows"} <= set(content)
    assert results_file.read("x", "one")["rows"] == [1]
    assert results_file.read("x", "two") == results_file.read("y", "one") == {}
    results_file.write("x", {"rows": [1], "code": "one-dirty"})
    assert results_file.read("x", "one-dirty") == {}
