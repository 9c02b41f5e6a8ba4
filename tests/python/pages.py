# SPDX-License-Identifier: MIT
"""Pages of kiln in a headless Chromium.

pages.py make FOLDER STEPS      a run folder of so many steps, as kiln train would write it
pages.py check PAGE [PREFIX]    a report: what it says, keys, zoom, cursor, escapes, contrast, width;
                                with PREFIX also pictures, as PREFIX-desktop-light.png

Exit status 77: this Python lacks a package, or there is no Chromium.
"""
import io
import json
import math
import os
import random
import re
import shutil
import sys
import time

SHAPES = [("desktop", 1280, 900), ("phone", 390, 844)]
MOST_BYTES = 60_000  # of a picture in the docs


# ---- a run that nobody trained -------------------------------------------------------------------

def make(folder, steps):
    random.seed(1)
    os.makedirs(folder, exist_ok=True)
    with open(folder + "/metrics.jsonl", "w") as file:
        for step in range(1, steps + 1):
            wave = random.gauss(0, 1)
            ms = 105 + 4 * wave
            stall = 3.0 if step % 7 == 0 else 0.0
            line = {
                "step": step, "loss": 1.2 + 6 * math.exp(-step * 40 / steps) + 0.06 * wave,
                "grad_norm": 0.4 + 3 * math.exp(-step * 60 / steps) + abs(0.1 * wave),
                "lr": 3e-4 * min(1, step * 50 / steps), "tokens": 2048 * step, "staleness": 0,
                "ms": ms, "ms_per_micro_batch": ms / 4, "tokens_per_s": 2048e3 / ms,
                "tflops": 0.2, "utilization": 0.4, "compile_ms": 3 * stall, "stall_ms": stall,
                "overlap_ms": 2 * stall, "device_ms": 70.0, "host_ms": ms - 80 - stall,
                "io_ms": 0.0, "dw_wait_ms": 0.0, "update_ms": 10.0, "restart_ms": 0.0,
                "compiles": 12, "layer_forwards": 48, "peak_bytes": 412345678 + step,
                "restarts": 5 * step // steps}
            if step % max(steps // 20, 1) == 0:
                line["val_loss"] = line["loss"] + 0.1
            if step == steps // 2:
                line["loss"] = line["grad_norm"] = None
                line["skipped"] = True
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
    with open(folder + "/samples.jsonl", "w") as file:
        for step in range(steps // 10, steps + 1, max(steps // 10, 1)):
            text = f"</script><script>window.broken=1</script><b id=bold>Step</b> {step} & é ✓"
            file.write(json.dumps({"step": step, "text": text}) + "\n")
    incident = folder + f"/incidents/step-{steps // 2}"
    os.makedirs(incident, exist_ok=True)
    with open(incident + "/incident.json", "w") as file:
        json.dump({"step": steps // 2, "why": "loss is not finite", "action": "skipped",
                   "loss": None, "grad_norm": None, "z": None, "mean": 1.3, "deviation": 0.1,
                   "tensors": [{"name": "<img src=x>", "weights": {"not_finite": 0},
                                "gradient": {"not_finite": 3}}]}, file)


# ---- a report in a browser -----------------------------------------------------------------------

def need(condition, what):
    if not condition:
        sys.exit("FAILED: " + what)


# Every text that can be seen stands out from what is behind it (WCAG 2, AA: 4.5, large ones 3).
CONTRAST = """() => {
  const parse = (c) => { const m = c.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const c = parse(getComputedStyle(node).backgroundColor);
      if (c[3] > 0.99) return c;
    }
    return [255, 255, 255, 1];
  };
  const bad = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text; (text = walk.nextNode());) {
    const node = text.parentElement, style = getComputedStyle(node);
    if (!text.data.trim() || node.closest('script, title, .hidden, .cursor, .span-name') ||
        node.getClientRects().length === 0 || style.visibility === 'hidden') continue;
    const svg = node instanceof SVGElement;
    const ink = parse(svg ? style.fill : style.color), ground = behind(node);
    const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if ((a + 0.05) / (b + 0.05) < (large ? 3 : 4.5)) {
      bad.push(`"${text.data.trim().slice(0, 30)}" ${((a + 0.05) / (b + 0.05)).toFixed(2)}`);
    }
  }
  return [...new Set(bad)];
}"""


def open_page(browser, path, width, height, scheme):
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme,
                                  reduced_motion="reduce")
    page = context.new_page()
    said = []
    page.on("console", lambda message: said.append(message.type + ": " + message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append("asks for " + request.url)
            if not re.match("file:|data:", request.url) else None)
    start = time.time()
    page.goto("file://" + os.path.abspath(path))
    page.wait_for_selector(".drawing path.curve")
    return page, said, time.time() - start


def readout(page):
    return page.evaluate("[...document.querySelectorAll('.legend output')].map(o => o.textContent).join('|')")


def ticks(page):
    return page.evaluate("[...document.querySelectorAll('.chart .grid text')].map(t => t.textContent).join('|')")


def frame(page):
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def check_keys(page):
    plot = page.locator(".chart .plot").first
    plot.focus()
    before = readout(page)
    plot.press("Home")
    need(readout(page) != before, "Home moves no cursor")
    first = readout(page)
    plot.press("ArrowRight")
    plot.press("Shift+ArrowRight")
    need(readout(page) != first, "arrows move no cursor")
    page.wait_for_timeout(300)
    live = page.locator("[aria-live=polite].hidden").text_content()
    need("step" in live and "loss" in live.lower() or "smoothed" in live, "the cursor is not told: " + live)
    whole = ticks(page)
    for key in "++":
        plot.press(key)
    frame(page)
    need(ticks(page) != whole, "plus does not zoom")
    plot.press("0")
    frame(page)
    need(ticks(page) == whole, "0 does not show all")
    plot.press("l")
    frame(page)
    need(ticks(page) != whole, "l gives no other scale")
    plot.press("l")
    frame(page)


def check_mouse(page):
    whole = ticks(page)
    box = page.locator(".chart .plot").first.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.4 * box["width"], middle)
    before = readout(page)
    page.mouse.move(box["x"] + 0.5 * box["width"], middle)
    need(readout(page) != before, "the cursor does not follow the mouse")
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], middle, steps=4)
    page.mouse.up()
    frame(page)
    need(ticks(page) != whole, "dragging does not zoom")
    page.locator(".chart .plot").first.dblclick()
    frame(page)
    need(ticks(page) == whole, f"a double click does not show all: {ticks(page)} {whole}")
    for name in ("tokens", "time", "steps"):
        page.get_by_role("button", name=name, exact=True).first.click()
        frame(page)
        need((ticks(page) == whole) == (name == "steps"), "no axis of " + name)


