"""The dashboard in a headless browser: python dashboard_page.py ADDRESS RUN OTHER [FOLDER].

RUN is being trained, OTHER is finished. Live points, comparing, filter, zoom by keyboard, the confirmation
of the stop button, a change of rate, what screen readers are told; no message on the console and no
request to anywhere else. With FOLDER, pictures for the docs are left there. Exit 77: no browser.
"""
import os
import re
import sys
import time

try:
    from playwright.sync_api import sync_playwright
except ImportError:
    print("playwright is absent")
    sys.exit(77)

CHROMIUM = os.environ.get("KILN_CHROMIUM", "/usr/bin/chromium")
address, run, other = sys.argv[1:4]
folder = sys.argv[4] if len(sys.argv) > 4 else None
base = address.split("#")[0]


def step_of(page):
    return int(page.locator("#runs li", has_text=run).locator(".told").inner_text().split()[1].replace(",", ""))


def until(true, what, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


def open_page(browser, messages, **how):
    context = browser.new_context(device_scale_factor=1, **how)
    page = context.new_page()
    page.on("console", lambda m: messages.append(f"console: {m.type}: {m.text}"))
    page.on("pageerror", lambda e: messages.append(f"error: {e}"))
    page.on("request", lambda r: None if r.url.startswith((base, "data:")) else messages.append(f"asks {r.url}"))
    page.goto(address)
    page.wait_for_selector("#connection.live")
    page.wait_for_selector("figure.chart svg path.curve")
    return page


def picture(page, name):
    if folder:
        page.evaluate("window.scrollTo(0, 0)")
        page.wait_for_timeout(600)
        page.screenshot(path=os.path.join(folder, f"dashboard-{name}.png"))


def check_labels(page):
    """Whatever can be pressed or typed into has a name."""
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, input, select, summary, [tabindex]')]
        .filter((e) => e.offsetParent !== null)
        .filter((e) => !(e.getAttribute('aria-label') || e.innerText || (e.labels && e.labels.length) ||
                         e.getAttribute('aria-labelledby')))
        .map((e) => e.outerHTML.slice(0, 120))""")
    assert nameless == [], nameless
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("h1").count() == 1


def check_contrast(page):
    """Text of the list and the panels stands out 4.5 to 1 from its ground."""
    poor = page.evaluate("""() => {
        const rgb = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
        const light = (c) => { const f = c.slice(0, 3).map((v) => v / 255).map((v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
            return .2126 * f[0] + .7152 * f[1] + .0722 * f[2]; };
        const ground = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
            if (c.length === 3 || c[3] > 0) return c; } return [255, 255, 255]; };
        return [...document.querySelectorAll('.told, .run-name, .badge, .connection, .hint, h1, h2, .control button:enabled, .control label, .tile dt, .tile b')]
            .filter((e) => e.offsetParent !== null && e.textContent.trim() !== '')
            .map((e) => { const a = light(rgb(getComputedStyle(e).color)), b = light(ground(e));
                return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.className + ' ' + e.textContent.slice(0, 30)]; })
            .filter(([ratio]) => ratio < 4.5);
    }""")
    assert poor == [], poor


def check_live(page):
    first = step_of(page)
    until(lambda: step_of(page) > first, "a new step")
    assert run in page.title() and "running" in page.title(), page.title()
    words = page.locator("figure.chart svg.drawing").first.get_attribute("aria-label")
    until(lambda: page.locator("figure.chart svg.drawing").first.get_attribute("aria-label") != words, "the curve grows")


def check_keyboard(page):
    """Without a mouse: choose a run, find one, zoom, and everything again."""
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.focus("#filter")
    page.keyboard.type(other)
    assert page.locator("#runs li").count() == 1
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    until(lambda: page.locator(".legend .item", has_text=other).count() > 0, "the other run's curves")
    page.fill("#filter", "")
    until(lambda: page.locator("#runs li").count() >= 2, "all runs in the list")
    page.locator(".plot").first.focus()
    tick = lambda: page.locator(".plot").first.locator(".grid text").all_inner_texts()
    whole = tick()
    for key in ("Home", "ArrowRight", "+", "+", "+"):
        page.keyboard.press(key)
    assert tick() != whole
    until(lambda: "step" in page.locator("p.hidden[aria-live]").text_content(), "the cursor is read out", 3)
    # what has the focus keeps it while steps arrive
    first = step_of(page)
    until(lambda: step_of(page) > first, "a new step")
    assert page.evaluate("document.activeElement.classList.contains('plot')")
    page.keyboard.press("0")


def check_quiet(page):
    """Of what a screen reader is told by itself, nothing changes with every step."""
    said = lambda: page.locator("[role=status], [aria-live]").all_inner_texts()
    before, first = said(), step_of(page)
    until(lambda: step_of(page) > first + 2, "new steps")
    assert said() == before, (before, said())


def check_buttons(page):
    page.fill("#rate", "fast")
    page.click("#rate-go")
    assert "number from 0 to 1000" in page.locator("#said").inner_text()
    now = page.locator("#rate-now").inner_text()
    for wrong in ("100", "0", "1e-9"):
        page.fill("#rate", wrong)
        page.keyboard.press("Enter")
        assert page.locator("#confirm").is_visible(), wrong
        assert "It is 1e-3 now" in page.locator("#confirm-text").inner_text()
        assert page.evaluate("document.activeElement.id") == "confirm-no"
        page.click("#confirm-no")
    assert page.locator("#rate-now").inner_text() == now == "now 1e-3"
    page.fill("#rate", "1e-4")
    page.keyboard.press("Enter")
    page.click("#confirm-yes")
    until(lambda: "peak learning rate" in page.locator("#said").inner_text(), "the rate is asked for")
    until(lambda: page.locator("#rate").get_attribute("placeholder") == "1e-4", "the new rate is shown")
    until(lambda: re.search(r"the peak learning rate is 1e-4 from step [\d,]+ on", page.locator("#said").inner_text()), "what the trainer says")
    assert re.fullmatch(r"now 1e-4, from step [\d,]+ on", page.locator("#rate-now").inner_text())
    page.fill("#rate", "2e-4")
    page.keyboard.press("Enter")
    assert not page.locator("#confirm").is_visible()
    until(lambda: page.locator("#rate-now").inner_text().startswith("now 2e-4"), "a rate near it needs no question")
    page.click("#stop")
    assert page.locator("#confirm").is_visible()
    assert page.evaluate("document.activeElement.id") == "confirm-no"
    page.keyboard.press("Escape")
    assert not page.locator("#confirm").is_visible()
    first = step_of(page)
    until(lambda: step_of(page) > first, "it trains on")


def check_stop(page):
    page.click("#stop")
    page.click("#confirm-yes")
    until(lambda: page.locator("#runs li", has_text=run).locator(".badge").inner_text() == "stopped", "it is stopped", 30)


def check_without_token(browser, messages):
    page = browser.new_context().new_page()
    page.on("console", lambda m: messages.append(f"console: {m.type}: {m.text}"))
    page.goto(base)
    page.wait_for_selector("#connection.live")
    page.wait_for_selector("#control", state="visible")
    assert page.locator("#stop").is_disabled() and page.locator("#rate").is_disabled()
    assert "token" in page.locator("#said").inner_text()
    page.context.close()


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


with sync_playwright() as playwright:
    try:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    except Exception as error:
        print(f"no browser: {str(error).splitlines()[0]}")
        sys.exit(77)
    messages = []
    desk = {"viewport": {"width": 1280, "height": 900}}
    phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
    page = open_page(browser, messages, color_scheme="light", **desk)
    assert "token" not in page.url, page.url
    check_live(page)
    check_labels(page)
    check_quiet(page)
    check_keyboard(page)
    check_labels(page)
    check_contrast(page)
    picture(page, "desktop-light")
    check_buttons(page)
    page.reload()
    page.wait_for_selector("#connection.live")
    until(lambda: page.locator("#stop").is_enabled(), "the token is kept for the tab")
    check_without_token(browser, messages)
    for name, how in (("desktop-dark", {**desk, "color_scheme": "dark"}), ("phone-light", {**phone, "color_scheme": "light"}),
                      ("phone-dark", {**phone, "color_scheme": "dark"})):
        one = open_page(browser, messages, **how)
        check_contrast(one)
        assert fits(one), name
        picture(one, name)
        one.context.close()
    check_stop(page)
    assert messages == [], messages
    browser.close()
