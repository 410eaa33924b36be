"""A process that stays, and loads what it is told into nftables by nft's own library.

    controller -- a text, a namespace (its descriptor) --> this process -- libnftables --> the kernel
               <-- what it printed, or complained of ------

The `nft` program costs 3 ms of a processor each time, nearly all of it to begin; the library does the same work in a
seventh of a millisecond. It does it here and not in the controller because it ends its process when it gets no socket
or no memory, because nothing but a kill ends a call that hangs, and because no two threads may be in it at once.

Run by its path, with nothing but the standard library: it is to begin fast. Between two texts it is in a namespace of
its own, so that it keeps nobody's alive. It ends when the controller's end of its socket does.
Source: libnftables(3).
"""

import ctypes
import os
import signal
import socket
import struct

REQUEST = struct.Struct("=II")  # of the text: octets, and flags for its output
ANSWER = struct.Struct("=II")  # 0 for done, and octets of what it says

_SONAME = "libnftables.so.1"  # of every nftables since 0.9.0
_CLONE_NEWNET = 0x40000000


class Library:
    def __init__(self) -> None:
        nft = ctypes.CDLL(_SONAME)
        context = ctypes.c_void_p
        nft.nft_ctx_new.argtypes, nft.nft_ctx_new.restype = [ctypes.c_uint32], context
        nft.nft_ctx_output_set_flags.argtypes = [context, ctypes.c_uint]
        nft.nft_run_cmd_from_buffer.argtypes = [context, ctypes.c_char_p]
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(nft, name).argtypes, getattr(nft, name).restype = [context], ctypes.c_char_p
        for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
            getattr(nft, name).argtypes = [context]
        self._nft = nft

    def run(self, text: bytes, flags: int) -> tuple[int, bytes]:
        """In the namespace that this process is in: a context opens its socket when it is made."""
        nft = self._nft
        context = nft.nft_ctx_new(0)
        try:
            nft.nft_ctx_output_set_flags(context, flags)
            if nft.nft_ctx_buffer_output(context) or nft.nft_ctx_buffer_error(context):
                return 1, b"libnftables has no memory for its output"
            if nft.nft_run_cmd_from_buffer(context, text):
                return 1, nft.nft_ctx_get_error_buffer(context) or b"libnftables does not say why"
            return 0, nft.nft_ctx_get_output_buffer(context) or b""
        finally:
            nft.nft_ctx_free(context)


def serve(controller: socket.socket) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(namespace: int) -> None:
        if libc.setns(namespace, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "a network namespace cannot be entered")

    if libc.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "a network namespace cannot be made")
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    library = Library()
    while True:
        head, handles, _, _ = socket.recv_fds(controller, REQUEST.size, 1, socket.MSG_WAITALL)
        if len(head) < REQUEST.size:
            return
        octets, flags = REQUEST.unpack(head)
        [namespace] = handles
        try:
            text = controller.recv(octets, socket.MSG_WAITALL)
            if len(text) < octets:
                return
            enter(namespace)
        finally:
            os.close(namespace)
        try:
            code, told = library.run(text, flags)
        finally:
            enter(own)
        controller.sendall(ANSWER.pack(code, len(told)) + told)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the controller, which has more to load
    serve(socket.socket(fileno=0))
