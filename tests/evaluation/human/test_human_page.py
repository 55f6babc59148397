"""The page in a real headless Chromium: answered by keyboard, reloaded, saved, and what was saved is scored.

Skipped where there is no Chromium (`make test` installs Debian's); under CI=true that is a failure.
"""

import json
import os
import shutil
import time

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from commands.human_eval import HumanEvalExport, HumanEvalScore
from evaluation.human.page import REAL

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=900,700",
)  # fmt: skip
NASTY = '</script><script>document.title = "broken"</script><b>&amp;\u2028<!--'
STRAY = ("Person", "partner", "reply", "back", "next")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if not (chromium and chromedriver):
        reason = "no chromium or no chromedriver on this machine (Debian: apt-get install chromium chromium-driver)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(chromedriver))
    yield driver
    driver.quit()


@pytest.fixture
def page(tmp_path):
    """Exports a page about five people: a choice of two and two rated replies of each, 15 questions."""

    def make(language="en"):
        path = tmp_path / "predictions.jsonl"
        with path.open("w") as file:
            for user in range(5):
                for pair in range(6):
                    record = {"user": f"u{user}", "pair_id": pair, "nll": None, "tokens": None}
                    record["context"] = [["partner", NASTY], ["speaker", "猫"]] if pair % 2 else []
                    record |= {"reference": f"really {user} {pair}", "candidates": [NASTY if pair % 3 else ""]}
                    file.write(json.dumps(record) + "\n")
        settings = {"choices_per_user": 1, "num_examples": 2, "language": language}
        HumanEvalExport({"base": path}, tmp_path / language, 5, **settings).run()
        return tmp_path / language

    return make


def press(browser, *keys):
    ActionChains(browser).send_keys(*keys).perform()


def text(browser, id):
    return browser.find_element(By.ID, id).text


def chosen(browser):
    return [field.get_attribute("value") for field in browser.find_elements(By.CSS_SELECTOR, "main input:checked")]


def saved_file(folder):
    for _ in range(100):
        if found := list(folder.glob("answers-*.json")):
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"nothing was saved in {folder}")


def test_answered_by_keyboard_reloaded_saved_and_scored(browser, page, tmp_path):
    folder = page()
    key = json.loads((folder / "key.json").read_text())
    real = [item["replies"].index([REAL]) + 1 for item in key["items"].values() if item["task"] == "choice"]
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.get(f"file://{folder}/page.html")
    assert browser.title == "Who wrote this?"
    press(browser, Keys.ENTER)
    assert text(browser, "message") == "Please enter your name or code first."
    press(browser, "Änn 1", Keys.ENTER)
    assert text(browser, "count") == "0 of 15 answered"

    press(browser, Keys.ARROW_RIGHT)  # not without an answer
    assert text(browser, "message") == "Please choose a reply first."
    press(browser, "9")
    assert chosen(browser) == []  # there is no such reply
    for number in real[:3]:
        press(browser, str(3 - number), str(number))  # another one first
        assert chosen(browser) == [str(number)]
        press(browser, Keys.ENTER)
    assert (text(browser, "count"), text(browser, "part")) == ("3 of 15 answered", "Part 1, question 4")

    browser.refresh()
    assert (text(browser, "count"), text(browser, "part")) == ("3 of 15 answered", "Part 1, question 4")
    press(browser, Keys.ARROW_LEFT)
    assert chosen(browser) == [str(real[2])]
    press(browser, str(real[2]))
    focus = browser.switch_to.active_element.find_element(By.XPATH, "..")
    assert focus.get_attribute("className") == "option" and focus.value_of_css_property("outline-style") == "solid"
    press(browser, Keys.ARROW_RIGHT, str(real[3]), Keys.ARROW_RIGHT, str(3 - real[4]), Keys.ENTER)

    assert text(browser, "part") == "Part 2, question 6"
    press(browser, "4", Keys.ENTER)
    assert text(browser, "message") == "Please give both marks first."
    press(browser, "2")
    assert chosen(browser) == ["4", "2"]
    press(browser, Keys.ARROW_UP, "3")
    assert chosen(browser) == ["3", "2"]
    for _ in range(9):
        press(browser, Keys.ENTER, "3", "2")
    press(browser, Keys.ENTER)
    assert text(browser, "count") == "15 of 15 answered"
    press(browser, Keys.ENTER)

    file = saved_file(tmp_path)
    assert file.name == f"answers-{key['page'][:6]}-Änn-1.json"
    answers = json.loads(file.read_text())
    assert (answers["annotator"], answers["page"]) == ("Änn 1", key["page"])
    assert all(answer["time"] and answer["seconds"] >= 0 for answer in answers["answers"])
    HumanEvalScore(folder / "key.json", [file], num_resamples=200).run()
    (row,) = [line for line in (folder / "table.md").read_text().splitlines() if line.startswith("| real reply")]
    assert row.split("|")[2].startswith(" 80.0 [")  # 4 of 5
    assert [cell.strip() for cell in row.split("|")[4:6]] == ["3.00 [3.00, 3.00]", "2.00 [2.00, 2.00]"]
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.get_log("browser") == []

    browser.find_element(By.ID, "restart").click()
    browser.switch_to.alert.accept()
    assert text(browser, "count") == "0 of 15 answered"
    assert browser.find_element(By.ID, "name").get_attribute("value") == ""


def test_texts_are_shown_as_they_are(browser, page):
    folder = page()
    browser.get(f"file://{folder}/page.html")
    press(browser, "ann", Keys.ENTER)
    seen = set()
    for _ in range(5):
        seen |= {field.get_attribute("textContent") for field in browser.find_elements(By.CSS_SELECTOR, ".said")}
        press(browser, "1", Keys.ENTER)
    assert {NASTY, "猫", "(an empty reply)"} <= seen
    assert browser.title == "Who wrote this?"


def test_japanese_and_narrow(browser, page):
    """Every word of the page is Japanese, and nothing is wider than a phone."""
    folder = page("ja")
    size = {"width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(f"file://{folder}/page.html")
    try:
        assert browser.find_element(By.TAG_NAME, "html").get_attribute("lang") == "ja"
        words = browser.find_element(By.TAG_NAME, "body").text
        press(browser, "あん", Keys.ENTER)
        for keys in (["1", Keys.ENTER], *[["1", "1", Keys.ENTER]] * 14):
            words += browser.find_element(By.TAG_NAME, "body").text.replace(NASTY, "")
            assert browser.execute_script("return document.documentElement.scrollWidth") == 320
            press(browser, *keys)
        words += browser.find_element(By.TAG_NAME, "body").text
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    for word in STRAY:
        assert word not in words
    for word in ("人物1", "相手", "次へ", "この返事をどう思いますか？", "（空の返事）", "すべて回答しました"):
        assert word in words
