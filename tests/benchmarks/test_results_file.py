import json

from benchmarks import results_file


def test_result_is_continued_only_with_the_same_code(tmp_path, monkeypatch):
    monkeypatch.setattr(results_file, "RESULTS", tmp_path)
    path = results_file.write("x", {"rows": [1], "code": "one"})
    content = json.loads(path.read_text())
    assert {"date", "machine", "commit", "rows"} <= set(content)
    assert results_file.read("x", "one")["rows"] == [1]
    assert results_file.read("x", "two") == results_file.read("y", "one") == {}


def test_code_digest_depends_on_the_matching_files_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(results_file, "ROOT", tmp_path)
    (tmp_path / "train.py").write_text("one")
    before = results_file.code_digest("*.py")
    (tmp_path / "notes.txt").write_text("no code")
    assert results_file.code_digest("*.py") == before
    (tmp_path / "train.py").write_text("two")
    assert results_file.code_digest("*.py") != before
