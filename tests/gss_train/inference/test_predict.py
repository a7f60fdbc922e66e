"""`python -m gss_train.predict` from raw scans to files, with tiny networks and heads."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from nibabel import orientations

from gss_train.data import DATASETS, Subject, restore_orientation
from gss_train.inference import outputs
from gss_train.inference.segmentation import Member, mean_probabilities
from gss_train.inference.windows import SlidingWindow
from gss_train.predict import main
from gss_train.runs import export_network, load_trained
from tests.gss_train.data.prepared_files import prepare_subject
from tests.gss_train.inference.tiny import CROP, export_tiny, flags, rewrite, scan_files, trained_tiny, voxels_of

Heads = dict[str, list[Path]]
Models = dict[str, Path]


def predict(model: Path, files: dict[str, Path], output: Path, *more: str) -> int:
    return main(["--model", str(model), *flags(files), "--output", str(output), *more])


def log_of(path: Path) -> dict:
    return json.loads(path.with_name(path.name.partition(".")[0] + ".json").read_text())


def read(path: Path) -> np.ndarray:
    """Voxels in the order (x,y,z), by a library that reads both formats."""
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path)).transpose(2, 1, 0)


@pytest.fixture(scope="module")
def predicted(heads: Heads, models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The label map of the first head, with probabilities."""
    output = tmp_path_factory.mktemp("predicted") / "map.nii.gz"
    files = scan_files(heads["brats2020"][0])
    assert predict(models["brats2020"], files, output, "--probabilities") == 0
    return output


@pytest.mark.parametrize(("name", "ending"), [("brats2020", ".nii.gz"), ("brats2015", ".mha")])
def test_is_the_segmentation_of_the_prepared_subject(
    heads: Heads, models: Models, tmp_path: Path, name: str, ending: str
) -> None:
    folder = heads[name][0]
    files = scan_files(folder, name)
    output = tmp_path / f"map{ending}"
    assert predict(models[name], files, output) == 0
    trained = load_trained(models[name], torch.device("cpu"))
    subject = Subject("prepared", None, files, None)
    prepared = prepare_subject(subject, trained.dataset, tmp_path / "cache", (128, 128, 128))
    seen = prepared.padded_to(CROP)
    image = torch.from_numpy(seen.crop((0, 0, 0), seen.shape)[0].astype(np.float32))
    window = SlidingWindow(CROP)
    categories = mean_probabilities([Member(trained.network, window)], image, prepared.available).argmax(0).numpy()
    metadata = prepared.metadata
    expected = np.zeros(metadata.original_shape, np.uint8)
    inside = tuple(slice(b, n - a) for (b, a), n in zip(seen.padding, seen.shape, strict=True))
    expected[tuple(slice(*sides) for sides in metadata.box)] = categories[inside]
    expected = np.array(trained.dataset.label_values, np.uint8)[restore_orientation(expected, metadata.orientation)]
    found = read(output)
    assert len(np.unique(found)) > 2
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha"])
def test_lies_where_the_scans_lie_in_every_program(heads: Heads, models: Models, tmp_path: Path, ending: str) -> None:
    tilt = np.deg2rad(7)
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag((8, -8, 8))
    affine[:3, 3] = -100.3, 96.7, -80.1
    files = {}
    for modality, path in scan_files(heads["brats2020"][0]).items():
        files[modality] = rewrite(path, tmp_path / path.name, affine=affine)
    output = tmp_path / f"map{ending}"
    assert predict(models["brats2020"], files, output, "--probabilities") == 0
    scan, label_map = SimpleITK.ReadImage(files["FLAIR"]), SimpleITK.ReadImage(output)
    whole = SimpleITK.ReadImage(output.with_name(f"map_probabilities{ending}"))
    assert label_map.GetPixelID() == SimpleITK.sitkUInt8
    for written in (label_map, whole[..., 0]):
        assert written.GetSize() == scan.GetSize()
        for what in ("GetOrigin", "GetDirection", "GetSpacing"):
            np.testing.assert_allclose(getattr(written, what)(), getattr(scan, what)(), atol=1e-4)
    if ending != ".mha":
        image = nib.load(output)
        np.testing.assert_allclose(image.affine, nib.load(files["FLAIR"]).affine, atol=1e-5)
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-5)
        assert image.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize("axes", ["RAS", "PSR", "AIL", "IRP"])