def check_words(page):
    labels = page.evaluate("[...document.querySelectorAll('figure:not([hidden]) svg[role=img]')].map(s => s.getAttribute('aria-label') || '')")
    need(len(labels) >= 6, f"{len(labels)} charts with a label")
    loss = next((label for label in labels if label.startswith("Loss.")), "")
    need(all(word in loss for word in ("first", "last", "least", "step")), "Loss is called: " + loss)
    need(all(len(label) > 20 for label in labels), "a chart is not described: " + str(labels))
    table = page.locator("details.table").first
    table.locator("summary").click()
    page.wait_for_timeout(100)
    need(table.locator("tbody tr").count() > 2, "the table of values is empty")
    table.locator("summary").click()
    names = page.evaluate("""[...document.querySelectorAll('button, input')]
      .filter((n) => !(n.getAttribute('aria-label') || n.textContent || n.closest('label'))).length""")
    need(names == 0, f"{names} controls without a name")


def check_escapes(page, path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    need(text.count("</script") == 2, f"{text.count('</script')} scripts end in the page, not 2")
    need(page.evaluate("window.broken === undefined && !document.getElementById('bold')"),
         "a sample became part of the page")
    for image in page.query_selector_all("img"):
        need(False, "an image: " + str(image))
    if "window.broken" in text:
        shown = page.locator(".sample").first.text_content()
        need(shown.startswith("</script><script>"), "a sample is shown as " + shown)


def picture(shot, path):
    from PIL import Image
    image = Image.open(io.BytesIO(shot)).convert("RGB")
    for colours in (128, 64, 32, 16):
        image.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
        if os.path.getsize(path) < MOST_BYTES:
            return
    sys.exit(f"FAILED: {path}: {os.path.getsize(path)} bytes")


def check(path, prefix):
    try:
        from playwright.sync_api import sync_playwright
        import PIL  # noqa: F401
    except ImportError:
        sys.exit(77)
    chromium = os.environ.get("KILN_CHROMIUM") or shutil.which("chromium") or \
        shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        sys.exit(77)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, width, height in SHAPES:
            for scheme in ("light", "dark"):
                page, said, seconds = open_page(browser, path, width, height, scheme)
                frame(page)
                print(f"{name}, {scheme}: open after {seconds:.2f} s")
                bad = page.evaluate(CONTRAST)
                need(not bad, f"{name}, {scheme}: too faint: {bad}")
                if prefix:
                    picture(page.screenshot(), f"{prefix}-{name}-{scheme}.png")
                    timeline = page.locator("figure:has(.timeline)")
                    if name == "desktop" and scheme == "light" and timeline.count() > 0:
                        picture(timeline.screenshot(), f"{prefix}-timeline.png")
                wide = page.evaluate("document.documentElement.scrollWidth")
                need(wide <= width, f"{name}: {wide} pixels wide")
                if scheme == "light":
                    check_words(page)
                    check_keys(page)
                    check_escapes(page, path)
                if name == "desktop" and scheme == "light":
                    check_mouse(page)
                need(not said, f"{name}, {scheme}: " + "; ".join(said))
                page.context.close()
        page, said, _ = open_page(browser, path, 360, 700, "light")
        wide = page.evaluate("document.documentElement.scrollWidth")
        need(wide <= 360, f"{wide} pixels wide on a screen of 360")
        browser.close()


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], int(sys.argv[3]))
    else:
        check(sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None)
