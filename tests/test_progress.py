from tlkit import progress


def shown(capsys, monkeypatch, **options):
    moments = iter(range(0, 1000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(moments))
    options = {"total": 4, "what": "checking images"} | options
    items = progress.progress("abcd", **options)
    assert list(items) == list("abcd")
    return capsys.readouterr()


def test_a_log_gets_a_line_every_ten_seconds(capsys, monkeypatch):
    out, err = shown(capsys, monkeypatch)
    assert out == ""
    assert err.splitlines() == [
        "checking images: 2 of 4, 12 s left",
        "checking images: 4 of 4, 0 s left",
    ]


def test_an_unknown_total_has_no_time_left(capsys, monkeypatch):
    lines = shown(capsys, monkeypatch, total=None).err.splitlines()
    assert lines == ["checking images: 2", "checking images: 4"]


def test_silence(capsys, monkeypatch):
    assert shown(capsys, monkeypatch, verbose=0) == ("", "")


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    items = progress.progress("ab", total=2, what="checking images")
    assert list(items) == ["a", "b"]
    assert "checking images" in capsys.readouterr().err
