"""A PostgreSQL server of a test's own: fresh, on a loopback port, gone when the test is."""

import os
import pwd
import random
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

PASSWORD = "hunter2-secret"
"""Such that a test can look for it in what must not show it."""

_USER = "study"
_START_SECONDS = 30
_STOP_SECONDS = 30
# Below the ports that outgoing connections are given: while the server is down, a client that
# tries again and again could otherwise be given the server's own port.
_PORTS = range(20_000, 32_000)
# What was committed outlives the server without fsync, though not the machine.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
}
# The server lives as long as the pipe from the test to this shell: also a test that is killed
# closes it. SIGQUIT stops at once; without the word, the folder goes too.
_KEEP = "keep"
_KEEPER = f"""
folder=$1; shift
"$@" & server=$!
read -r word
kill -QUIT $server
wait $server
[ "$word" = {_KEEP} ] || rm -rf "$folder"
"""


class MissingPostgresError(RuntimeError):
    """This machine has no PostgreSQL server, or nobody who may run it."""


class Postgres:
    """A cluster of its own, with password authentication; a context manager that starts it.

    Attributes:
        url: for SQLAlchemy; stays the same over `stop`, `start` and `restart`.
        port: on 127.0.0.1.
        log: the server's own.
    """

    def __init__(self, **settings: str) -> None:
        """Makes the cluster, without starting it.

        Args:
            settings: of postgresql.conf, such as `max_connections="10"`.

        Raises:
            MissingPostgresError: there is no server to run, or only root to run it.
        """
        self._bin = find_binaries()
        self._account = _account()
        self._settings = _SETTINGS | settings
        self._keeper: subprocess.Popen[str] | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="postgres_"))
        self.log = self._folder / "log"
        self.port = free_port()
        self.url = f"postgresql+psycopg://{_USER}:{PASSWORD}@127.0.0.1:{self.port}/postgres"
        self._make_cluster()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Starts the server, where it does not run, and waits until it answers."""
        if self._keeper is not None:
            return
        settings = [f"-c{name}={value}" for name, value in self._settings.items()]
        server = [str(self._bin / "postgres"), "-D", str(self._data), f"-p{self.port}", *settings]
        with self.log.open("a") as log:
            self._keeper = self._popen(["sh", "-c", _KEEPER, "-", str(self._folder), *server], log)
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline:
                text = self.log.read_text()
                self.close()
                raise RuntimeError(f"PostgreSQL did not start in {_START_SECONDS} s:\n{text}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stops the server as a crash would: connections are cut, transactions lost."""
        if self._keeper is not None:
            self._keeper.communicate(f"{_KEEP}\n", timeout=_STOP_SECONDS)
            self._keeper = None

    def restart(self) -> None:
        """Stops the server as a crash would and starts it on what it had stored."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stops the server and removes its folder."""
        self.stop()
        shutil.rmtree(self._folder)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _make_cluster(self) -> None:
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if self._account is not None:
            for path in (self._folder, password):
                os.chown(path, self._account.pw_uid, self._account.pw_gid)
        initdb = [
            str(self._bin / "initdb"), "--pgdata", str(self._data), "--username", _USER,
            "--auth", "scram-sha-256", "--pwfile", str(password), "--encoding", "UTF8",
            "--locale", "C", "--no-sync",
        ]  # fmt: skip
        with self.log.open("w") as log:
            made = self._popen(initdb, log).wait()
        if made != 0:
            text = self.log.read_text()
            shutil.rmtree(self._folder)
            raise RuntimeError(f"initdb failed:\n{text}")

    def _popen(self, command: list[str], log: IO[str]) -> subprocess.Popen[str]:
        account = self._account
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self._folder,
            start_new_session=True,  # Ctrl-C is the test's to answer
            user=account and account.pw_uid,
            group=account and account.pw_gid,
            extra_groups=account and [],
        )

    def _answers(self) -> bool:
        ready = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ready).returncode == 0


def find_binaries() -> Path:
    """The folder of the newest PostgreSQL server on this machine.

    Raises:
        MissingPostgresError: there is none.
    """
    folders = set(Path("/usr/lib/postgresql").glob("*/bin"))
    if config := shutil.which("pg_config"):
        told = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=True)
        folders.add(Path(told.stdout.strip()))
    complete = [
        folder
        for folder in folders
        if all((folder / name).is_file() for name in ("initdb", "postgres", "pg_isready"))
    ]
    if not complete:
        raise MissingPostgresError("PostgreSQL's server is not installed")
    return max(complete, key=_version)


def _version(folder: Path) -> tuple[int, ...]:
    told = subprocess.run([folder / "postgres", "-V"], capture_output=True, text=True, check=True)
    return tuple(int(number) for number in re.findall(r"\d+", told.stdout)[:2])


def _account() -> pwd.struct_passwd | None:
    """Who runs the server, which refuses root; None for whoever runs the test."""
    if os.geteuid() != 0:
        return None
    accounts = {account.pw_name: account for account in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in accounts:
            return accounts[name]
    raise MissingPostgresError("PostgreSQL's server refuses root, and there is no other user")


def free_port() -> int:
    """A port on 127.0.0.1 that stays free until it is taken: no outgoing connection is given it."""
    # Of the system's numbers: a test that seeds Python's would have those of every other one.
    for port in random.SystemRandom().sample(_PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port among {_PORTS}")
