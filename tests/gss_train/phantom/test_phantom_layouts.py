"""The phantom's files, read by a reader other than the package that wrote them."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from gss_train.data import DATASETS, check_dataset, find_subjects
from gss_train.phantom import generate_phantoms

SIZE = (40, 48, 40)
SPACING = 4.8
LABELS = {"brats2015": {0, 1, 2, 3, 4}, "brats2018": {0, 1, 2, 4}, "brats2020": {0, 1, 2, 4}}


def read_metaimage(path: Path) -> tuple[dict[str, str], np.ndarray]:
    """Read a compressed `.mha` by its own text header, without a library: header fields and volume (x, y, z)."""
    content = path.read_bytes()
    text, data = re.split(rb"ElementDataFile = LOCAL\r?\n", content, maxsplit=1)
    header = dict(line.split(" = ", 1) for line in text.decode("ascii").splitlines())
    dtype = {"MET_SHORT": "<i2", "MET_UCHAR": "u1"}[header["ElementType"]]
    if header["CompressedData"] == "True":
        data = zlib.decompress(data)
    shape = tuple(int(n) for n in header["DimSize"].split())
    return header, np.frombuffer(data, dtype).reshape(shape, order="F")


def brats2015_volumes(root: Path) -> list[tuple[list[np.ndarray], np.ndarray]]:
    subjects = []
    for folder in sorted(path for grade in ("HGG", "LGG") for path in (root / grade).iterdir()):
        files = [next(folder.glob(f"VSD.Brain.XX.O.MR_{kind}.*/*.mha")) for kind in ("Flair", "T1c", "T1", "T2")]
        label = next(folder.glob("VSD.Brain*.OT.*/*.mha"))
        subjects.append(([read_metaimage(file)[1] for file in files], read_metaimage(label)[1]))
    return subjects


def nifti_volumes(root: Path) -> list[tuple[list[np.ndarray], np.ndarray]]:
    subjects = []
    for label in sorted(root.rglob("*_seg.nii.gz")):
        files = [Path(str(label).replace("_seg", f"_{kind}")) for kind in ("flair", "t1ce", "t1", "t2", "seg")]
        *images, segmentation = [SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(f))).transpose() for f in files]
        subjects.append((images, segmentation))
    return subjects


def test_brats2015_names_follow_the_distribution(phantoms: dict[str, Path]) -> None:
    root = phantoms["brats2015"]
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.mha"))
    assert len(files) == 4 * 5
    pattern = re.compile(
        r"(HGG|LGG)/(brats_2013_pat\d{4}_1|brats_tcia_pat\d{3}_1)/"
        r"(VSD\.Brain\.XX\.O\.MR_(?:Flair|T1|T1c|T2)\.\d+|VSD\.Brain(?:_3more)?\.XX\.XX\.OT\.\d+)/\3\.mha"
    )
    assert all(pattern.fullmatch(file) for file in files), files
    stems = [Path(file).stem for file in files]
    assert len(set(stems)) == len(stems)
    assert len(list((root / "LGG").iterdir())) == 1


@pytest.mark.parametrize(
    ("dataset", "pattern"),
    [
        ("brats2018", r"(HGG|LGG)/(Brats18_PHANTOM_\d{3}_1)/\2_(flair|t1|t1ce|t2|seg)\.nii\.gz"),
        ("brats2020", r"()(BraTS20_Training_\d{3})/\2_(flair|t1|t1ce|t2|seg)\.nii\.gz"),
    ],
)
def test_nifti_names_follow_the_distribution(phantoms: dict[str, Path], dataset: str, pattern: str) -> None:
    root = phantoms[dataset]
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.nii*"))
    assert len(files) == 4 * 5
    assert all(re.fullmatch(pattern, file) for file in files), files


def test_metaimages_share_one_grid_of_brats_orientation(phantoms: dict[str, Path]) -> None:
    for path in phantoms["brats2015"].rglob("*.mha"):
        header, _ = read_metaimage(path)
        assert header["DimSize"] == "40 48 40"
        assert [float(v) for v in header["ElementSpacing"].split()] == [SPACING] * 3
        assert [float(v) for v in header["Offset"].split()] == [0, -239, 0]
        assert [float(v) for v in header["TransformMatrix"].split()] == np.eye(3).ravel().tolist()
        assert header["ElementType"] == ("MET_UCHAR" if ".OT." in path.name else "MET_SHORT")


@pytest.mark.parametrize("dataset", ["brats2018", "brats2020"])
def test_niftis_share_one_grid_of_brats_orientation(phantoms: dict[str, Path], dataset: str) -> None:
    for path in phantoms[dataset].rglob("*.nii.gz"):
        image = SimpleITK.ReadImage(str(path))
        assert image.GetSize() == SIZE
        assert image.GetSpacing() == pytest.approx([SPACING] * 3)
        assert image.GetOrigin() == pytest.approx([0, -239, 0])
        assert image.GetDirection() == pytest.approx(np.eye(3).ravel())
        assert nibabel.aff2axcodes(nibabel.load(path).affine) == ("L", "P", "S")


@pytest.mark.parametrize("dataset", ["brats2015", "brats2018", "brats2020"])
def test_volumes_are_skull_stripped_with_a_tumour_inside(phantoms: dict[str, Path], dataset: str) -> None:
    read = brats2015_volumes if dataset == "brats2015" else nifti_volumes
    subjects = read(phantoms[dataset])
    assert len(subjects) == 4
    for images, label in subjects:
        brain = images[0] > 0
        for image in images:
            assert image.shape == SIZE
            assert image.dtype == np.int16
            assert np.array_equal(image > 0, brain)
            assert image.min() == 0
            assert 150 < image[brain].mean() < 3000
        assert not label[~brain].any()
        assert 1000 < brain.sum() * SPACING**3 / 1000 < 2000
        assert 15 < (label > 0).sum() * SPACING**3 / 1000 < 155
    assert {int(v) for _, label in subjects for v in np.unique(label)} == LABELS[dataset]


def test_top_and_front_of_the_head_are_where_brats_has_them(phantoms: dict[str, Path]) -> None:
    """Wide above, narrow at the brain stem, and lowest at the back, where the cerebellum is."""
    for images, _ in brats2015_volumes(phantoms["brats2015"]):
        brain = images[0] > 0
        z = np.flatnonzero(brain.any(axis=(0, 1)))
        area = brain.sum(axis=(0, 1))
        assert area[z[0] + 1] < 0.6 * area[z[-1] - 6]
        lowest = slice(z[0], z[0] + 6)
        y = np.flatnonzero(brain.any(axis=(0, 2)))
        middle = (y[0] + y[-1]) // 2
        assert brain[:, middle:, lowest].sum() > 2 * brain[:, :middle, lowest].sum()


@pytest.mark.parametrize("dataset", ["brats2015", "brats2018", "brats2020"])
def test_the_verification_finds_no_faults(phantoms: dict[str, Path], dataset: str) -> None:
    subjects = find_subjects(phantoms[dataset], DATASETS[dataset])
    assert len(subjects) == 4
    assert check_dataset(subjects, DATASETS[dataset], workers=1) == []


def test_2018_joins_the_categories_of_2015(phantoms: dict[str, Path]) -> None:
    joined = np.array([0, 1, 2, 1, 4], dtype=np.uint8)
    labels_2015 = [label for _, label in brats2015_volumes(phantoms["brats2015"])]
    labels_2018 = [label for _, label in nifti_volumes(phantoms["brats2018"])]
    histograms = [sorted(np.bincount(v.ravel(), minlength=5).tolist() for v in labels_2018)]
    histograms.append(sorted(np.bincount(joined[v].ravel(), minlength=5).tolist() for v in labels_2015))
    assert histograms[0] == histograms[1]


def test_uncompressed_niftis_hold_the_same_bytes(phantoms: dict[str, Path], tmp_path: Path) -> None:
    generate_phantoms("brats2020", tmp_path / "raw", 1, seed=3, size=SIZE, workers=1, compressed=False)
    files = list((tmp_path / "raw").rglob("*.nii*"))
    assert len(files) == 5
    for file in files:
        twin = phantoms["brats2020"] / file.parent.name / f"{file.name}.gz"
        assert gzip.decompress(twin.read_bytes()) == file.read_bytes()


def test_brain_is_in_one_piece(phantoms: dict[str, Path]) -> None:
    for images, _ in brats2015_volumes(phantoms["brats2015"]):
        assert ndimage.label(images[0] > 0)[1] == 1
