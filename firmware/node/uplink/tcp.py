# A TCP connection, TLS over it if wanted. Every wait has an end: micropython-lib's clients block
# for ever on a server that has gone quiet (micropython-lib#103).

import errno
import select
import socket
import time

from micropython import const

_HEAD = const(40)  # of IPv4 and TCP around each segment
_OPEN = const(280)  # seven of them: to open and close
_SECURE = const(2000)  # TLS with certificates on P-256, measured: docs/gateway.md
_TCP, _NODELAY = const(6), const(1)  # the same on all ports, and named on few


class Tcp:
    def __init__(self, host, port, ms, ca=None):
        """Connect within `ms`. `ca`: certificate (DER) of who must have signed the server's."""
        self._until = time.ticks_add(time.ticks_ms(), ms)
        self.carried = _OPEN + (_SECURE if ca else 0)  # bytes, both ways
        self._broken = errno.ECONNREFUSED
        self._socket = socket.socket()
        self._poll = select.poll()
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(_TCP, _NODELAY, 1)  # what is sent is sent whole
            # A name is looked up with the port's own patience: an address is better.
            address = socket.getaddrinfo(host, port)[0][-1]
            try:
                self._socket.connect(address)
            except OSError as error:
                if error.errno != errno.EINPROGRESS:
                    raise
            if ca is None:
                self._poll.register(self._socket, select.POLLOUT)
            else:
                self._secure(host, ca)
            if not self._wait(select.POLLOUT):
                raise OSError(errno.ETIMEDOUT)
            self._broken = errno.ECONNRESET
        except BaseException:
            self.close()
            raise

    def _secure(self, host, ca):
        import tls  # what micropython-lib's ssl.py wraps

        self._poll.register(self._socket, select.POLLOUT)
        if not self._wait(select.POLLOUT):
            raise OSError(errno.ETIMEDOUT)
        self._poll.unregister(self._socket)
        context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        context.verify_mode = tls.CERT_REQUIRED
        try:
            context.load_verify_locations(ca)
        except ValueError:
            raise OSError(errno.EINVAL)
        # The handshake goes on with the first write, which has a deadline.
        self._socket = context.wrap_socket(self._socket, server_hostname=host,
                                           do_handshake_on_connect=False)
        self._poll.register(self._socket, select.POLLOUT)

    def _wait(self, flag):
        """Until it can be read or written; False when it is too late."""
        left_ms = time.ticks_diff(self._until, time.ticks_ms())
        if left_ms <= 0:
            return False
        self._poll.modify(self._socket, flag)
        found = self._poll.poll(left_ms)
        if found and found[0][1] & select.POLLERR:
            raise OSError(self._broken)
        return bool(found)

    def read(self, view, ms):
        """Fill `view`; return how much of it came within `ms`."""
        self._until = time.ticks_add(time.ticks_ms(), ms)
        got = 0
        while got < len(view):
            count = self._socket.readinto(view[got:])
            if count:
                got += count
            elif count == 0:
                raise OSError(errno.ECONNRESET)
            elif not self._wait(select.POLLIN):
                break
        self.carried += got and got + _HEAD
        return got

    def write(self, view, ms):
        """All of it within `ms`, or an OSError."""
        self._until = time.ticks_add(time.ticks_ms(), ms)
        self.carried += len(view) + _HEAD
        while len(view):
            try:
                count = self._socket.write(view)
            except ValueError:  # how mbedtls says whose certificate it does not trust
                raise OSError(errno.EACCES)
            if count:
                view = view[count:]
            elif not self._wait(select.POLLOUT):
                raise OSError(errno.ETIMEDOUT)

    def close(self):
        try:
            self._socket.close()
        except OSError:
            pass
