"""The page as a person meets it: in Chromium, from disk, without network."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faultline.api.run import Run
from faultline.report import render

pytestmark = [pytest.mark.needs_browser, pytest.mark.slow]
NAMES = (
    "run-held",
    "run-broke",
    "run-not-effective",
    "run-not-measured",
    "run-error",
    "run-full",
    "run-long",
)
Read = Callable[[str], Run]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, recorded: Read) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    for name in NAMES:
        earlier = recorded("run-held") if name in ("run-full", "run-long") else None
        page = render.html(recorded(name), earlier)
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in NAMES}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = next(filter(None, map(shutil.which, BROWSERS)))
    with playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), executable_path=found, headless=True, args=QUIET
        )
        yield context
        context.close()


@pytest.fixture
def sheet(browser: Any) -> Iterator[Any]:
    page = browser.new_page()
    page.said = []
    page.asked = []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    yield page
    page.close()


@pytest.mark.parametrize("name", NAMES)
def test_it_opens_from_disk_quietly_and_fits_a_telephone(
    sheet: Any, pages: dict[str, Path], name: str
) -> None:
    url = pages[name].as_uri()
    for width in (400, 1180):
        sheet.set_viewport_size({"width": width, "height": 800})
        sheet.goto(url)
        assert sheet.evaluate("document.documentElement.scrollWidth") <= width
        cut = sheet.evaluate(
            "[...document.querySelectorAll('.tile dd, .badge, .ys span, h1, h2, .phase-names li')]"
            ".filter(e => { const r = e.getBoundingClientRect();"
            " return r.width && (r.left < 0 || r.right > innerWidth) }).map(e => e.textContent)"
        )
        assert cut == []
    assert sheet.said == []
    assert {asked for asked in sheet.asked if not asked.startswith(("data:", "blob:"))} == {url}
    assert sheet.locator("h1").count() == 1
    assert sheet.locator("h2").count() >= 6


def test_labels_of_an_axis_do_not_overlap(sheet: Any, pages: dict[str, Path]) -> None:
    overlaps = """() => [...document.querySelectorAll('.ys, .axis')].flatMap(box => {
      const all = [...box.querySelectorAll('span')]
        .filter(e => e.offsetWidth && getComputedStyle(e).visibility === 'visible')
        .map(e => e.getBoundingClientRect());
      return all.flatMap((a, i) => all.slice(i + 1).filter(b => a.left < b.right
        && b.left < a.right && a.top < b.bottom - 1 && b.top < a.bottom - 1)); }).length"""
    for path in pages.values():
        for width in (400, 1180):
            sheet.set_viewport_size({"width": width, "height": 800})
            sheet.goto(path.as_uri())
            assert sheet.evaluate(overlaps) == 0, (path.name, width)


def test_the_theme_follows_the_system_and_the_button(sheet: Any, pages: dict[str, Path]) -> None:
    paper = "getComputedStyle(document.querySelector('section')).backgroundColor"
    sheet.emulate_media(color_scheme="light")
    sheet.goto(pages["run-held"].as_uri())
    light = sheet.evaluate(paper)
    sheet.emulate_media(color_scheme="dark")
    dark = sheet.evaluate(paper)
    assert light != dark
    sheet.click("#theme")
    assert sheet.evaluate(paper) == light
    sheet.click("#theme")
    assert sheet.evaluate(paper) == dark
    sheet.emulate_media(media="print", color_scheme="dark")
    assert (
        sheet.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(27, 32, 39)"
    )


CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = text => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = c => { const [r, g, b] = c.map(v => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4 });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b };
  const under = e => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c[3] > 250) return c;
    }
    return [255, 255, 255] };
  const seen = [];
  for (const e of document.querySelectorAll('body *')) {
    if (e.closest('svg, script, style') || !e.getClientRects().length) continue;
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    const a = light(rgb(getComputedStyle(e).color)), b = light(under(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) seen.push([e.className || e.tagName, e.textContent.slice(0, 30), ratio]);
  }
  return seen }"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_that_wcag_aa_asks(
    sheet: Any, pages: dict[str, Path], scheme: str
) -> None:
    sheet.emulate_media(color_scheme=scheme)
    for path in pages.values():
        sheet.goto(path.as_uri())
        assert sheet.evaluate(CONTRAST) == []


def test_pointing_reads_all_curves_and_keys_do_as_well(sheet: Any, pages: dict[str, Path]) -> None:
    sheet.set_viewport_size({"width": 1180, "height": 900})
    sheet.goto(pages["run-broke"].as_uri())
    plot = sheet.locator("figure[data-panel=probe0] .plot:visible")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    sheet.mouse.move(box["x"] + box["width"] * 15 / 31, box["y"] + 40)
    assert sheet.inner_text(".now").startswith("at 15.0")
    assert sheet.inner_text("figure[data-panel=probe0] output").endswith(" ms")
    assert sheet.inner_text("figure[data-panel=probe2] output") in ("ok", "failed")
    sheet.focus("#timeline")
    sheet.keyboard.press("ArrowRight")
    assert sheet.inner_text(".now") != "at 15.00 s"
    sheet.keyboard.press("Escape")
    assert sheet.inner_text(".now") == ""


def test_dragging_zooms_and_the_buttons_zoom_back(sheet: Any, pages: dict[str, Path]) -> None:
    sheet.set_viewport_size({"width": 1180, "height": 900})
    sheet.goto(pages["run-held"].as_uri())
    plot = sheet.locator("figure[data-panel=latency0] .plot:visible")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    view = "document.querySelector('svg.curves').getAttribute('viewBox')"
    assert sheet.evaluate(view) == "0 0 10000 1000"
    sheet.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 40)
    sheet.mouse.down()
    sheet.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 40, steps=4)
    sheet.mouse.up()
    start, _, width, _ = (float(part) for part in sheet.evaluate(view).split())
    assert (start, width) == (pytest.approx(2500, abs=30), pytest.approx(2500, abs=60))
    assert sheet.locator(".axis").first.inner_text().split()[0] == "8"
    sheet.click("text=Whole run")
    assert sheet.evaluate(view) == "0 0 10000 1000"
    assert sheet.said == []


def test_a_curve_and_a_scale_can_be_switched(sheet: Any, pages: dict[str, Path]) -> None:
    sheet.goto(pages["run-held"].as_uri())
    figure = sheet.locator("figure[data-panel=latency0]")
    figure.locator(".series button").nth(1).click()
    hidden = "[...document.querySelectorAll('figure[data-panel=latency0] path.off')].length"
    assert sheet.evaluate(hidden) == 2, "in the linear and in the logarithmic drawing"
    other = figure.locator(".scales button[aria-pressed=false]")
    wanted = other.get_attribute("data-scale")
    other.click()
    assert figure.locator(".drawing:visible").get_attribute("data-scale") == wanted


def test_the_document_and_the_experiment_can_be_saved(
    sheet: Any, pages: dict[str, Path], tmp_path: Path, recorded: Read
) -> None:
    sheet.goto(pages["run-broke"].as_uri())
    with sheet.expect_download() as waiting:
        sheet.click("text=Save the run as JSON")
    waiting.value.save_as(tmp_path / "run.json")
    assert Run.model_validate_json((tmp_path / "run.json").read_text()) == recorded("run-broke")
    assert waiting.value.suggested_filename == "run.json"


def test_a_line_of_a_log_shows_its_moment_on_the_timeline(
    sheet: Any, pages: dict[str, Path]
) -> None:
    sheet.goto(pages["run-full"].as_uri())
    line = sheet.locator(".lines li[data-at]").nth(12)
    line.hover()
    assert sheet.inner_text(".now") == f"at {float(line.get_attribute('data-at')):.2f} s"
    assert sheet.inner_text("figure[data-panel=target0-0] output >> nth=0").endswith(" cores")
    assert sheet.said == []


def test_the_curves_of_a_target_can_be_folded(sheet: Any, pages: dict[str, Path]) -> None:
    sheet.goto(pages["run-full"].as_uri())
    shown = sheet.locator("details.part svg.curves:visible").count()
    sheet.click("summary:has-text('This host')")
    assert sheet.locator("details.part svg.curves:visible").count() > shown
    heads = sheet.locator("h2").all_inner_texts()
    assert heads[1:3] == ["Found, located, mended", "Compared with the run before"]


def test_without_javascript_everything_is_there_but_the_extras(
    browser: Any, pages: dict[str, Path], tmp_path: Path
) -> None:
    text = pages["run-broke"].read_text(encoding="utf-8")
    start, end = text.rindex("<script>"), text.rindex("</script>")
    path = tmp_path / "plain.html"
    path.write_text(text[:start] + text[end + len("</script>") :], encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    assert page.locator("svg.curves:visible").count() == 6
    assert page.locator(".needs-js:visible").count() == 0
    page.close()
