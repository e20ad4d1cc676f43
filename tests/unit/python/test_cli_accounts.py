"""init, device and user: answers, errors and exit codes, with no secret where it may be seen."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from casemate.cli.app import execute, main
from casemate.home import Home

SECRET = "correct-horse-battery-staple-7"
PHRASE = "three unrelated words"


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("CASEMATE_HOME", raising=False)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    Home.init(tmp_path / "home")
    return tmp_path / "home"


class Spoken:
    """Runs commands and keeps what they say."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str | Path) -> tuple[int, str, str]:
        code = execute([str(word) for word in words])
        said = self._capsys.readouterr()
        return code, said.out, said.err


@pytest.fixture
def casemate(capsys: pytest.CaptureFixture[str]) -> Spoken:
    return Spoken(capsys)


def test_init_prints_every_path_the_fingerprint_and_what_to_type_next(
    casemate: Spoken, tmp_path: Path
) -> None:
    folder = tmp_path / "home"
    code, out, err = casemate("init", "--home", folder, "--name", "broker.example")
    assert (code, err) == (0, "")
    for path in folder.rglob("*"):
        assert path.is_dir() or f"{path}\n" in out
    assert Home.open(folder).authority().fingerprint in out
    assert "broker.example" in out
    assert f"casemate device add thermostat-7 --role sensor --home {folder}" in out
    assert "password" not in out


def test_init_answers_in_json(casemate: Spoken, tmp_path: Path) -> None:
    code, out, _ = casemate("init", "--home", tmp_path / "home", "--generate", "--json")
    assert code == 0
    said = json.loads(out)
    assert set(said) == {
        "home", "paths", "fingerprint_sha256", "operator", "server_names", "keys_encrypted",
        "password",
    }  # fmt: skip
    with Home.open(tmp_path / "home").accounts() as store:
        assert store.verify("operator", said["password"])


def test_init_refuses_to_overwrite(casemate: Spoken, home: Path) -> None:
    code, out, err = casemate("init", "--home", home)
    assert (code, out) == (1, "")
    assert err.startswith("error: there is a home")
    assert err.splitlines()[1].startswith("hint: ")


def test_init_encrypts_the_keys_with_a_passphrase(casemate: Spoken, tmp_path: Path) -> None:
    phrase = tmp_path / "phrase"
    phrase.write_text(PHRASE + "\n")
    home = tmp_path / "home"
    assert casemate("init", "--home", home, "--passphrase-file", phrase)[0] == 0
    device = ("device", "add", "t7", "--role", "sensor", "--home", home)
    code, _, err = casemate(*device)
    assert code == 1
    assert "--passphrase-file" in err
    assert casemate(*device, "--passphrase-file", phrase)[0] == 0
    assert casemate("init", "--encrypt", "--passphrase-file", phrase)[0] == 2


def test_a_device_is_added_listed_and_removed(casemate: Spoken, home: Path) -> None:
    code, out, _ = casemate("device", "add", "t7", "--role", "sensor", "--home", home)
    assert code == 0
    for file in ("client.crt", "client.key", "ca.crt"):
        assert str(home / "identities" / "t7" / file) in out
    _, out, _ = casemate("device", "list", "--home", home, "--json")
    (listed,) = json.loads(out)
    assert (listed["name"], listed["roles"], listed["disabled"]) == ("t7", ["sensor"], False)
    assert len(listed["fingerprints"]) == 1
    _, out, _ = casemate("device", "list", "--home", home)
    assert "t7" in out
    assert "operator" not in out
    code, out, _ = casemate("device", "remove", "t7", "--home", home, "--json")
    assert (code, json.loads(out)) == (0, {"removed": "t7"})
    assert json.loads(casemate("device", "list", "--home", home, "--json")[1]) == []
    assert casemate("device", "remove", "t7", "--home", home)[0] == 1


