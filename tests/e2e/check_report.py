#!/usr/bin/env python3
"""The report in a real browser: headless Chromium, driven over its debugging pipe, with nothing but
the standard library for that.

    check_report.py --bin build/bin [--browser chromium] [--shots FOLDER]

Makes findings of the embedded model, writes the report and asks the browser: no errors, nothing
loaded from anywhere, the selector draws what the CSV holds and obeys keyboard and link, text has
contrast in light and dark, print shows everything, the page works without script and on a narrow
screen. The summary's figures are recomputed with NumPy. A report with hostile names runs nothing.
With --shots the pictures stay, to be looked at.
"""

import argparse
import base64
import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

import h5py
import numpy as np
from checks import check, verdict


class Browser:
    """One page of a headless Chromium. Messages are JSON with a NUL behind, on descriptors 3 and 4
    of the browser.
    """

    def __init__(self, program, profile):
        to_browser, self.write = os.pipe()
        self.read, from_browser = os.pipe()

        def descriptors():
            high = [os.dup(to_browser), os.dup(from_browser)]
            for target, source in zip((3, 4), high):
                os.dup2(source, target)

        self.process = subprocess.Popen(
            [
                program,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--remote-debugging-pipe",
                "--user-data-dir=" + profile,
                "about:blank",
            ],
            preexec_fn=descriptors,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.buffer, self.number, self.session = b"", 0, None
        self.errors, self.requests, self.loads = [], [], 0
        page = [t for t in self("Target.getTargets")["targetInfos"] if t["type"] == "page"][0]
        self.session = self("Target.attachToTarget", targetId=page["targetId"], flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(domain + ".enable")

    def message(self):
        while b"\0" not in self.buffer:
            part = os.read(self.read, 1 << 20)
            if not part:
                sys.exit("the browser went away")
            self.buffer += part
        text, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(text)
        method, what = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(
                what["exceptionDetails"].get("exception", {}).get("description", "exception")
            )
        elif method == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            self.errors.append(what["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and what["type"] in (
            "error",
            "warning",
            "assert",
        ):
            self.errors.append(str(what["args"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(what["request"]["url"])
        elif method == "Page.loadEventFired":
            self.loads += 1
        return message

    def __call__(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.write, data) :]
        while True:
            answer = self.message()
            if answer.get("id") == self.number:
                if "error" in answer:
                    sys.exit(f"{method}: {answer['error']}")
                return answer["result"]

    def open(self, path, fragment=""):
        """From nothing, so that a new fragment of the same file is a new page."""
        for url in ("about:blank", "file://" + os.path.abspath(path) + fragment):
            loads = self.loads
            self("Page.navigate", url=url)
            while self.loads == loads:
                self.message()

    def ask(self, expression):
        answer = self("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            sys.exit(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def key(self, name, code):
        for kind in ("keyDown", "keyUp"):
            self(
                "Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code
            )

    def media(self, kind="", scheme="light"):
        self(
            "Emulation.setEmulatedMedia",
            media=kind,
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )

    def size(self, width, height):
        self(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def shot(self, path, whole=True):
        picture = self("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        with open(path, "wb") as f:
            f.write(base64.b64decode(picture["data"]))

    def close(self):
        self("Browser.close")
        self.process.wait(20)


def run(*command):
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{command}: exit status {done.returncode}")
    return done.stdout


# ---- what the page is held against ----


def csv_power(folder, state, layer, head):
    with open(os.path.join(folder, "spectrum.csv")) as f:
        rows = [
            row
            for row in csv.DictReader(f)
            if (row["state"], row["layer"], row["head"]) == (state, str(layer), str(head))
            and row["t_low"] != "0"
        ]
    return np.array([float(row["cycles_per_token"]) for row in rows]), np.array(
        [float(row["power"]) for row in rows]
    )


def points_of(path):
    return np.array([[float(x) for x in point.split()] for point in re.split("[ML]", path)[1:]])


def check_drawn(browser, folder, state, layer, head):
    """The drawn line is a straight map of log frequency and log power."""
    points = points_of(browser.ask("document.getElementById('power').getAttribute('d')"))
    frequency, power = csv_power(folder, state, layer, head)
    name = f"the line of {state}, layer {layer}, head {head} is what spectrum.csv holds"
    if len(points) != len(power):
        return check(name, False, f"{len(points)} points, {len(power)} bands")
    residuals = [
        np.abs(np.polyval(np.polyfit(np.log10(x), y, 1), np.log10(x)) - y).max()
        for x, y in ((frequency, points[:, 0]), (power, points[:, 1]))
    ]
    check(
        name, max(residuals) < 0.15 and points[-1, 0] > points[0, 0], f"off by {residuals} pixels"
    )


def check_summary(page, folder, sentences):
    """Medians over heads of the shares below gamma 0.5, from results.h5."""
    with h5py.File(os.path.join(folder, "results.h5")) as f:
        for state, words in (("key", "keys before RoPE"), ("value", "values")):
            shares = {}
            for name in ("power", "power_null"):
                x = f[f"spectrum/{state}/{name}"][:]
                shares[name] = (
                    x[..., 1 : math.floor(0.5 * x.shape[-1] + 1e-9)].sum(-1) / x[..., 1:].sum(-1)
                ).ravel()
            expected = (
                (
                    f"Without DC, {100 * np.median(shares['power']):.1f}% of the energy of the"
                    f" {words} lies in the lower half"
                ),
                f"against {100 * np.median(shares['power_null']):.1f}% with",
                (
                    f"{(shares['power'] > shares['power_null']).sum()} of {shares['power'].size}"
                    " lean further"
                ),
            )
            found = [
                sentence for sentence in sentences if all(part in sentence for part in expected)
            ]
            check(
                f"the sentence on {words} holds the numbers of results.h5",
                len(found) == 1,
                f"{expected} in {sentences}",
            )
            check(
                f"the sentence on {words} stands in the page",
                bool(found)
                and found[0].replace("’", "") in page.replace("&#39;", "").replace("’", ""),
            )


STRUCTURE = """(() => {
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id), known = new Set(ids);
  const lost = [];
  for (const e of document.querySelectorAll('*'))
    for (const a of e.attributes) {
      const text = a.value;
      if (['aria-labelledby', 'aria-describedby', 'for'].includes(a.name))
        text.split(' ').forEach((i) => known.has(i) || lost.push(a.name + ' ' + i));
      if (e.localName === 'img' && a.name === 'src' && text.startsWith('data:image/svg+xml,'))
        continue;
      if (a.name === 'src') lost.push(text);
      if (a.localName === 'href' && (text[0] !== '#' || !known.has(text.slice(1)))) lost.push(text);
      const url = /url[(]#([^)]*)[)]/.exec(text);
      if (url && !known.has(url[1])) lost.push(text);
      if (/^on/.test(a.name)) lost.push(a.name);
    }
  const pictures = [...document.querySelectorAll('svg[role=img], img')];
  return { twice: ids.length - known.size, lost: lost.slice(0, 5), pictures: pictures.length,
    silent: pictures.filter((s) => !s.getAttribute('aria-label') && !s.getAttribute('alt')).length,
    broken: [...document.images].filter((s) =>
      !(s.complete && s.naturalWidth > 100 && s.naturalHeight > 100)).length,
    lang: document.documentElement.lang, title: document.title,
    headings: document.querySelectorAll('h1').length,
    cells: document.querySelectorAll('table th:not([scope])').length,
    bare: document.querySelectorAll('table:not([aria-labelledby])').length,
    sections: [...document.querySelectorAll('main > section')].map((s) => s.id),
    links: [...document.querySelectorAll('nav a')].map((a) => a.hash.slice(1)) };
})()"""

# The decoded images of the section `link`.
IMAGES = """[...document.querySelectorAll('#link img')].map((e) =>
  decodeURIComponent(e.src.slice('data:image/svg+xml,'.length)))"""

CONTRAST = """(() => {
  const light = (c) => {
    const [r, g, b] = c.match(/[0-9.]+/g).map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = light(getComputedStyle(document.body).backgroundColor), worst = {};
  for (const selector of ['p', 'li', 'nav a', 'figcaption', '.caption', 'td', 'th', 'summary',
                          '.note', '.kind', 'label', 'dt', 'dd', '#plot text', '#readout']) {
    const e = document.querySelector(selector);
    if (!e) continue;
    const style = getComputedStyle(e);
    const c = light(selector === '#plot text' ? style.fill : style.color);
    worst[selector] = (Math.max(c, ground) + 0.05) / (Math.min(c, ground) + 0.05);
  }
  return worst;
})()"""


def check_page(browser, report, folder, shots):
    browser.size(1100, 900)
    browser.media()
    browser.open(report)
    s = browser.ask(STRUCTURE)
    check("ids are unique and every reference resolves", not s["twice"] and not s["lost"], s)
    check(
        "pictures are there and each says what it shows", s["pictures"] > 4 and not s["silent"], s
    )
    check("every figure is drawn", not s["broken"], s)
    check(
        "language, title, one first heading, scopes and captions of tables",
        s["lang"] == "en"
        and s["title"]
        and s["headings"] == 1
        and not s["cells"]
        and not s["bare"],
        s,
    )
    check(
        "the contents list every section in order",
        s["sections"] == s["links"] and len(s["links"]) > 3,
        s,
    )

    first = browser.ask("document.getElementById('power').getAttribute('d')")
    check_drawn(browser, folder, "key", 0, 0)
    for state, layer, head in (("key", 1, 0), ("key", 1, 1), ("value", 5, 1)):
        browser.open(report, f"#state={state}&layer={layer}&head={head}")
        check_drawn(browser, folder, state, layer, head)
    browser.open(report, "#state=nonsense&layer=-1&head=x")
    check(
        "a link to what is not there shows the first head",
        browser.ask("document.getElementById('power').getAttribute('d')") == first,
    )

    browser.open(report)
    for _ in range(60):  # from the top of the page, as a reader without a mouse comes
        browser.key("Tab", 9)
        if browser.ask("document.activeElement.id") == "layer":
            break
    check(
        "the layer is reached by Tab, and shows that it is",
        browser.ask("document.activeElement.id") == "layer"
        and browser.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid",
    )
    browser.key("ArrowRight", 39)
    check(
        "an arrow key moves to the next layer",
        browser.ask("document.getElementById('power').getAttribute('d')") != first
        and browser.ask("location.hash") == "#state=key&layer=1&head=0",
        browser.ask("location.hash"),
    )
    check_drawn(browser, folder, "key", 1, 0)
    check(
        "the position is said in words",
        "layer 1" in browser.ask("document.getElementById('readout').textContent"),
    )

    ticks = """[...document.querySelectorAll('#plot text')].map(t => t.textContent).join('|')"""
    browser.open(report, "#state=key&layer=0&head=0")
    axes = browser.ask(ticks)
    browser.open(report, "#state=key&layer=5&head=1")
    check("one scale while layers change", browser.ask(ticks) == axes, axes)
    browser.ask(
        """{ const shown = document.getElementById('shown'); shown.value = 'ratio';
        shown.dispatchEvent(new Event('input')) }"""
    )
    null = """[...document.querySelectorAll('#plot path.null')].at(-1).getAttribute('d')"""
    heights = {y for _, y in points_of(browser.ask(null))}
    check("power over null has a level null", len(heights) == 1, sorted(heights))
    check("and its axis says so", "power / tokens permuted" in browser.ask(ticks))

    browser.size(2200, 1200)
    rows = """[...document.querySelectorAll('#spectra .plate')].map(
        plate => plate.getBoundingClientRect().top)"""
    tops = browser.ask(rows)
    check("figures stand two in a row on a wide screen", len(set(tops)) < len(tops), tops)
    browser.shot(os.path.join(shots, "wide.png"))
    browser.size(1100, 900)

    for scheme in ("light", "dark"):
        browser.media("", scheme)
        contrast = browser.ask(CONTRAST)
        check(
            f"text has a contrast of 4.5 or more, {scheme}", min(contrast.values()) >= 4.5, contrast
        )
        browser.shot(os.path.join(shots, scheme + ".png"))
    browser.media()
    browser.size(360, 800)
    check(
        "nothing is wider than a narrow screen",
        browser.ask("document.documentElement.scrollWidth") <= 360,
        browser.ask("document.documentElement.scrollWidth"),
    )
    browser.shot(os.path.join(shots, "narrow.png"))
    browser.size(1100, 900)


def check_print(browser, report, shots):
    browser.open(report)
    browser.ask(
        "addEventListener('beforeprint', () => document.body.dataset.open ="
        " document.querySelectorAll('details[open]').length)"
    )
    pdf = base64.b64decode(browser("Page.printToPDF", preferCSSPageSize=True)["data"])
    with open(os.path.join(shots, "print.pdf"), "wb") as f:
        f.write(pdf)
    folds = browser.ask("document.querySelectorAll('details').length")
    check(
        "print opens every fold",
        folds and browser.ask("Number(document.body.dataset.open)") == folds,
        f"{browser.ask('document.body.dataset.open')} of {folds}",
    )
    check(
        "and closes them again",
        browser.ask("document.querySelectorAll('details[open]').length") == 0,
    )
    check("print gives a document", pdf.startswith(b"%PDF") and len(pdf) > 50000, len(pdf))
    browser.media("print", "dark")
    check(
        "print has no controls and black on white, even in the dark",
        browser.ask("getComputedStyle(document.getElementById('controls')).display") == "none"
        and browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        and browser.ask("getComputedStyle(document.body).color") == "rgb(0, 0, 0)",
    )
    browser.media()


def check_without_script(browser, report):
    browser("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(report)
    text = "document.body.innerText"
    rows = browser.ask("document.querySelectorAll('noscript tbody tr').length")
    check(
        "without script the layers of every state stand where the selector was",
        rows == 2 * 6
        and not browser.ask(STRUCTURE)["lost"]
        and not browser.ask(STRUCTURE)["twice"],
        rows,
    )
    check(
        "without script the figures stay and the selector is explained",
        "needs JavaScript" in browser.ask(text)
        and browser.ask("getComputedStyle(document.getElementById('explorer')).display") == "none"
        and browser.ask("document.querySelectorAll('.plate img').length") > 4
        and not browser.ask(STRUCTURE)["broken"],
    )
    browser("Emulation.setScriptExecutionDisabled", value=False)


def check_hostile(browser, tool, folder, work):
    """Names from files are data. Every part of the page that shows a name from a file."""
    evil = (
        """</script></title></style><img src=x onerror="document.title='owned'">"""
        """<script>document.title='owned'</script>&amp;'"\\u2028<!--"""
    )
    hostile = os.path.join(work, "hostile")
    shutil.copytree(folder, hostile)
    os.remove(os.path.join(hostile, "report.html"))
    with h5py.File(os.path.join(hostile, "results.h5"), "r+") as f:
        f.attrs["model"] = evil[:200]
        f["spectrum"].attrs["command"] = "freqkv-analyze " + evil
    with open(os.path.join(hostile, "link_<b>&.csv"), "w") as f:
        f.write('<i>name</i>,x\n"' + evil.replace('"', '""') + '",1\n')
    with open(os.path.join(hostile, "spectrum_key.svg")) as f:
        svg = f.read()
    changes = {
        "script": (
            "<defs>",
            '<script>document.title="owned"; fetch("https://example.org/script")</script><defs>',
        ),
        "handler": ("<defs>", '<g onload="document.title=1"/><defs>'),
        "attribute": (
            "<defs>",
            "'><script>document.title='owned'</script>"
            "<img src='https://example.org/attribute' onerror='document.title=2'><defs>",
        ),
        "address": (
            "<defs>",
            '<image width="9" height="9" xlink:href="https://example.org/address"/><defs>',
        ),
        "style": ("<defs>", "<style>@import url(https://example.org/style);</style><defs>"),
        "foreign": ("FreqKV toolkit", "Another tool"),
    }
    for name, change in changes.items():
        with open(os.path.join(hostile, f"link_{name}.svg"), "w") as f:
            f.write(svg.replace(*change, 1))
    report = json.loads(run(tool, "report", hostile, "--json"))
    check(
        "a figure of another program is left out and named",
        len(report["left_out"]) == 1 and "link_foreign.svg" in report["left_out"][0],
        report["left_out"],
    )
    browser.open(report["report"])
    page = browser.ask("document.documentElement.outerHTML")
    s = browser.ask(STRUCTURE)
    check(
        "hostile names change nothing of the page",
        s["title"].startswith("FreqKV report: </script></title>")
        and not s["lost"]
        and not s["twice"]
        and browser.ask("document.querySelectorAll('script').length") == 2
        and browser.ask("document.images.length") == report["figures"]
        and "link_&lt;b&gt;&amp;.csv" in page
        and browser.ask("document.querySelector('main b i, main img:not(.plate > img)')") is None,
        s,
    )
    check(
        "figures that somebody changed are images of the bytes in the folder",
        browser.ask(IMAGES)
        == [svg.replace(*changes[name], 1) for name in sorted(set(changes) - {"foreign"})],
    )


def check_parts(browser, tool, folder, work):
    """Each section goes with its data; the page still works."""
    part = os.path.join(work, "part")
    os.makedirs(part)
    shutil.copy(os.path.join(folder, "results.h5"), part)
    report = json.loads(run(tool, "report", part, "--json"))
    check(
        "a folder of results.h5 alone has tables and no figures",
        report["figures"] == 0
        and report["sections"] == ["summary", "spectra", "errors", "provenance"],
        report,
    )
    browser.open(report["report"])
    check(
        "and its page has no selector",
        browser.ask("document.getElementById('plot')") is None
        and browser.ask("document.querySelectorAll('table').length") > 2,
    )


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--bin", default="build/bin")
    p.add_argument("--data", default="data")
    p.add_argument("--browser", default="chromium")
    p.add_argument("--shots", help="keep screenshots and the PDF here")
    args = p.parse_args()
    work = tempfile.mkdtemp()
    shots = args.shots or work
    os.makedirs(shots, exist_ok=True)
    capture, folder = os.path.join(work, "capture"), os.path.join(work, "findings")
    tool = os.path.join(args.bin, "freqkv-analyze")
    run(
        os.path.join(args.bin, "freqkv-capture"),
        "--quiet",
        "--model",
        os.path.join(args.data, "litbank-1m"),
        "--text",
        os.path.join(args.data, "the_tide_mill.txt"),
        "--out",
        capture,
    )
    cut = ("--length", "508", "--out", folder, "--quiet")
    run(tool, "spectrum", capture, *cut)
    run(tool, "error", capture, *cut)
    run(tool, "gamma", capture, "--budget", "0.5", *cut)
    run(tool, "impulse", "--window", "512", "--gamma", "0.25,0.5,0.75", "--out", folder, "--quiet")

    started = time.time()
    report = json.loads(run(tool, "report", folder, "--json"))
    with open(report["report"], "rb") as f:
        page = f.read()
    print(
        f"{len(page) / 1e6:.2f} MB, {report['figures']} figures, sections"
        f" {' '.join(report['sections'])}; written in {time.time() - started:.2f} s"
    )
    check("it is smaller than 3 MB", report["bytes"] == len(page) < 3e6, len(page))
    drawn = [name for name in os.listdir(folder) if name.endswith(".svg")]
    check(
        "every figure that the commands drew is in it",
        report["figures"] == len(drawn) > 8 and not report["left_out"],
        report,
    )
    run(tool, "report", folder)
    with open(report["report"], "rb") as f:
        check("the same folder gives the same bytes", f.read() == page)
    check_summary(page.decode(), folder, report["summary"])

    browser = Browser(args.browser, os.path.join(work, "profile"))
    check_page(browser, report["report"], folder, shots)
    check_print(browser, report["report"], shots)
    check_without_script(browser, report["report"])
    check_hostile(browser, tool, folder, work)
    check_parts(browser, tool, folder, work)
    check("no page had an error or a warning", not browser.errors, browser.errors)
    inside = r"about:blank|file://.*/report\.html(#.*)?|data:image/svg\+xml,.*"
    elsewhere = [url[:200] for url in browser.requests if not re.fullmatch(inside, url)]
    check("nothing was loaded but the pages themselves", not elsewhere, elsewhere)
    browser.close()
    shutil.rmtree(work, ignore_errors=True)
    sys.exit(verdict("report"))


if __name__ == "__main__":
    main()
