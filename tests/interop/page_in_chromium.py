#!/usr/bin/env python3
"""The page of `quern serve` in headless Chromium, as somebody uses it: asks, stops, regenerates, edits, copies, changes
the theme, renames, deletes, gives a key, on a desk's width and a phone's. Needs Debian's chromium and chromium-driver, and the package
selenium of PyPI; exits with 77, which counts as skipped, where one is missing. By hand:

  page_in_chromium.py --quern build/release/cli/quern --model smollm2-135m-instruct.gguf --pictures FOLDER
"""
import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HOSTILE = """# Title
Text with **bold**, *lean*, `code <b>` and ~~gone~~, snake_case_name, 2 * 3 * 4.
<img src=x onerror="document.title='broken'"><script>document.title='broken'</script>
[bad](javascript:document.title='broken') [good](https://example.org/a_b_c) ![picture](https://example.org/p.png)

1. one
   - inner
   - other
2. two

| a | b |
|---|---|
| `x|y` | **z** |

```python
def f(x):
    return "<b>" + x
```
"""


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(77)


def check(condition, what):
    if not condition:
        sys.exit(f"failed: {what}")
    print(f"ok: {what}")


class Server:
    def __init__(self, quern, model, *more):
        self.process = subprocess.Popen([quern, "serve", model, "--port", "0", *more], stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            found = re.search(r"listening on (http://\S+)", line)
            if found:
                self.url = found.group(1) + "/"
                return
        sys.exit("failed: quern serve does not start")

    def end(self):
        self.process.terminate()
        self.process.communicate(timeout=60)


class Page:
    def __init__(self, driver, url):
        self.driver = driver
        driver.get(url)

    def js(self, code, *arguments):
        return self.driver.execute_script(code, *arguments)

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def wait(self, condition, what, seconds=120):
        end = time.time() + seconds
        while time.time() < end:
            if condition():
                print(f"ok: {what}")
                return
            time.sleep(0.05)
        sys.exit(f"failed: {what}, after {seconds} s; the page says: {self.find('body').text[-2000:]}")

    def type(self, text):
        self.find("#prompt").send_keys(text)

    def busy(self):
        return self.find("#send").text == "Stop"

    def answer(self):
        return self.js("return current.messages.at(-1)")

    def settings(self, **values):
        self.find("#settings-open").click()
        for name, value in values.items():
            field = self.find("#" + name)
            field.clear()
            field.send_keys(str(value))
        self.find("#settings button[type=submit]").click()


def talk(page, picture):
    page.wait(lambda: page.find("#model").text != "", "the page tells the model's name")
    check(page.js("return document.activeElement.id") == "prompt", "the message has the focus at first")
    picture("empty")

    page.settings(system="You are a helpful assistant.", temperature=0, max_tokens=160)
    page.type("Write a Python function that adds two numbers. Give the code in a block.\n")
    page.wait(page.busy, "an answer begins")
    page.wait(lambda: page.find(".message.assistant .body").text != "", "it is seen while it is written")
    page.wait(lambda: not page.busy(), "it ends")
    answer = page.answer()
    check(answer["ends"] and len(answer["ends"]) == len(answer["chances"]), "tokens have probabilities")
    whole = page.js("return current.messages.at(-1).ends.filter((e) => e <= current.messages.at(-1).content.length).at(-1)")
    check(whole == len(answer["content"]), "tokens end where the content ends")
    check(all(chance <= 0 for chance in answer["chances"]), "log-probabilities are none above 0")
    check("tokens/s" in page.find(".message.assistant .stats").text, "tokens per second are told")
    check(page.find("#status").get_attribute("textContent").startswith("The answer: "), "screen readers are told the answer")
    token = page.all(".message.assistant .token")[3]
    from selenium.webdriver.common.action_chains import ActionChains
    ActionChains(page.driver).move_to_element(token).perform()
    check("%" in page.find("#tip").text and page.find("#tip").is_displayed(), "a token's probability on hover")
    picture("answer")
    if page.all(".message.assistant figure"):
        page.find(".message.assistant figure button").click()
        page.wait(lambda: page.find(".message.assistant figure button").text in ("Copied", "Not copied"), "a block is copied")

    first = answer["content"]
    page.find(".message.assistant .foot button:nth-of-type(2)").click()
    page.wait(page.busy, "regenerating begins")
    page.wait(lambda: not page.busy(), "regenerating ends")
    check(page.answer()["content"] == first, "at temperature 0 it is the same answer")

    page.settings(max_tokens=2000, temperature=1)
    page.type("Tell a very long story about the sea.\n")
    page.wait(lambda: page.busy() and len(page.answer()["content"]) > 40, "a long answer runs")
    page.type("\ue00c")  # Escape
    page.wait(lambda: not page.busy(), "Esc stops it", 10)
    check(page.answer()["stats"]["stopped"] and "stopped" in page.all(".message.assistant .stats")[-1].text, "it says so")

    page.js("current.messages.splice(2); drawLog(); $('prompt').value = arguments[0]", "The sea is wide and deep. " * 400)
    page.type("\n")
    page.wait(lambda: page.js("return runs.get(current.id) && document.querySelector('.waiting progress') !== null"),
              "the progress of a long prompt is seen")
    picture("progress")
    page.type("\ue00c")
    page.wait(lambda: not page.busy(), "Esc stops it too", 10)
    page.settings(max_tokens=12)
    page.all(".message.user .foot button")[3].click()  # Edit, of the second
    field = page.find(".message textarea")
    field.clear()
    field.send_keys("Say hello.\ue008\ue007\ue000twice")  # Shift+Enter
    check(field.get_attribute("value") == "Say hello.\ntwice", "Shift+Enter begins a line")
    field.send_keys("\n")
    page.wait(lambda: page.js("return current.messages.length") == 4 and not page.busy(), "an edited message is sent anew")
    check(page.js("return current.messages[2].content") == "Say hello.\ntwice", "with its new text")

    page.js("current.messages.push({role: 'user', content: 'Show all.'},"
            " {role: 'assistant', content: arguments[0], ends: [], chances: []}); save(current); drawLog()", HOSTILE)
    body = page.all(".message.assistant .body")[-1]
    html = page.js("return arguments[0].innerHTML", body)
    check("broken" not in page.driver.title, "markup of an answer does not run")
    check(not re.search(r"<(img|script)", html), "nor becomes markup")
    links = page.js("return [...arguments[0].querySelectorAll('a')].map((a) => a.href)", body)
    check(links == ["https://example.org/a_b_c", "https://example.org/p.png"], f"links go to the web alone: {links}")
    for tag in ("h3", "strong", "em", "code", "del", "ol > li > ul > li", "td > code", "pre > code"):
        check(page.js("return arguments[0].querySelector(arguments[1]) !== null", body, tag), f"markdown has {tag}")
    check("snake_case_name, 2 * 3 * 4" in body.text, "what is no emphasis stays")
    check(page.js("return arguments[0].querySelector('pre code').textContent", body) ==
          'def f(x):\n    return "<b>" + x', "code is taken as it stands")

    page.driver.refresh()
    page.wait(lambda: len(page.all("#list li")) == 1, "the conversation is there after a reload")
    page.find("#list .name").click()
    check(len(page.all(".message")) == 6, "with its messages")
    picture("markdown")


def look(page, picture):
    from selenium.webdriver.support.select import Select
    Select(page.find("#theme")).select_by_value("dark")
    check(page.js("return document.documentElement.dataset.theme") == "dark", "dark by the switch")
    picture("dark")
    Select(page.find("#theme")).select_by_value("system")
    for scheme in ("dark", "light"):
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        page.wait(lambda: page.js("return document.documentElement.dataset.theme") == scheme, f"{scheme} as the system has it", 5)
    page.find("#settings-open").click()
    picture("settings")
    page.find("#settings button[type=submit]").click()
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    time.sleep(0.3)
    check(page.js("return document.documentElement.scrollWidth") <= 390, "nothing is wider than a phone")
    check(page.js("return document.documentElement.scrollHeight") <= 844, "nor longer: the messages alone scroll")
    picture("phone")
    page.find("#menu").click()
    time.sleep(0.4)
    check(page.js("return document.activeElement.id") == "new", "the drawer takes the focus")
    picture("phone-list")
    page.driver.switch_to.active_element.send_keys("\ue00c")
    check(page.js("return document.activeElement.id") == "menu", "Esc closes it and gives the focus back")
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    time.sleep(0.3)


def tidy(page):
    names = page.js("return [...document.querySelectorAll('button, input, select, textarea')].filter((n) => n.type !== 'hidden'"
                    " && !(n.getAttribute('aria-label') || n.textContent.trim() || (n.labels && n.labels.length))).map((n) => n.outerHTML)")
    check(names == [], f"every control has a name: {names}")
    page.find("#list li.current .small").click()
    page.find("#list input").send_keys("A new name\n")
    check(page.find("#list .name").text == "A new name", "renamed")
    page.all("#list li.current .small")[1].click()
    page.driver.switch_to.alert.accept()
    page.wait(lambda: not page.all("#list li"), "deleted", 5)
    check(page.js("return Object.keys(localStorage).filter((k) => k.startsWith('quern.conversation')).length") == 0, "for good")


def unlock(driver, url):
    page = Page(driver, url)
    page.wait(lambda: page.find("#ask-key").is_displayed(), "the page asks for a key", 20)
    check(page.find("#model").text == "", "and tells nothing of the model before")
    page.find("#key").send_keys("wrong\n")
    page.wait(lambda: "does not know" in page.find("#key-error").text, "a wrong key is told", 20)
    page.find("#key").send_keys("right-key\n")
    page.wait(lambda: page.find("#model").text != "", "the right one opens", 20)
    check(page.js("return sessionStorage.getItem('quern.key')") == "right-key", "it is kept for the tab")
    page.driver.refresh()
    page.wait(lambda: page.find("#model").text != "", "and is not asked for again", 20)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quern", required=True)
    parser.add_argument("--model", required=True, help="a GGUF file with a chat template")
    parser.add_argument("--pictures", type=pathlib.Path, help="a folder for screenshots")
    options = parser.parse_args()
    chromium, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver_path:
        skip("no chromium and chromedriver here (Debian: chromium, chromium-driver)")
    try:
        from selenium import webdriver
    except ImportError:
        skip("no package selenium here (PyPI)")

    chrome = webdriver.ChromeOptions()
    chrome.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1180,800", "--force-device-scale-factor=1"):
        chrome.add_argument(argument)
    chrome.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(chrome, webdriver.ChromeService(driver_path))
    servers = []

    def picture(name):
        if options.pictures:
            options.pictures.mkdir(parents=True, exist_ok=True)
            driver.save_screenshot(str(options.pictures / f"{name}.png"))

    try:
        with tempfile.TemporaryDirectory() as folder:
            keys = pathlib.Path(folder) / "keys"
            keys.write_text("right-key\n")
            servers = [Server(options.quern, options.model), Server(options.quern, options.model, "--api-key-file", str(keys))]
            page = Page(driver, servers[0].url)
            talk(page, picture)
            look(page, picture)
            tidy(page)
            unlock(driver, servers[1].url)
            said = [entry["message"] for entry in driver.get_log("browser") if "401" not in entry["message"]]
            check(said == [], f"the browser complains of nothing: {said}")
    finally:
        driver.quit()
        for server in servers:
            server.end()


if __name__ == "__main__":
    main()