def test_device_add_says_in_json_what_it_made(casemate: Spoken, home: Path) -> None:
    _, out, _ = casemate("device", "add", "t7", "--role", "sensor", "--home", home, "--json")
    said = json.loads(out)
    assert Path(said["key"]).is_file()
    assert "PRIVATE" not in out


def test_a_user_is_added_listed_changed_and_removed(
    casemate: Spoken, home: Path, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    add = ("user", "add", "ann", "--role", "console", "--role", "operator", "--home", home)
    code, out, err = casemate(*add, "--password-file", file)
    assert (code, err) == (0, "")
    assert SECRET not in out
    with Home.open(home).accounts() as store:
        assert store.verify("ann", SECRET).roles == ("console", "operator")
    (ann, operator) = json.loads(casemate("user", "list", "--home", home, "--json")[1])
    assert (ann["name"], ann["password"], ann["certificates"]) == ("ann", True, 0)
    assert (operator["name"], operator["password"]) == ("operator", False)
    _, out, _ = casemate("user", "passwd", "ann", "--generate", "--home", home, "--json")
    with Home.open(home).accounts() as store:
        assert store.verify("ann", json.loads(out)["password"])
    assert casemate("user", "remove", "ann", "--home", home)[0] == 0
    assert "ann" not in casemate("user", "list", "--home", home)[1]


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_password_is_read_from_stdin(
    casemate: Spoken, home: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((SECRET + ending).encode())))
    code, *_ = casemate(
        "user", "add", "ann", "--role", "console", "--password-stdin", "--home", home
    )
    assert code == 0
    with Home.open(home).accounts() as store:
        assert store.verify("ann", SECRET)


class Terminal(io.StringIO):
    """Is a stdin at which somebody seems to sit."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answers", "code"), [([SECRET, SECRET], 0), (["a", "b"] * 9, 1)])
def test_a_password_is_asked_for_twice(
    casemate: Spoken, home: Path, monkeypatch: pytest.MonkeyPatch, answers: list[str], code: int
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal())
    left = list(answers)

    def answer(_prompt: str = "", **_: object) -> str:
        if not left:
            raise EOFError
        return left.pop(0)

    monkeypatch.setattr("typer._click.termui.hidden_prompt_func", answer)
    found, out, err = casemate("user", "add", "ann", "--role", "console", "--home", home)
    assert found == code
    assert len(answers) - len(left) == (2 if code == 0 else 18)
    assert SECRET not in out + err


def test_no_option_takes_a_password_on_the_command_line(casemate: Spoken) -> None:
    """Mosquitto's `-b`: everybody on the machine could read it, and one slip made it the name."""
    for command in (("user", "add"), ("user", "passwd"), ("init",), ("device", "add")):
        _, out, _ = casemate(*command, "--help")
        assert "--password " not in out.replace("--password-", "")
        assert casemate(*command, "ann", "--password", SECRET)[0] == 2


@pytest.mark.parametrize("password", ["", "short", "ann-ann-ann", "password123"])
def test_mosquitto_passwd_b_a_weak_password_is_refused(
    casemate: Spoken, home: Path, tmp_path: Path, password: str
) -> None:
    file = tmp_path / "secret"
    file.write_text(password)
    words = ("user", "add", "ann", "--role", "console", "--password-file", file, "--home", home)
    code, out, err = casemate(*words)
    assert (code, out) == (1, "")
    assert err.startswith("error: the password")


