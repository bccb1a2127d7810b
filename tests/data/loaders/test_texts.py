import pytest
import tensorflow as tf

import tlkit.data
from tlkit.errors import DataError


def _write(path, rows, header="text,label", encoding="utf-8"):
    path.write_bytes("\n".join([header, *rows, ""]).encode(encoding))
    return path


def _load(path, **options):
    return tlkit.data.text_csv(path, text="text", label="label", **options)


def _found(splits):
    pairs = []
    for name in splits.sizes:
        for raw, label in getattr(splits, name).as_numpy_iterator():
            pairs.append((raw.decode(), splits.labels[label]))
    return sorted(pairs)


_ROWS = ["good day,good", "fine day,good", "bad day,bad", "sad day,bad"]
_PAIRS = [
    ("bad day", "bad"),
    ("fine day", "good"),
    ("good day", "good"),
    ("sad day", "bad"),
]


def test_texts_come_back_with_their_labels(tmp_path):
    path = _write(tmp_path / "a.csv", _ROWS)
    splits = _load(path, validation=0, test=0)
    assert _found(splits) == _PAIRS
    assert splits.labels == ("bad", "good")
    assert splits.kind == "text"
    assert splits.train.element_spec == (
        tf.TensorSpec([], tf.string),
        tf.TensorSpec([], tf.int32),
    )
    lower = splits.train.map(lambda raw, label: tf.strings.length(raw))
    assert sorted(int(length) for length in lower) == [7, 7, 8, 8]


def test_shares_and_seed(tmp_path):
    rows = [f"text {n},{'ab'[n % 2]}" for n in range(100)]
    path = _write(tmp_path / "a.csv", rows)
    splits = _load(path, validation=0.2, test=10, seed=3)
    assert splits.sizes == {"train": 70, "validation": 20, "test": 10}
    assert sum(int(label) for _, label in splits.test) == 5
    again = _load(path, validation=0.2, test=10, seed=3)
    assert list(splits.train.as_numpy_iterator()) == list(
        again.train.as_numpy_iterator()
    )
    assert len(set(_found(splits))) == 100


def test_quotes_line_breaks_and_delimiters_in_fields(tmp_path):
    rows = ['"one, two\nthree ""four""",a', "ünï ☃,b", "", "plain , a "]
    splits = _load(_write(tmp_path / "a.csv", rows[:-1]), validation=0, test=0)
    assert _found(splits) == [('one, two\nthree "four"', "a"), ("ünï ☃", "b")]
    splits = _load(_write(tmp_path / "b.csv", rows), validation=0, test=0)
    assert _found(splits)[1] == ("plain ", "a")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252", "latin-1"])
def test_encodings(tmp_path, encoding):
    path = _write(tmp_path / "a.csv", ["café,a", "thé,b"], encoding=encoding)
    given = "utf-8" if encoding == "utf-8-sig" else encoding
    splits = _load(path, validation=0, test=0, encoding=given)
    assert _found(splits) == [("café", "a"), ("thé", "b")]


@pytest.mark.parametrize(
    ("name", "given", "written"),
    [
        ("a.csv", None, ","),
        ("a.TSV", None, "\t"),
        ("a.tab", None, "\t"),
        ("a.csv", ";", ";"),
        ("a.txt", "|", "|"),
    ],
)
def test_delimiters(tmp_path, name, given, written):
    rows = [row.replace(",", written) for row in _ROWS]
    path = _write(tmp_path / name, rows, header=f"text{written}label")
    assert _found(_load(path, validation=0, test=0, delimiter=given)) == _PAIRS


def test_quotes_without_a_meaning(tmp_path):
    rows = ['"hello" he said\ta', '5" wide\tb']
    path = _write(tmp_path / "a.tsv", rows, header="text\tlabel")
    splits = _load(path, validation=0, test=0, quote=None)
    assert _found(splits) == [('"hello" he said', "a"), ('5" wide', "b")]
    with pytest.raises(DataError, match=r"near line 2.*quote=None"):
        _load(path)


def test_a_quote_that_is_never_closed(tmp_path):
    path = _write(tmp_path / "a.csv", ['"open,a', "next,b"])
    with pytest.raises(DataError, match="unexpected end of data"):
        _load(path)


def test_long_fields(tmp_path):
    import csv

    path = _write(tmp_path / "a.csv", ["x" * 200_000 + ",a", "short,b"])
    limit = csv.field_size_limit()
    splits = _load(path, validation=0, test=0)
    assert [len(text) for text, _ in _found(splits)] == [5, 200_000]
    assert csv.field_size_limit() == limit


def test_files_for_the_other_splits(tmp_path):
    train = _write(tmp_path / "train.csv", [*_ROWS, *_ROWS, *_ROWS])
    test = _write(tmp_path / "test.csv", ["new day,good"])
    splits = _load(train, test_path=test, validation=2)
    assert splits.sizes == {"train": 10, "validation": 2, "test": 1}
    assert list(splits.test.as_numpy_iterator()) == [(b"new day", 1)]
    splits = _load(train, test_path=test, validation_path=test)
    assert splits.sizes == {"train": 12, "validation": 1, "test": 1}


