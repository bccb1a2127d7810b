"""Optional packages, and the one for texts, are imported only where they are needed."""

import os
import pathlib
import sys

from tests import forked
from tests.tiny import write_image_encoder

BLOCKED = ("tensorflow_text", "tensorflow_hub", "tf_keras", "matplotlib")

# A name that is None in sys.modules cannot be imported.
IMAGE_JOB = """
import sys
sys.modules |= dict.fromkeys(sys.argv[3].split(","))
import keras
import numpy as np
import tlkit
source, folder = sys.argv[1:3]
assert tlkit.inspect(source, verbose=0).blocks
model = tlkit.image_classifier(source, ["cat", "dog"], image_size=8)
x = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype("uint8")
head = tlkit.Phase("head", epochs=1)
tlkit.fit(model, x, np.arange(8) % 2, schedule=head, batch_size=4, verbose=0)
expected = [p.label for p in tlkit.predict(model, list(x), verbose=0)]
model.save(f"{folder}/model.keras")
loaded = keras.saving.load_model(f"{folder}/model.keras")
assert [p.label for p in tlkit.predict(loaded, list(x), verbose=0)] == expected
tlkit.export(loaded, f"{folder}/served", check=False, verbose=0)
assert all(sys.modules[name] is None for name in sys.argv[3].split(","))
"""


def test_images_need_no_package_for_texts_and_no_extra(tmp_path):
    source = write_image_encoder(tmp_path / "encoder" / "1")
    done = forked.run(
        [sys.executable, "-c", IMAGE_JOB, source, tmp_path, ",".join(BLOCKED)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parent.parent)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "served" / "1" / "saved_model.pb").is_file()
