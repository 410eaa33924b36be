"""A guest's ssh server in this process: one user with one key, a real shell in a folder, with or without SFTP."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import paramiko


class Server(paramiko.ServerInterface):
    def __init__(self, guest: Guest) -> None:
        self.guest = guest

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        known = username == self.guest.user and key.get_base64() == self.guest.key.get_base64()
        return paramiko.AUTH_SUCCESSFUL if known else paramiko.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self.guest.execute, args=(channel, command.decode()), daemon=True).start()
        return True

    def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
        return self.guest.sftp and bool(super().check_channel_subsystem_request(channel, name))


class Guest:
    """`connect` gives a connection to its port 22."""

    def __init__(self, home: Path, *, sftp: bool = True, user: str = "admin", shell: tuple[str, ...] = ("sh",)) -> None:
        self.home = home
        self.sftp = sftp
        self.user = user
        self.shell = shell
        self.host_key: paramiko.PKey = paramiko.ECDSAKey.generate()
        self.key: paramiko.PKey = paramiko.ECDSAKey.generate()
        self.transports: list[paramiko.Transport] = []

    def connect(self, *_: Any) -> socket.socket:
        ours, theirs = socket.socketpair()
        transport = paramiko.Transport(theirs)
        transport.add_server_key(self.host_key)
        transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Files, str(self.home))
        self.transports.append(transport)
        transport.start_server(event=threading.Event(), server=Server(self))
        return ours

    def execute(self, channel: paramiko.Channel, command: str) -> None:
        process = subprocess.Popen(
            [*self.shell, "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.home,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), "LC_ALL": "C"},
        )

        def feed() -> None:
            assert process.stdin is not None
            with suppress(OSError), process.stdin:
                while data := channel.recv(65536):
                    process.stdin.write(data)
                    process.stdin.flush()

        def drain(pipe: Any, send: Any) -> None:
            with suppress(OSError), pipe:
                while data := os.read(pipe.fileno(), 65536):
                    send(data)

        threads = [
            threading.Thread(target=drain, args=(process.stdout, channel.sendall), daemon=True),
            threading.Thread(target=drain, args=(process.stderr, channel.sendall_stderr), daemon=True),
        ]
        threading.Thread(target=feed, daemon=True).start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        code = process.wait()
        with suppress(OSError, EOFError, paramiko.SSHException):  # the client may have gone
            channel.send_exit_status(code)
            channel.close()

    def close(self) -> None:
        for transport in self.transports:
            transport.close()


class Handle(paramiko.SFTPHandle):
    def stat(self) -> Any:
        return paramiko.SFTPAttributes.from_stat(os.fstat(self.readfile.fileno()))


class Files(paramiko.SFTPServerInterface):
    """Paths are the machine's own; relative ones begin in the guest's home."""

    def __init__(self, server: paramiko.ServerInterface, home: str) -> None:
        super().__init__(server)
        self._home = Path(home)
        self.extra_names: list[str] = []

    def _path(self, path: str) -> Path:
        return self._home / path

    def canonicalize(self, path: str) -> str:
        return str(self._path(path))

    def _status(self, path: str, follow: bool) -> Any:
        try:
            status = os.stat(self._path(path)) if follow else os.lstat(self._path(path))
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)
        return paramiko.SFTPAttributes.from_stat(status)

    def stat(self, path: str) -> Any:
        return self._status(path, True)

    def lstat(self, path: str) -> Any:
        return self._status(path, False)

    def chattr(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        os.chmod(self._path(path), attr.st_mode or 0)
        return paramiko.SFTP_OK

    def mkdir(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        self._path(path).mkdir()
        return paramiko.SFTP_OK

    def list_folder(self, path: str) -> Any:
        found = []
        for name in os.listdir(self._path(path)):
            found.append(paramiko.SFTPAttributes.from_stat(os.lstat(self._path(path) / name), name))
        if (self._home / "lie").exists():
            found.append(paramiko.SFTPAttributes.from_stat(os.lstat(self._home / "lie"), "../../escaped"))
        return found

    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> Any:
        try:
            descriptor = os.open(self._path(path), flags, 0o644)
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)
        handle = Handle(flags)
        file = os.fdopen(descriptor, "wb" if flags & os.O_WRONLY else "rb")
        handle.readfile = handle.writefile = file
        return handle
