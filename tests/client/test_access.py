"""How the client gets in: what is asked of the settings, and what wins where several say something."""

from __future__ import annotations

import argparse
import stat
from pathlib import Path

import grpc
import pytest

from client.api import DEFAULT_REFINE_URL, DEFAULT_URL, Inverter
from client.cli import main, parse, parser
from client.errors import ParameterError
from client.wire.access import SIDECAR_HEADER, TRITON_HEADER, Access, denied, is_closed, token_of
from client.wire.settings import NAMES, Endpoints, endpoints
from server.errors import SecretsError
from server.secrets import SERVER, make, triton_arguments
from sidecar.service.door import Door, ServeError


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets") / "made"
    make(folder, ["triton.example", "10.0.0.7"])
    return folder


def asked(*arguments: str, **environment: str) -> Endpoints:
    _, _, options = parse(["status", *arguments])
    return endpoints(vars(options.server), {"HOME": "/nowhere", **environment})


def test_without_anything_there_are_defaults() -> None:
    found = asked()
    assert (found.url, found.refine_url, found.access) == (DEFAULT_URL, DEFAULT_REFINE_URL, Access())
    assert found.access.credentials() is None
    assert not found.access.triton_headers()
    assert not found.access.sidecar_metadata()


def test_an_option_wins_over_a_variable_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "client.toml").write_text('url = "file:1"\nrefine-url = "file:2"\ntls-ca = "ca.crt"\ntoken = "of-file"')
    file = str(tmp_path / "client.toml")
    assert asked("--config", file).url == "file:1"
    assert asked("--config", file, UNALIGNED_URL="variable:1").url == "variable:1"
    found = asked("--config", file, "--url", "option:1", UNALIGNED_URL="variable:1", UNALIGNED_TOKEN="of-variable")
    assert (found.url, found.refine_url) == ("option:1", "file:2")
    assert found.access == Access(ca=tmp_path / "ca.crt", token="of-variable")
    # Empty is as unset.
    assert asked(UNALIGNED_CONFIG=file, UNALIGNED_URL="").url == "file:1"


def test_the_file_has_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "unaligned"
    folder.mkdir()
    (folder / "client.toml").write_text('url = "file:1"\ntls = true')
    assert asked(XDG_CONFIG_HOME=str(tmp_path)).url == "file:1"
    assert asked(XDG_CONFIG_HOME=str(tmp_path)).access.secure
    assert not asked(XDG_CONFIG_HOME=str(tmp_path), UNALIGNED_TLS="0").access.secure
    (tmp_path / ".config").symlink_to(tmp_path)
    assert asked(HOME=str(tmp_path)).url == "file:1"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("url = 1", "invalid url in .*: expected a string"),
        ('tls = "yes"', "invalid tls in .*: expected true or false"),
        ("strength = 3", "unknown setting `strength` in"),
        ("url", "not TOML"),
        ("\x00", "not TOML"),
    ],
)
def test_a_file_that_says_something_else_is_refused(content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(content)
    with pytest.raises(ParameterError, match=sentence):
        asked("--config", str(tmp_path / "c.toml"))


def test_a_file_that_was_named_must_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--config", str(tmp_path / "none.toml")]) == 2
    assert capsys.readouterr().err.endswith("none.toml`: the file does not exist\n")
    with pytest.raises(ParameterError, match="invalid UNALIGNED_TLS `perhaps`: expected 1 or 0"):
        asked(UNALIGNED_TLS="perhaps")


def test_a_token_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of-file\n")
    assert token_of("plain") == "plain"
    assert asked("--token", f"@{tmp_path / 'token'}").access.token == "of-file"
    # Beside the configuration.
    (tmp_path / "c.toml").write_text('token = "@token"')
    assert asked("--config", str(tmp_path / "c.toml")).access.token == "of-file"
    with pytest.raises(ParameterError, match=r"cannot read .*none`: the file does not exist"):
        token_of(f"@{tmp_path / 'none'}")
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    with pytest.raises(ParameterError, match=r"cannot read a token from .*: not text"):
        token_of(f"@{tmp_path / 'token'}")


@pytest.mark.parametrize("token", ["", "two\nlines", "\N{SNOWMAN}", "x" * 4097])
def test_a_token_that_cannot_be_sent_is_refused(token: str) -> None:
    with pytest.raises(ParameterError, match="printable ASCII"):
        Access(token=token)


def test_a_token_leaves_this_machine_by_tls_only() -> None:
    with pytest.raises(ParameterError, match="a token needs TLS on the way to another machine"):
        Inverter("triton.example:8001", access=Access(token="secret"))
    with pytest.raises(ParameterError, match="a token needs TLS on the way to another machine"):
        Inverter("127.0.0.1:8001", refine_url="sidecar.example:8003", access=Access(token="secret"))
    Inverter("127.0.0.1:8001", access=Access(token="secret")).close()
    Inverter("triton.example:8001", refine_url="s:1", access=Access(token="secret", tls=True)).close()


def test_a_token_is_in_no_message() -> None:
    access = Access(token="secret-token", tls=True)
    assert "secret-token" not in repr(access)
    assert access.triton_headers() == {TRITON_HEADER: "secret-token"}
    assert access.sidecar_metadata() == ((SIDECAR_HEADER, "Bearer secret-token"),)


@pytest.mark.parametrize("name", ["certificate", "key"])
def test_a_certificate_and_its_key_go_together(name: str) -> None:
    with pytest.raises(ParameterError, match="needs its key"):
        Access(**{name: Path("a.pem")})


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 100, b"x" * (2**20 + 1)])
def test_files_that_are_no_certificates_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(content)
    with pytest.raises(ParameterError, match=r"not a PEM file$|larger than 1 MiB$"):
        Inverter("a:1", access=Access(ca=tmp_path / "ca.crt"))
    with pytest.raises(ParameterError, match="cannot read"):
        Access(ca=tmp_path / "none").credentials()


