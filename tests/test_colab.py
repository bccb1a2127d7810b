"""The notebooks run from the first cell to the last."""

import pathlib

import nbclient
import nbformat
import pytest

FOLDER = pathlib.Path(__file__).parent.parent / "colab"

# Code of the notebook, and its replacement in the quick test: a tiny encoder and tiny
# data. Code that is not found fails the test.
REPLACEMENTS = {
    "1_first_transfer.ipynb": {
        "%pip install -q": "import tests.small_notebook as small  #",
        'tlkit.samples.encoder("minilm")': "small.encoder()",
        'tlkit.samples.splits("reuters-r8")': "small.splits()",
        "epochs=15": "epochs=2",
        # The process that compares predictions would import TensorFlow again.
        "examples=splits.validation": "check=False",
    }
}


def run(name, folder, replacements):
    notebook = nbformat.read(FOLDER / name, as_version=4)
    found = set()
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        assert not cell.outputs, "commit notebooks without outputs"
        for old, new in replacements.items():
            if old in cell.source:
                found.add(old)
                cell.source = cell.source.replace(old, new)
    assert found == set(replacements)
    client = nbclient.NotebookClient(
        notebook, timeout=1800, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return notebook


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(REPLACEMENTS))
def test_notebooks_run(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    notebook = run(name, tmp_path, REPLACEMENTS[name])
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", ())]
    images = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(images) == 2
    assert (tmp_path / "saved_models/reuters/1/saved_model.pb").is_file()


def test_every_notebook_is_tested():
    assert {path.name for path in FOLDER.glob("*.ipynb")} == set(REPLACEMENTS)
