"""What is kept, where, and whether it pays."""

import pathlib

import pytest

import tlkit
from tlkit.encoders.costs import section_costs
from tlkit.errors import PlanError
from tlkit.models.model_prefix import FEATURES
from tlkit.training import ActivationCache, Phase
from tlkit.training.plans.cache_plan import cache_options, machine_memory

# Multiplications of the tiny encoder for 8 by 8 pixels: 4 * 4 * 4 * 27 in its first
# stage, 2 * 2 * 6 * 36 in its second. 4 * 4 * 4 numbers lie between them, 6 at the end.
BELOW, ABOVE = 1728, 864


def plan(model, *trained, epochs=2, examples=60_000, **options):
    schedule = [Phase(one, epochs=epochs) for one in trained]
    cache = options.pop("cache", None) or ActivationCache(**options)
    return tlkit.plan(model, schedule, examples=examples, cache=cache)


def kept(*arguments, **options):
    return [planned.kept for planned in plan(*arguments, **options).phases]


def test_costs_are_counted(make_model):
    encoder = next(layer for layer in make_model().layers if hasattr(layer, "sections"))
    costs = section_costs(encoder, [(1, 8, 8, 3)])
    assert costs.multiplications == (BELOW, ABOVE)
    assert costs.sizes[0] == 64
    wider = section_costs(encoder, [(1, 16, 16, 3)])
    assert wider.multiplications == (4 * BELOW, 4 * ABOVE)


def test_costs_of_texts_grow_with_their_length(text_encoder):
    encoder = tlkit.load_encoder(text_encoder)
    short, long = (section_costs(encoder, [(1, n)] * 3) for n in (10, 20))
    assert short.sizes[:2] == (80, 80) and long.sizes[:2] == (160, 160)
    assert short.multiplications[1:3] == (640, 640)
    assert long.multiplications[1:3] == (1280, 1280)


def test_the_last_cut_below_which_all_is_frozen(make_model):
    found = kept(make_model(), "head", 1, 2, ["stage1"], where="memory")
    cuts = [one and (one.cut, one.name) for one in found]
    assert cuts == [(FEATURES, "features"), (1, "stage1"), None, None]


def test_how_much_it_is_and_what_it_saves(make_model):
    features, stage1 = kept(make_model(), "head", 1, where="memory", epochs=4)
    assert features.size == 60_000 * 6 * 4
    assert stage1.size == 60_000 * 64 * 4
    assert features.saves == 0.75  # three epochs of four
    # The backward pass costs twice the forward one.
    done = BELOW + 3 * ABOVE
    assert stage1.saves == pytest.approx(0.75 * BELOW / done)
    (half,) = kept(make_model(), "head", where="disk", dtype="float16")
    assert (half.where, half.dtype, half.size) == ("disk", "float16", 60_000 * 6 * 2)


def test_memory_comes_first_then_float16_then_a_disk_then_nothing(make_model):
    def place(**limits):
        (found,) = kept(make_model(), "head", epochs=20, **limits)
        return found and (found.where, found.dtype, found.size)

    size = 60_000 * 6 * 4
    assert place() == ("memory", "float32", size)
    assert place(memory_limit=size) == ("memory", "float32", size)
    assert place(memory_limit=size - 1) == ("memory", "float16", size // 2)
    assert place(memory_limit=size - 1, dtype="float32") == ("disk", "float32", size)
    limits = {"memory_limit": size // 2 - 1}
    assert place(**limits) == ("disk", "float32", size)
    assert place(**limits, disk_limit=size - 1) is None
    assert place(dtype="float16") == ("memory", "float16", size // 2)


def test_nothing_is_kept_where_computing_anew_is_cheaper(make_model):
    def where(*trained, **options):
        return [one and one.where for one in kept(make_model(), *trained, **options)]

    # In one epoch nothing is computed twice.
    assert where("head", epochs=1) == [None]
    # 64 numbers are read about as fast as they are computed here.
    assert where("head", 1, epochs=2) == ["memory", None]
    # A disk is slow: it takes some epochs to pay.
    assert where("head", epochs=2, memory_limit=0) == [None]
    assert where("head", epochs=20, memory_limit=0) == ["disk"]
    # What was asked for is done.
    assert where("head", 1, where="disk", epochs=1) == ["disk", "disk"]


def test_a_plan_says_what_is_kept(make_model):
    text = str(plan(make_model(), "head", 1, 2, where="memory"))
    (line,) = [line for line in text.splitlines() if line.startswith("cached")]
    cells = [cell.strip() for cell in line.split("  ") if cell.strip()]
    assert cells == [
        "cached",
        "features, 1.4 MB in memory, saves 50%",
        "stage1, 15.4 MB in memory, saves 20%",
        "–",
    ]
    text = str(plan(make_model(), "head", where="disk", examples=10))
    assert "features, 0 kB on disk, saves 50%" in text
    text = str(plan(make_model(), "head", where="memory", examples=None))
    assert "features, saves 50%" in text
    assert "features" not in str(tlkit.plan(make_model(), Phase("head"), cache=False))


def test_the_same_arguments_give_the_same_plan(make_model):
    one, other = (plan(make_model(), "head", 1, epochs=9) for _ in range(2))
    assert [p.kept for p in one.phases] == [p.kept for p in other.phases]
    assert str(one) == str(other)


def test_values_of_cache():
    assert cache_options(False) is None and cache_options(None) is None
    assert cache_options(True) == ActivationCache()
    assert cache_options("disk") == ActivationCache(where="disk")
    options = ActivationCache("memory", dtype="float16")
    assert cache_options(options) is options
    with pytest.raises(PlanError, match="'auto', 'memory', 'disk', False, or a"):
        cache_options("ram")
    with pytest.raises(PlanError, match="where of a cache .* auto, memory, disk; got"):
        ActivationCache("ram")
    with pytest.raises(PlanError, match="dtype of a cache .* got 'int8'"):
        ActivationCache(dtype="int8")
    with pytest.raises(PlanError, match="views must be 0 or more; got -1"):
        ActivationCache(views=-1)
    for name in ("memory_limit", "disk_limit"):
        with pytest.raises(PlanError, match=f"{name} must be .* got -5"):
            ActivationCache(**{name: -5})


def test_where_things_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path))
    assert ActivationCache().folder == tmp_path / "activations"
    chosen = ActivationCache(directory=str(tmp_path / "mine"))
    assert chosen.folder == tmp_path / "mine"
    assert ActivationCache(directory="~/x").folder == pathlib.Path.home() / "x"
    assert ActivationCache().memory == machine_memory() // 4
    assert ActivationCache(memory_limit=5).memory == 5
    assert 10**8 < machine_memory() < 10**14


def test_the_plan_tells_when_activations_are_rounded(make_model):
    options = {"examples": 10**6, "memory_limit": 13 * 10**6, "epochs": 30}
    said = str(plan(make_model(), "head", **options))
    assert "12.0 MB in memory, rounded to float16" in said
    assert "float16" not in str(plan(make_model(), "head", where="memory"))
