"""The page in a real browser, opened from disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gss_train.data import DATASETS, MODALITY_SUBSETS, subset_name
from gss_train.evaluation.folder import SegmentedSubject, read_segmented
from gss_train.report import write_report
from gss_train.report.figures.style import category_colours
from tests.gss_train.report.made_up import scores_of, settings_of, write_run

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or CHROMEDRIVER is None,
    reason="no browser: chromium and chromedriver are not both installed, the report was not tried in one",
)

RUNS = ("baseline", "GSS")
SCANS = ("FLAIR", "T1ce", "T1", "T2")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1400,1000"),
)
_SECONDS = 20


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        write_run(folder / "first", settings_of("baseline", 1), scores_of(0), ("a", "b")),
        # "b" was segmented by the first run alone.
        write_run(folder / "second", settings_of("gss", 2), scores_of(1), ("a",)),
    ]


@pytest.fixture(scope="module")
def subjects(runs: list[Path]) -> dict[str, list[SegmentedSubject]]:
    return {label: read_segmented(run / "evaluation") for label, run in zip(RUNS, runs, strict=True)}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    from selenium import webdriver  # noqa: PLC0415  (not wanted where there is no browser)

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=CHROMEDRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, runs)
    return path.as_uri()


class Viewer:
    """The slice viewer of an open page."""

    def __init__(self, browser) -> None:
        self.browser = browser

    def run(self, script: str, *arguments: object) -> object:
        return self.browser.execute_script(script, *arguments)

    def wait_for(self, subject: str, level: int, subset: str = subset_name((True,) * 4)) -> None:
        """Until that is drawn."""
        expected, limit = f"{subject} {level} {subset}", time.monotonic() + _SECONDS
        while self.drawn != expected:
            assert time.monotonic() < limit, f"{self.drawn!r} is drawn, not {expected!r}"
            time.sleep(0.01)

    @property
    def drawn(self) -> object:
        return self.run("return document.getElementById('viewer').dataset.drawn")

    def set(self, name: str, value: object, event: str = "input") -> None:
        self.run(
            'const e = document.querySelector(`#viewer :is(input, select)[name="${arguments[0]}"]`);'
            "if (e.type === 'checkbox') e.checked = arguments[1]; else e.value = arguments[1];"
            "e.dispatchEvent(new Event(arguments[2], {bubbles: true}))",
            name,
            value,
            event,
        )

    def pixels(self, panel: int) -> np.ndarray:
        """Red, green and blue `[x, y, 3]`."""
        width, depth, values = self.run(
            "const c = document.querySelectorAll('#viewer canvas')[arguments[0]];"
            "return [c.width, c.height, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]",
            panel,
        )
        return np.array(values).reshape(depth, width, 4)[..., :3].transpose(1, 0, 2)

    def captions(self) -> list[str]:
        return self.run("return [...document.querySelectorAll('#viewer figcaption')].map((e) => e.textContent)")


@pytest.fixture
def viewer(browser, address: str, subjects: dict[str, list[SegmentedSubject]]) -> Viewer:
    browser.get(address)
    opened = Viewer(browser)
    opened.wait_for("a", most_tumour(subjects["GSS"][0]))
    # Labels then have their own colours.
    opened.set("opacity", "100")
    return opened


def most_tumour(subject: SegmentedSubject) -> int:
    return int((subject.truth > 0).sum(axis=(0, 1)).argmax())


def is_coloured(pixels: np.ndarray, labels: np.ndarray) -> None:
    """Each label has its colour, and the background shows a scan, which is grey."""
    for category, colour in enumerate(category_colours(DATASETS["brats2018"])[1:], start=1):
        red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
        assert (pixels[labels == category] == (red, green, blue)).all()
    around = pixels[labels == 0]
    assert (around == around[:, :1]).all()


def eventually(check: Callable[[], None]) -> None:
    """What is drawn after a change that leaves the slice as it is."""
    limit = time.monotonic() + _SECONDS
    while True:
        try:
            check()
        except AssertionError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.01)
        else:
            return


def all_subset(subject: SegmentedSubject) -> np.ndarray:
    return subject.predictions[-1]


def test_the_page_loads_without_errors_and_asks_nobody(viewer: Viewer, address: str) -> None:
    import json  # noqa: PLC0415

    assert [entry for entry in viewer.browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    messages = [json.loads(entry["message"])["message"] for entry in viewer.browser.get_log("performance")]
    asked = {
        message["params"]["request"]["url"].partition(":")[0]
        for message in messages
        if message["method"] == "Network.requestWillBeSent" and message["params"]["documentURL"] == address
    }
    assert asked == {"file", "data"}


def test_truth_and_predictions_are_drawn_in_their_colours(
    viewer: Viewer, subjects: dict[str, list[SegmentedSubject]]
) -> None:
    level = most_tumour(subjects["GSS"][0])
    assert viewer.captions() == [*SCANS, "truth", *RUNS]
    eventually(lambda: is_coloured(viewer.pixels(4), subjects["GSS"][0].truth[:, :, level]))
    for panel, run in enumerate(RUNS, start=5):
        is_coloured(viewer.pixels(panel), all_subset(subjects[run][0])[:, :, level])
    # Scans are lossy; these are noise, of which the rough course remains.
    for panel in range(4):
        shown, scan = viewer.pixels(panel)[..., 0], subjects["GSS"][0].image[panel, :, :, level]
        assert np.corrcoef(shown.ravel(), scan.ravel())[0, 1] > 0.5


def test_the_slider_changes_the_slice(viewer: Viewer, subjects: dict[str, list[SegmentedSubject]]) -> None:
    for level in (3, 6):
        viewer.set("slice", str(level))
        viewer.wait_for("a", level)
        is_coloured(viewer.pixels(4), subjects["GSS"][0].truth[:, :, level])
        assert viewer.run("return document.querySelector('#viewer output').textContent") == f"{level + 1} of 10"


def test_keys_and_the_wheel_go_through_the_slices(viewer: Viewer) -> None:
    from selenium.webdriver.common.action_chains import ActionChains  # noqa: PLC0415
    from selenium.webdriver.common.by import By  # noqa: PLC0415
    from selenium.webdriver.common.keys import Keys  # noqa: PLC0415

    panels = viewer.browser.find_element(By.CSS_SELECTOR, "#viewer .panels")
    for key, level in ((Keys.HOME, 0), (Keys.ARROW_UP, 1), (Keys.END, 9), (Keys.ARROW_LEFT, 8), (Keys.PAGE_DOWN, 0)):
        panels.send_keys(key)
        viewer.wait_for("a", level)
    viewer.run("arguments[0].scrollIntoView()", panels)
    ActionChains(viewer.browser).scroll_from_origin(_origin(panels), 0, 100).perform()
    viewer.wait_for("a", 1)
    slider = viewer.browser.find_element(By.CSS_SELECTOR, "#viewer input[name=slice]")
    slider.send_keys(Keys.ARROW_RIGHT)
    viewer.wait_for("a", 2)


def _origin(element):
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin  # noqa: PLC0415

    return ScrollOrigin.from_element(element)


def test_toggles_hide_runs_and_categories(viewer: Viewer, subjects: dict[str, list[SegmentedSubject]]) -> None:
    truth = subjects["GSS"][0].truth[:, :, most_tumour(subjects["GSS"][0])]
    viewer.set("category ED", False, "change")
    eventually(lambda: is_coloured_without(viewer.pixels(4), truth, 2))
    viewer.set("run truth", False, "change")
    eventually(lambda: is_coloured(viewer.pixels(4), np.zeros_like(truth)))
    viewer.set("run truth", True, "change")
    viewer.set("category ED", True, "change")
    eventually(lambda: is_coloured(viewer.pixels(4), truth))


def is_coloured_without(pixels: np.ndarray, labels: np.ndarray, hidden: int) -> None:
    is_coloured(pixels, np.where(labels == hidden, 0, labels))


def test_the_outline_of_the_truth_is_drawn_on_the_scans(
    viewer: Viewer, subjects: dict[str, list[SegmentedSubject]]
) -> None:
    tumour = subjects["GSS"][0].truth[:, :, most_tumour(subjects["GSS"][0])] > 0
    padded = np.pad(tumour, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    before = viewer.pixels(0)
    viewer.set("outline", True, "change")
    eventually(lambda: np.testing.assert_array_equal(viewer.pixels(0)[tumour & ~inner], 255))
    after = viewer.pixels(0)
    np.testing.assert_array_equal(after[~tumour | inner], before[~tumour | inner])


def test_the_subset_chosen_is_that_of_the_prediction(
    viewer: Viewer, subjects: dict[str, list[SegmentedSubject]]
) -> None:
    level = most_tumour(subjects["GSS"][0])
    options = viewer.run("return [...document.querySelector('#viewer [name=subset]').options].map((o) => o.value)")
    assert options == ["T2", "T1ce", "T1", "FLAIR", "FLAIR+T1ce+T1+T2"]
    viewer.set("subset", "T1ce", "change")
    viewer.wait_for("a", level, "T1ce")
    place = [subset_name(subset) for subset in MODALITY_SUBSETS].index("T1ce")
    is_coloured(viewer.pixels(6), subjects["GSS"][0].predictions[place][:, :, level])


def test_a_subject_that_lacks_a_scan_and_a_run_says_so(
    viewer: Viewer, subjects: dict[str, list[SegmentedSubject]]
) -> None:
    second = subjects["baseline"][1]
    viewer.set("subject", "b", "change")
    # Without T2 there is no prediction from all four.
    viewer.wait_for("b", most_tumour(second), "FLAIR")
    assert viewer.captions() == [
        "FLAIR",
        "T1ce",
        "T1",
        "T2: no such scan",
        "truth",
        "baseline",
        "GSS: no prediction from FLAIR",
    ]
    is_coloured(viewer.pixels(4), second.truth[:, :, most_tumour(second)])


def test_the_labels_lie_on_the_scan_that_is_chosen(viewer: Viewer) -> None:
    viewer.set("opacity", "0")
    for number, name in enumerate(SCANS):
        viewer.set("scan", name, "change")
        expected = viewer.pixels(number)
        eventually(lambda expected=expected: np.testing.assert_array_equal(viewer.pixels(4), expected))


def test_details_open_by_keyboard(viewer: Viewer) -> None:
    from selenium.webdriver.common.by import By  # noqa: PLC0415
    from selenium.webdriver.common.keys import Keys  # noqa: PLC0415

    closed = viewer.browser.find_element(By.CSS_SELECTOR, "details:not([open]) > summary")
    closed.send_keys(Keys.ENTER)
    assert viewer.run("return arguments[0].parentElement.open", closed)
