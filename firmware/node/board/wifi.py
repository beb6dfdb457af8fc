# Wi-Fi on ESP32, imported by the wakes that report. It is joined soon: the address is given, the
# access point remembered.
# Looking for it takes two seconds, DHCP one or more, and each second of it 0.45 J.

import json
import os
import time

import network
from micropython import const

from node.uplink.mqtt import Mqtt
from node.uplink.tcp import Tcp

_FILE = "ap.json"  # of the access point joined last: name, number (hex) and channel
_JOIN_MS = const(8000)
_HOPELESS = (network.STAT_NO_AP_FOUND, network.STAT_WRONG_PASSWORD)


def espnow(channel):
    """The radio for ESP-NOW, on; nothing is joined, so no time is lost."""
    import espnow

    wlan = network.WLAN(network.WLAN.IF_STA)
    wlan.active(True)
    wlan.config(channel=channel)
    radio = espnow.ESPNow()
    radio.active(True)
    return radio


def join(where, hurry):
    """Join the network of network.json; False if that can't be done. `hurry()` may raise."""
    wlan = network.WLAN(network.WLAN.IF_STA)
    wlan.active(True)
    if "address" in where:  # [own, mask, router, name server]
        wlan.ifconfig(tuple(where["address"]))
    known = _known(where["ssid"])
    point = known or _look(wlan, where["ssid"])
    if point is None:
        return False
    bssid, channel = point
    wlan.config(channel=channel)  # where the search for it begins
    wlan.connect(where["ssid"], where["password"], bssid=bssid)
    if _connected(wlan, hurry):
        if not known:
            with open(_FILE, "w") as file:
                json.dump([where["ssid"], bssid.hex(), channel], file)
        return True
    if known:  # it may have moved, or be another: look around the next time
        os.remove(_FILE)
    return False


def _known(ssid):
    try:
        with open(_FILE) as file:
            name, bssid, channel = json.load(file)
        return (bytes.fromhex(bssid), channel) if name == ssid else None
    except (OSError, ValueError):
        return None


def _look(wlan, ssid):
    """The nearest access point of that name, None if there is none."""
    best, level = None, -1000
    for name, bssid, channel, rssi, _, _ in wlan.scan():
        if name == ssid.encode() and rssi > level:
            best, level = (bssid, channel), rssi
    return best


def _connected(wlan, hurry):
    since_ms = time.ticks_ms()
    while not wlan.isconnected():
        if time.ticks_diff(time.ticks_ms(), since_ms) > _JOIN_MS or wlan.status() in _HOPELESS:
            return False
        hurry()
        time.sleep_ms(20)
    return True


def dial(board, where):
    """The link to the gateway that network.json names."""
    ca = None
    if where.get("tls"):
        with open("ca.der", "rb") as file:
            ca = file.read()
    stream = Stream(board, where["host"], where["port"], ca)
    return Mqtt(stream, board.node_id, where.get("login"), where.get("prefix", "outpost"))


class Stream(Tcp):
    """A TCP connection that ends with the wake's deadline; the radio goes off with it."""

    def __init__(self, board, host, port, ca):
        self._board = board
        super().__init__(host, port, min(Mqtt.patience_ms, board.left_ms()), ca)

    def read(self, view, ms):
        self._board.hurry()
        return super().read(view, min(ms, self._board.left_ms()))

    def write(self, view, ms):
        self._board.hurry()
        super().write(view, min(ms, self._board.left_ms()))

    def close(self):
        super().close()
        self._board.radio_off()
