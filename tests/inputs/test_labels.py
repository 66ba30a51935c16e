"""The class of every row is read from text, `.npy` and `.npz`; what is not a list of classes is an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bnfold.errors import InputError
from bnfold.inputs.labels import read

PICTURES = ("a.png", "b.png", "c.png")


@pytest.fixture
def text(tmp_path: Path):
    """Write a text file of labels."""

    def write(content: str) -> Path:
        path = tmp_path / "labels.csv"
        path.write_text(content, encoding="utf-8-sig")
        return path

    return write


@pytest.mark.parametrize("content", ["3\n0\n12\n", "class\n3\n0\n\n12", " 3 \r\n0\r\n12\r\n"])
def test_one_class_a_line_in_the_order_of_the_rows(text, content: str):
    classes = read(text(content))
    assert (classes.dtype, classes.tolist()) == (np.int64, [3, 0, 12])
    assert read(text(content), PICTURES).tolist() == [3, 0, 12]


def test_names_bring_classes_into_the_order_of_the_pictures(text):
    path = text("name,label\nc.png,7\nx.png,9\na.png, 1\nb.png,0\n")
    assert read(path, PICTURES).tolist() == [1, 0, 7]


def test_arrays(tmp_path: Path):
    np.save(tmp_path / "column.npy", np.array([[4], [5]], np.uint8))
    np.savez(
        tmp_path / "data.npz", x=np.zeros((2, 3), np.float32), y=np.array([4, 5]), k=np.ones((2, 2), int)
    )
    assert read(tmp_path / "column.npy").tolist() == [4, 5]
    assert read(tmp_path / "data.npz").tolist() == [4, 5]


@pytest.mark.parametrize(
    ("content", "pictures", "said"),
    [
        ("", (), "has no class in it"),
        ("heading\n", (), "has no class in it"),
        ("1\n-2\n", (), "has the class -2"),
        ("1\ncat\n", (), "Line 2 of .* is not a class: cat"),
        ("1\n2.5\n", (), "Line 2 of .* is not a class: 2.5"),
        ("a.png,1\nb.png,2,3\n", PICTURES, "Line 2 of .* is not a class: b.png,2,3"),
        ("a.png,1\nb.png,2\n", (), "names a picture on each line, and the data are arrays"),
        ("a.png,1\nb.png,2\n", PICTURES, "has no class for c.png"),
        ("a.png,1\na.png,2\n", PICTURES, "names a picture twice"),
    ],
)
def test_text_that_is_not_a_list_of_classes(text, content: str, pictures: tuple[str, ...], said: str):
    with pytest.raises(InputError, match=said) as caught:
        read(text(content), pictures)
    assert caught.value.fix


def test_files_that_are_not_lists_of_classes(tmp_path: Path):
    np.save(tmp_path / "floats.npy", np.zeros(3))
    np.save(tmp_path / "square.npy", np.zeros((2, 2), int))
    np.savez(tmp_path / "two.npz", y=np.zeros(2, int), z=np.zeros(2, int))
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    for name, said in (
        ("floats.npy", "float64 [3], which is not a list of classes"),
        ("square.npy", "int64 [2, 2], which is not"),
        ("two.npz", "not exactly one array of integers in a row: y, z"),
        ("bytes.csv", "cannot be read as a text file"),
        ("absent.csv", "cannot be read: No such file"),
    ):
        with pytest.raises(InputError) as caught:
            read(tmp_path / name)
        assert said in caught.value.problem