def test_empty_texts_are_skipped_and_counted(tmp_path):
    path = _write(tmp_path / "a.csv", [",a", *_ROWS, '"  ",b', "", ",", "text,"])
    with pytest.warns(tlkit.data.SkippedWarning, match="Skipped 4 rows") as warnings:
        splits = _load(path, validation=0, test=0)
    assert warnings[0].filename == __file__
    assert f"{path}, row 2: the text is empty." in str(warnings[0].message)
    assert [(entry.row, entry.reason) for entry in splits.skipped] == [
        (2, "the text is empty."),
        (7, "the text is empty."),
        (9, "the row is empty."),
        (10, "the label is empty."),
    ]
    assert {entry.path for entry in splits.skipped} == {str(path)}
    assert _found(splits) == _PAIRS


def test_an_empty_text_can_be_an_error(tmp_path):
    path = _write(tmp_path / "a.csv", ["one,a", " ,b"])
    with pytest.raises(DataError, match=r"a\.csv, row 3: the text is empty.*on_empty"):
        _load(path, on_empty="raise")


@pytest.mark.parametrize("on_empty", ["drop", None])
def test_on_empty_is_checked(on_empty):
    with pytest.raises(DataError, match='on_empty must be "skip" or "raise"'):
        _load("nowhere.csv", on_empty=on_empty)


def test_a_missing_file(tmp_path):
    _write(tmp_path / "reviews.csv", _ROWS)
    message = r"no file .*review\.csv. Did you mean 'reviews\.csv'\?"
    with pytest.raises(DataError, match=message):
        _load(tmp_path / "review.csv")
    with pytest.raises(DataError, match="is a folder"):
        _load(tmp_path)


def test_a_missing_column(tmp_path):
    path = _write(tmp_path / "a.csv", ["1,2,3"], header="review,labels,id")
    message = r"no column 'label'. Its columns: 'review', 'labels', 'id'. Did you mean "
    with pytest.raises(DataError, match=message + r"'labels'\?"):
        tlkit.data.text_csv(path, text="review", label="label")


def test_a_column_that_stands_twice(tmp_path):
    path = _write(tmp_path / "a.csv", ["1,2,3"], header="text,label,text")
    with pytest.raises(DataError, match="2 columns 'text'"):
        _load(path)


def test_one_column_for_both():
    with pytest.raises(DataError, match="must be different columns"):
        tlkit.data.text_csv("a.csv", text="a", label="a")


def test_another_delimiter_is_suspected(tmp_path):
    path = _write(tmp_path / "a.csv", ["one;a"], header="text;label")
    with pytest.raises(DataError, match="Type: delimiter=';'"):
        _load(path)


def test_an_empty_file(tmp_path):
    (tmp_path / "a.csv").touch()
    with pytest.raises(DataError, match=r"a\.csv is empty"):
        _load(tmp_path / "a.csv")


def test_a_header_only(tmp_path):
    with pytest.raises(DataError, match=r"two classes; .*a\.csv has no texts"):
        _load(_write(tmp_path / "a.csv", []))


def test_one_class(tmp_path):
    path = _write(tmp_path / "a.csv", ["one,a", "two,a"])
    with pytest.raises(DataError, match="one class, 'a'"):
        _load(path)


@pytest.mark.parametrize("row", ["one,two,a", "one"])
def test_ragged_rows(tmp_path, row):
    path = _write(tmp_path / "a.csv", ['"a\nb",b', row])
    message = rf"Row 3 of .*\(ends on line 4\) has {row.count(',') + 1} fields"
    with pytest.raises(DataError, match=message):
        _load(path)


@pytest.mark.parametrize("which", ["validation", "test"])
def test_a_label_that_is_not_seen_in_training(tmp_path, which):
    train = _write(tmp_path / "train.csv", _ROWS)
    other = _write(tmp_path / "other.csv", ["x,good", "y,ugly", "z,ugly"])
    message = rf"{which} split in .*other\.csv has 1 labels .*'ugly' \(2 texts\)"
    with pytest.raises(DataError, match=message):
        _load(train, **{f"{which}_path": other})


def test_a_class_with_one_text_is_trained_on(tmp_path):
    path = _write(tmp_path / "a.csv", [*_ROWS * 5, "lone,only"])
    splits = _load(path, validation=0.2, test=0.2)
    assert ("lone", "only") in [
        (raw.decode(), splits.labels[label])
        for raw, label in splits.train.as_numpy_iterator()
    ]


def test_bytes_that_are_not_in_the_encoding(tmp_path):
    path = _write(tmp_path / "a.csv", ["plain,a", "café,b"], encoding="latin-1")
    assert path.read_bytes()[22] == 0xE9
    message = r"not written in utf-8: the byte at offset 22 \(line 3\).*cp1252"
    with pytest.raises(DataError, match=message):
        _load(path)
    path = _write(tmp_path / "b.csv", _ROWS, encoding="utf-16")
    with pytest.raises(DataError, match=r"offset 0 \(line 1\).*encoding='utf-16'"):
        _load(path)