@pytest.mark.parametrize(
    "words",
    [
        ("nothing",),
        ("user", "add", "ann"),
        ("device", "add", "t7"),
        ("device", "add", "--role", "sensor"),
        ("device", "add", "t7", "--role", "sensor", "--days", "0"),
        ("device", "list", "--frobnicate"),
        ("user", "passwd", "operator", "--password-stdin", "--generate", "--home", "{home}"),
        ("user", "add", "ann", "--role", "console", "--home", "{home}"),
        ("user",),
        (),
    ],
)
def test_a_wrong_command_line_ends_with_2(
    casemate: Spoken, home: Path, words: tuple[str, ...]
) -> None:
    code, _, err = casemate(*(word.replace("{home}", str(home)) for word in words))
    assert code == 2
    if words and words != ("user",):
        first, second = err.splitlines()
        assert first.startswith("error: ")
        assert second.startswith("hint: ")


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (("device", "add", "t7", "--role", "senser"), 3, "unknown-role"),
        (("device", "add", "a/#", "--role", "sensor"), 1, "name-refused"),
        (("device", "add", "operator", "--role", "sensor"), 1, "account-exists"),
        (("device", "remove", "operator"), 1, "unknown-account"),
        (("user", "remove", "nobody"), 1, "unknown-account"),
        (("user", "passwd", "nobody", "--generate"), 1, "unknown-account"),
        (("user", "passwd", "operator", "--password-file", "/nowhere"), 3, "configuration"),
    ],
)
def test_each_failure_has_its_code_in_json_too(
    casemate: Spoken, home: Path, words: tuple[str, ...], code: int, kind: str
) -> None:
    found, out, err = casemate(*words, "--home", home, "--json")
    assert (found, out) == (code, "")
    said = json.loads(err)["error"]
    assert said["code"] == kind
    assert set(said) == {"code", "message", "hint"}


def test_without_a_home_the_exit_code_is_3(casemate: Spoken, tmp_path: Path) -> None:
    for words in (("user", "list"), ("device", "add", "t7", "--role", "sensor")):
        code, _, err = casemate(*words, "--home", tmp_path)
        assert code == 3
        assert "casemate init" in err


def test_a_broken_policy_or_an_exposed_home_ends_with_3(casemate: Spoken, home: Path) -> None:
    add = ("device", "add", "t7", "--role", "sensor", "--home", home)
    (home / "policy.toml").write_text("# nothing\n")
    code, _, err = casemate(*add)
    assert code == 3
    assert "policy.toml" in err
    (home / "accounts.db").chmod(0o644)
    code, _, err = casemate(*add)
    assert code == 3
    assert "chmod 600" in err


def test_the_home_is_the_environment_s_or_the_folder(
    casemate: Spoken, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CASEMATE_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    assert casemate("user", "list")[0] == 0
    monkeypatch.delenv("CASEMATE_HOME")
    assert casemate("user", "list")[0] == 3
    monkeypatch.chdir(home)
    assert casemate("user", "list")[0] == 0


def test_no_message_can_steer_the_terminal(casemate: Spoken, home: Path, tmp_path: Path) -> None:
    for name in ("\x1b[2J", "a\nerror: forged", "\x9b31m"):
        _, _, err = casemate("device", "add", name, "--role", "sensor", "--home", home)
        assert all(line.isprintable() for line in err.splitlines())
        assert len(err.splitlines()) == 2
        _, _, err = casemate("user", "list", "--home", tmp_path / name)
        assert all(line.isprintable() for line in err.splitlines())
        assert len(err.splitlines()) == 2


@pytest.mark.parametrize(("content", "words"), [(b"\xff\xfe", "UTF-8"), (b"x" * 5_000, "longer")])
def test_a_file_that_is_no_secret_is_refused_without_being_shown(
    casemate: Spoken, home: Path, tmp_path: Path, content: bytes, words: str
) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    code, _, err = casemate("user", "passwd", "operator", "--password-file", file, "--home", home)
    assert code == 3
    assert words in err
    assert "xxxx" not in err
    assert "xff" not in err


def test_main_ends_the_process_with_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    for words, code in ((["--version"], 0), (["nothing"], 2)):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == code
    assert "casemate 0" in capsys.readouterr().out


def test_the_accounts_need_no_engine() -> None:
    import subprocess

    program = (
        "import sys; sys.modules['casemate._engine'] = None\n"
        "from casemate.home import Home\nimport casemate.cli.app\n"
        "import casemate.errors, casemate.identity, casemate.policy, casemate.pki\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(Path(__file__).parents[3] / "python"), "PATH": ""},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