def test_other_orientations_give_the_same_label_map(
    predicted: Path, heads: Heads, models: Models, tmp_path: Path, axes: str
) -> None:
    files = {}
    for modality, path in scan_files(heads["brats2020"][0]).items():
        # One scan is stored as it was: files of a subject need not agree.
        image = nib.load(path)
        goal = orientations.axcodes2ornt("LPS" if modality == "T1" else axes)
        moves = orientations.ornt_transform(orientations.io_orientation(image.affine), goal)
        files[modality] = tmp_path / path.name
        nib.save(image.as_reoriented(moves), files[modality])
    output = tmp_path / "map.nii.gz"
    assert predict(models["brats2020"], files, output) == 0
    found, expected = nib.load(output), nib.load(predicted)
    assert "".join(nib.aff2axcodes(found.affine)) == axes
    np.testing.assert_array_equal(found.affine, nib.load(files["FLAIR"]).affine)
    back = orientations.ornt_transform(
        orientations.io_orientation(found.affine), orientations.io_orientation(expected.affine)
    )
    np.testing.assert_array_equal(found.as_reoriented(back).dataobj, expected.dataobj)


def test_log_says_what_the_values_mean_and_what_was_missing(
    heads: Heads, models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = scan_files(heads["brats2020"][0])
    del files["T1"], files["FLAIR"]
    output = tmp_path / "new" / "map.nii.gz"
    assert predict(models["brats2020"], files, output) == 0
    log = log_of(output)
    assert log["labels"] == {"0": "BG", "1": "NCR/NET", "2": "ED", "4": "ET"}
    assert log["regions"] == {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}
    assert log["missing_modalities"] == ["FLAIR", "T1"]
    assert log["scans"] == {modality: str(path) for modality, path in files.items()}
    assert log["warnings"] == []
    assert log["segmented_grid"]["resampled"] is False
    counts = np.count_nonzero(voxels_of(output) == 4)
    assert log["region_millilitres"]["ET"] == pytest.approx(counts * 0.8**3, abs=1e-3)
    said = capsys.readouterr()
    assert "FLAIR, T1 missing" in said.out
    assert said.err == ""


def test_probabilities_are_those_of_the_label_map(predicted: Path) -> None:
    probabilities = voxels_of(predicted.with_name("map_probabilities.nii.gz"))
    assert probabilities.shape == (24, 24, 24, 4)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    values = np.array(DATASETS["brats2020"].label_values)
    np.testing.assert_array_equal(values[probabilities.argmax(-1)], voxels_of(predicted))


def test_ensemble_is_the_mean_of_its_members(predicted: Path, heads: Heads, models: Models, tmp_path: Path) -> None:
    files = flags(scan_files(heads["brats2020"][0]))
    both, other = tmp_path / "both.nii.gz", tmp_path / "other.nii.gz"
    first, second = str(models["brats2020"]), str(models["other"])
    assert main(["--model", first, second, *files, "--output", str(both), "--probabilities"]) == 0
    assert main(["--model", second, *files, "--output", str(other), "--probabilities"]) == 0
    of_both, of_other, of_first = (
        voxels_of(path.with_name(f"{path.name.partition('.')[0]}_probabilities.nii.gz"))
        for path in (both, other, predicted)
    )
    np.testing.assert_allclose(of_both, (of_first + of_other) / 2, atol=1e-5)
    assert [member["path"] for member in log_of(both)["models"]] == [first, second]


def test_exported_network_predicts_the_same(
    predicted: Path, heads: Heads, models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = tmp_path / "alone.pt"
    assert main(["--model", str(models["brats2020"]), "--export", str(alone)]) == 0
    assert predict(alone, scan_files(heads["brats2020"][0]), tmp_path / "map.nii.gz") == 0
    np.testing.assert_array_equal(voxels_of(tmp_path / "map.nii.gz"), voxels_of(predicted))
    assert main(["--model", str(models["other"]), "--export", str(alone)]) == 2
    assert f"error: {alone}: is there already" in capsys.readouterr().err


def damaged(path: Path, target: Path) -> Path:
    target.write_bytes(path.read_bytes()[:-200])
    return target


def with_nan(path: Path, target: Path) -> Path:
    voxels = voxels_of(path).astype(np.float32)
    voxels[12, 12, 12] = np.nan
    return rewrite(path, target, voxels)


def on_another_grid(path: Path, target: Path) -> Path:
    return rewrite(path, target, voxels_of(path)[:-1])


def without_background(path: Path, target: Path) -> Path:
    return rewrite(path, target, voxels_of(path) + 7)


def empty(path: Path, target: Path) -> Path:
    return rewrite(path, target, np.zeros_like(voxels_of(path)))


def of_text(path: Path, target: Path) -> Path:
    target.write_text("not a scan")
    return target


@pytest.mark.parametrize("spoil", [damaged, with_nan, on_another_grid, without_background, empty, of_text])
def test_bad_scan_is_named_in_one_line_and_nothing_is_written(
    heads: Heads, models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil
) -> None:
    files = scan_files(heads["brats2020"][0])
    bad = tmp_path / "bad_t1.nii.gz"
    files["T1"] = spoil(files["T1"], bad)
    output = tmp_path / "out" / "map.nii.gz"
    assert predict(models["brats2020"], files, output, "--probabilities") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {bad}: ")
    assert said.count("\n") == 1
    assert not output.parent.exists()


def test_missing_file_is_named(
    heads: Heads, models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = scan_files(heads["brats2020"][0]) | {"T2": tmp_path / "none.nii.gz"}
    assert predict(models["brats2020"], files, tmp_path / "map.nii.gz") == 2
    assert f"error: {tmp_path / 'none.nii.gz'}: cannot be read" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# Prints the exit status, and whether torch was imported, of each call.
CALLS = """
import json, sys
from gss_train.predict import main
for arguments in json.loads(sys.argv[1]):
    try:
        status = main(arguments)
    except SystemExit as stopped:
        status = stopped.code
    print(status, "torch" in sys.modules)
"""


def test_what_is_wrong_with_files_and_flags_is_told_before_torch_is_imported(
    heads: Heads, models: Models, tmp_path: Path
) -> None:
    files, model, none = scan_files(heads["brats2020"][0]), str(models["brats2020"]), str(tmp_path / "none.nii.gz")
    taken = tmp_path / "taken.nii.gz"
    taken.touch()
    calls = [
        ["--model", model, "--t2", none, "--output", str(tmp_path / "map.nii.gz")],
        ["--model", model, *flags(files), "--output", str(tmp_path / "map.png")],
        ["--model", model, *flags(files), "--output", str(taken)],
        ["--model", model, *flags(files), "--export", str(tmp_path / "net.pt")],
        ["--model", none, *flags(files), "--output", str(tmp_path / "map.nii.gz")],
        ["--model", model, "--export", str(taken)],
        ["--model", model, "--folder", str(tmp_path), "--output", str(tmp_path / "out")],
    ]
    done = subprocess.run([sys.executable, "-c", CALLS, json.dumps(calls)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["2 False"] * len(calls)
    assert f"error: --model: {none} is missing" in done.stderr


def test_doubtful_scans_are_warned_of_loudly(
    heads: Heads, models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = scan_files(heads["brats2020"][0])
    voxels = voxels_of(files["T2"])
    normalised = np.where(voxels, (voxels - np.median(voxels[voxels != 0]) - 0.5) / 100, 0).astype(np.float32)
    files["T2"] = rewrite(files["T2"], tmp_path / "normalised.nii.gz", normalised)
    output = tmp_path / "map.nii.gz"
    assert predict(models["brats2020"], files, output) == 0
    said = capsys.readouterr().err
    assert said.startswith(f"WARNING: {files['T2']}: T2 is below 0 in ")
    assert [f"WARNING: {warning}" for warning in log_of(output)["warnings"]] == said.splitlines()


def test_replaces_files_only_when_asked(
    heads: Heads, models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = scan_files(heads["brats2020"][0])
    output, log = tmp_path / "map.nii.gz", tmp_path / "map.json"
    log.write_text("mine")
    assert predict(models["brats2020"], files, output) == 2
    assert f"error: {log}: is there already; --overwrite" in capsys.readouterr().err
    assert log.read_text() == "mine"
    assert not output.exists()
    assert predict(models["brats2020"], files, output, "--overwrite") == 0
    assert log_of(output)["subject"] == "map"


def test_never_replaces_a_scan(
    heads: Heads, models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = tmp_path / "flair.nii.gz"
    shutil.copy(scan_files(heads["brats2020"][0])["FLAIR"], scan)
    before = scan.read_bytes()
    assert predict(models["brats2020"], {"FLAIR": scan}, scan, "--overwrite") == 2
    assert f"error: {scan}: is one of the scans" in capsys.readouterr().err
    assert scan.read_bytes() == before


def test_full_disk_leaves_what_was_there(
    heads: Heads, models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    files = scan_files(heads["brats2020"][0])
    output = tmp_path / "map.nii.gz"
    output.write_text("mine")
    write = outputs.write_volume

    def fail_at_probabilities(file, ending, voxels, affine) -> None:
        if voxels.ndim == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, ending, voxels, affine)

    monkeypatch.setattr(outputs, "write_volume", fail_at_probabilities)
    assert predict(models["brats2020"], files, output, "--probabilities", "--overwrite") == 2
    assert "cannot write map_probabilities.nii.gz (No space left on device)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["map.nii.gz"]
    assert output.read_text() == "mine"


@pytest.fixture
def raw_folder(heads: Heads, tmp_path: Path) -> Path:
    """Three subjects: the last is a copy of the first, has no label and is damaged."""
    root = tmp_path / "raw"
    for folder in heads["brats2020"]:
        shutil.copytree(folder, root / folder.name)
    first, bad = root / "BraTS20_Training_001", root / "BraTS20_Training_003"
    bad.mkdir()
    for path in scan_files(first).values():
        shutil.copy(path, bad / path.name.replace("_001", "_003"))
    (bad / "BraTS20_Training_003_t2.nii.gz").write_bytes(b"nothing")
    return root


def test_folder_does_what_can_be_done(
    predicted: Path, raw_folder: Path, models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    command = ["--model", str(models["brats2020"]), "--folder", str(raw_folder), "--output", str(output)]
    assert main(command) == 2
    assert sorted(path.name for path in output.iterdir()) == [
        f"BraTS20_Training_00{number}{ending}" for number in (1, 2) for ending in (".json", ".nii.gz")
    ]
    np.testing.assert_array_equal(voxels_of(output / "BraTS20_Training_001.nii.gz"), voxels_of(predicted))
    said = capsys.readouterr()
    bad = raw_folder / "BraTS20_Training_003" / "BraTS20_Training_003_t2.nii.gz"
    assert said.err.startswith(f"error: BraTS20_Training_003 left out: {bad}: cannot be read")
    assert said.err.endswith("error: 1 subject not predicted: BraTS20_Training_003\n")
    assert "Predicted 2 of 3 subjects" in said.out
    assert main(command) == 2
    assert "BraTS20_Training_001.nii.gz: is there already" in capsys.readouterr().err


def test_folder_of_metaimages(heads: Heads, models: Models, tmp_path: Path) -> None:
    root = heads["brats2015"][0].parent.parent
    command = ["--model", str(models["brats2015"]), "--folder", str(root), "--output", str(tmp_path)]
    assert main(command) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "HGG_brats_2013_pat0001_1.mha",
        "HGG_brats_2013_pat0001_1.json",
    }


def test_says_that_a_network_was_trained_on_the_subject(
    heads: Heads, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = heads["brats2020"][1]
    model = export_tiny(tmp_path / "model.pt", "brats2020", 0, {folder.name})
    output = tmp_path / f"{folder.name}.nii.gz"
    assert predict(model, scan_files(folder), output) == 0
    assert f"trained on this subject: {model}" in capsys.readouterr().out
    assert len(log_of(output)["notes"]) == 1


def test_networks_of_different_voxel_sizes_need_one_stated(
    heads: Heads, models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = tmp_path / "published.pt"
    export_network(trained_tiny(DATASETS["brats2020"]), published)
    output = tmp_path / "map.nii.gz"
    command = ["--model", str(models["brats2020"]), str(published), *flags(scan_files(heads["brats2020"][0]))]
    assert main([*command, "--output", str(output)]) == 2
    assert f"error: --model: {published} was trained on voxels of 1 x 1 x 1 mm, should be 8" in capsys.readouterr().err
    assert main([*command, "--output", str(output), "--spacing", "8"]) == 0
    assert log_of(output)["notes"] == []


def test_networks_of_different_categories_do_not_predict_together(
    heads: Heads, models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = [str(models["brats2020"]), str(models["brats2015"])]
    files = flags(scan_files(heads["brats2020"][0]))
    assert main(["--model", *members, *files, "--output", str(tmp_path / "map.nii.gz")]) == 2
    assert f"error: --model: {members[1]} has the categories" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--flair", "f.nii"],
        ["--flair", "f.nii", "--folder", "raw", "--output", "out"],
        ["--flair", "f.nii", "--output", "map.nii", "--spacing", "0"],
        ["--export", "net.pt", "--output", "map.nii"],
    ],
)
def test_contradictory_flags_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--model", "run", *arguments])
    assert stopped.value.code == 2


def test_name_without_a_known_format_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(tmp_path / "run", {"T2": tmp_path / "t2.nii"}, tmp_path / "map.png") == 2
    assert "need a name that ends with .nii.gz, .nii, .mha" in capsys.readouterr().err


def test_scans_of_another_voxel_size_are_resampled_and_announced(
    predicted: Path, heads: Heads, models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {}
    for modality, path in scan_files(heads["brats2020"][0]).items():
        fine = np.repeat(voxels_of(path), 3, axis=2)
        affine = nib.load(path).affine @ np.diag((1, 1, 1 / 3, 1))
        affine[:3, 3] -= affine[:3, 2]
        files[modality] = rewrite(path, tmp_path / path.name, fine, affine)
    output = tmp_path / "map.nii.gz"
    assert predict(models["brats2020"], files, output, "--probabilities") == 0
    assert "scans of 8 x 8 x 2.667 mm, resampled to 8 x 8 x 8 mm" in capsys.readouterr().out
    log = log_of(output)
    assert log["segmented_grid"] | {"box": None} == {
        "orientation": "LPS",
        "spacing_mm": [8.0, 8.0, 8.0],
        "resampled": True,
        "box": None,
    }
    label_map, probabilities = voxels_of(output), voxels_of(tmp_path / "map_probabilities.nii.gz")
    assert label_map.shape == (24, 24, 72)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    values = np.array(DATASETS["brats2020"].label_values)
    np.testing.assert_array_equal(values[probabilities.argmax(-1)], label_map)
    # The smoothing blurs what three equal slices say; a misplaced map would agree by chance alone.
    same = label_map[:, :, 1::3] == voxels_of(predicted)
    assert same[voxels_of(predicted) > 0].mean() > 0.8