def test_a_character_that_is_cut_off_at_the_end(tmp_path):
    path = _write(tmp_path / "a.csv", ["plain,a"])
    path.write_bytes(path.read_bytes() + "café".encode()[:-1])
    with pytest.raises(DataError, match=r"offset 22 \(line 3\)"):
        _load(path)


def test_an_encoding_that_does_not_exist(tmp_path):
    with pytest.raises(DataError, match="encoding must be .* got 'utf-88'"):
        _load(_write(tmp_path / "a.csv", _ROWS), encoding="utf-88")


@pytest.mark.parametrize("option", ["delimiter", "quote"])
def test_characters_are_single(option):
    with pytest.raises(DataError, match=f"{option} must be one character or None"):
        _load("a.csv", **{option: ",,"})


def _write_folder(directory, texts):
    for name, text in texts.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text, encoding="utf-8")


def test_text_folder(tmp_path):
    texts = {"pos/1.txt": "good\nday ☃", "neg/1.TXT": "\ufeffbad", "neg/x/2.txt": "sad"}
    _write_folder(tmp_path, texts)
    _write_folder(tmp_path, {"readme.md": "no", "neg/.3.txt": "no"})
    splits = tlkit.data.text_folder(tmp_path, validation=0, test=0, verbose=0)
    expected = [("bad", "neg"), ("good\nday ☃", "pos"), ("sad", "neg")]
    assert _found(splits) == expected
    assert splits.kind == "text"
    assert splits.labels == ("neg", "pos")


def test_text_folder_with_splits(tmp_path):
    texts = {f"train/{c}/{n}.txt": f"{c} {n}" for c in "ab" for n in range(10)}
    _write_folder(tmp_path, texts | {"test/b/1.txt": "test b"})
    splits = tlkit.data.text_folder(tmp_path, verbose=0)
    assert splits.sizes == {"train": 18, "validation": 2, "test": 1}
    assert list(splits.test.as_numpy_iterator()) == [(b"test b", 1)]


def test_text_folder_with_an_empty_file(tmp_path):
    _write_folder(tmp_path, {"a/1.txt": "a", "b/1.txt": "b", "b/2.txt": " \n"})
    with pytest.warns(tlkit.data.SkippedWarning, match=r"b/2\.txt: the text is empty"):
        splits = tlkit.data.text_folder(tmp_path, validation=0, test=0, verbose=0)
    assert [entry.path for entry in splits.skipped] == [str(tmp_path / "b" / "2.txt")]
    with pytest.raises(DataError, match=r"b/2\.txt has no text"):
        tlkit.data.text_folder(tmp_path, on_empty="raise", verbose=0)


def test_text_folder_in_another_encoding(tmp_path):
    _write_folder(tmp_path, {"a/1.txt": "a", "b/1.txt": "b"})
    (tmp_path / "b" / "1.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(DataError, match=r"b/1\.txt is not written in utf-8.*offset 3"):
        tlkit.data.text_folder(tmp_path, verbose=0)
    splits = tlkit.data.text_folder(
        tmp_path, encoding="latin-1", validation=0, test=0, verbose=0
    )
    assert _found(splits) == [("a", "a"), ("café", "b")]


# === Pairs ===

_HEADER = "premise,hypothesis,label"
_TRIPLES = ["a man,a person,yes", "a dog,a cat,no", "rain,,no", "sun,light,yes"]


def test_pairs_of_texts(tmp_path):
    path = _write(tmp_path / "a.csv", _TRIPLES, _HEADER)
    options = {"text": ("hypothesis", "premise"), "label": "label"}
    splits = tlkit.data.text_csv(path, validation=0, test=0, **options)
    assert splits.kind == "text"
    assert splits.labels == ("no", "yes")
    assert splits.train.element_spec[0] == tf.TensorSpec([2], tf.string)
    found = {(*raw.tolist(), label) for raw, label in splits.train.as_numpy_iterator()}
    assert found == {
        (b"a person", b"a man", 1),
        (b"a cat", b"a dog", 0),
        (b"", b"rain", 0),
        (b"light", b"sun", 1),
    }


def test_a_pair_is_empty_if_both_texts_are(tmp_path):
    path = _write(tmp_path / "a.csv", [*_TRIPLES, " ,,no"], _HEADER)
    options = {"text": ("premise", "hypothesis"), "label": "label"}
    with pytest.warns(tlkit.data.SkippedWarning, match="row 6: the text is empty"):
        splits = tlkit.data.text_csv(path, validation=0, test=0, **options)
    assert splits.sizes == {"train": 4}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (("premise", "premise"), "must be different columns"),
        (("premise", "label"), "must be different columns"),
        ((), "one column, or two for pairs of texts; got none"),
        (("premise", "hypothesis", "label"), "one column, or two"),
        (("premise", "hypotesis"), "Did you mean 'hypothesis'"),
    ],
)
def test_columns_that_make_no_pairs(tmp_path, text, message):
    path = _write(tmp_path / "a.csv", _TRIPLES, _HEADER)
    with pytest.raises(DataError, match=message):
        tlkit.data.text_csv(path, text=text, label="label")