def test_credentials_are_made_of_the_files(secrets: Path) -> None:
    client = secrets / "client"
    found = asked("--config", str(client / "client.toml")).access
    assert found == Access(
        ca=client / "ca.crt",
        certificate=client / "tls.crt",
        key=client / "tls.key",
        token=(client / "token").read_text(),
    )
    assert isinstance(found.credentials(), grpc.ChannelCredentials)


def test_every_setting_has_an_option_and_a_variable() -> None:
    options = {action.dest for action in parser()._subparsers._group_actions[0].choices["invert"]._actions}  # type: ignore[union-attr,index,call-overload]
    assert {name.replace("-", "_") for name in NAMES} <= options
    assert list(NAMES.values()) == [f"UNALIGNED_{name.upper().replace('-', '_')}" for name in NAMES]
    assert isinstance(parser(), argparse.ArgumentParser)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            "This protocol is restricted, expecting header 'triton-grpc-protocol-unaligned-token'",
            "rejected the token, or wants one",
        ),
        ("Tls handshake failed: CERTIFICATE_VERIFY_FAILED", "is not signed by a trusted CA"),
        ("Ssl handshake failed: WRONG_VERSION_NUMBER", "does not use TLS"),
        ("handshake failed: Hostname Verification Check failed.", "is for another host"),
        ("handshake failed: else", "the TLS handshake with the server at here:1 failed"),
    ],
)
def test_what_grpc_says_of_trust_becomes_a_sentence(message: str, sentence: str) -> None:
    found = denied(message, "here:1")
    assert found is not None
    assert sentence in str(found)


def test_a_dead_server_is_no_matter_of_trust() -> None:
    assert denied("failed to connect to all addresses; Connection refused", "here:1") is None
    assert is_closed("failed to connect to all addresses; last error: UNAVAILABLE: Socket closed")
    assert not is_closed("Socket closed")


def test_secrets_are_whole_and_private(secrets: Path) -> None:
    assert sorted(path.name for path in (secrets / "server").iterdir()) == sorted(SERVER)
    assert sorted(path.name for path in (secrets / "client").iterdir()) == [
        "ca.crt",
        "client.toml",
        "tls.crt",
        "tls.key",
        "token",
    ]
    for path in secrets.rglob("*"):
        private = path.name.endswith((".key", "token")) or path.is_dir()
        assert bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)) is not private
    assert (secrets / "server/token").read_text() != (secrets / "server/admin-token").read_text()
    with pytest.raises(SecretsError, match="is not empty"):
        make(secrets)
    with pytest.raises(SecretsError, match="is not a host name or an address"):
        make(secrets.parent / "other", ["b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher"])


def test_tritons_options_are_filled_in(secrets: Path) -> None:
    arguments = triton_arguments(secrets / "server")
    assert not [argument for argument in arguments if "@" in argument or not argument.startswith("--")]
    token = (secrets / "server/token").read_text()
    assert f"--grpc-restricted-protocol=inference,metadata,model-config:unaligned-token={token}" in arguments
    assert f"--grpc-server-key={secrets / 'server/tls.key'}" in arguments
    assert "--model-control-mode=none" in arguments
    assert "--allow-http=false" in arguments


@pytest.mark.parametrize("name", SERVER)
def test_secrets_that_are_not_whole_are_refused(name: str, secrets: Path, tmp_path: Path) -> None:
    for path in (secrets / "server").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_text("\n")
    with pytest.raises(SecretsError, match=f"/{name}` is empty"):
        triton_arguments(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(SecretsError, match=f"cannot read the secret `.*/{name}`: No such file"):
        triton_arguments(tmp_path)
    if name != "admin-token":
        with pytest.raises(ServeError, match=f"(?i)cannot read `.*/{name}`: No such file"):
            Door.locked(tmp_path)


def test_a_token_that_would_break_tritons_options_is_refused(secrets: Path, tmp_path: Path) -> None:
    for path in (secrets / "server").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "token").write_text("a,b")
    with pytest.raises(SecretsError, match="cannot use the token in"):
        triton_arguments(tmp_path)
