"""What `configure` and `version` print."""

import re
from pathlib import Path

from click.testing import CliRunner

from console.__main__ import main
from shared.settings import MailgunSettings, Settings
from shared.settings_reading import load_settings


def example(tmp_path: Path) -> Path:
    printed = CliRunner().invoke(main, ["configure"])
    assert printed.exit_code == 0
    path = tmp_path / "example.toml"
    path.write_text(printed.output)
    return path


def test_the_example_is_a_configuration_that_loads(tmp_path: Path) -> None:
    settings = load_settings(example(tmp_path), {})
    assert settings.teleport is not None
    assert settings.smtp is not None
    assert settings.role_map()["*"]


def test_every_line_of_the_example_that_is_commented_out_may_be_put_in_with_the_other_relay(tmp_path: Path) -> None:
    path = example(tmp_path)
    text = re.sub(r"(?m)^# (?!Access|Lines)", "", path.read_text())
    path.write_text(re.sub(r"\[smtp\][^\[]*(?=\[delivery\])", "", text))
    settings = load_settings(path, {})
    assert settings.mailgun == MailgunSettings(domain="mg.example.com")
    assert (settings.log, settings.mailer) == (Settings().log, Settings().mailer)


def test_the_example_explains_every_key(tmp_path: Path) -> None:
    lines = example(tmp_path).read_text().splitlines()
    keys = [number for number, line in enumerate(lines) if re.match(r'(# )?[a-z"_*]+ = ', line)]
    unexplained = [lines[number] for number in keys if not lines[number - 1].startswith("## ")]
    assert unexplained == ['# "dba" = "dba@example.com"']


def test_version_names_product_version_commit_and_python() -> None:
    printed = CliRunner(env={"ACCESS_MAIL_COMMIT": "abc1234"}).invoke(main, ["version"])
    assert re.fullmatch(r"Access Mail \d+\.\d+\.\d+ \(abc1234\), Python 3\.\d+\.\d+\n", printed.output)


def test_wrong_use_is_exit_status_2() -> None:
    assert CliRunner().invoke(main, ["strat"]).exit_code == 2
