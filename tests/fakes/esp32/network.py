# The port's `network`: access points as wake.json says; the radio stays on until it is put off.
# A point is {ssid, bssid, channel, rssi}, and perhaps refuses (the password) or slow (to join).

import machine

STAT_IDLE, STAT_CONNECTING, STAT_NO_AP_FOUND, STAT_WRONG_PASSWORD = 1000, 1001, 201, 202


class WLAN:
    IF_STA, IF_AP = 0, 1
    joined = None

    def __init__(self, interface=0):
        self._interface = interface

    def active(self, on=None):
        if on is None:
            return machine.radio_on.get(self._interface, False)
        machine.radio_on[self._interface] = bool(on)

    def _on(self):
        if not self.active():
            raise OSError("Wifi Not Started")

    def config(self, *, channel):
        self._on()
        machine.events.append(["channel", channel])

    def ifconfig(self, address):
        machine.events.append(["address", list(address)])

    def scan(self):
        self._on()
        machine.events.append(["scan"])
        return [(point["ssid"].encode(), bytes.fromhex(point["bssid"]), point["channel"],
                 point["rssi"], 3, False) for point in machine.state.get("access_points", [])]

    def connect(self, ssid, password, *, bssid=None):
        self._on()
        machine.events.append(["join", ssid, bssid.hex()])
        WLAN.joined = bssid

    def _point(self):
        for point in machine.state.get("access_points", []):
            if bytes.fromhex(point["bssid"]) == WLAN.joined:
                return point

    def status(self):
        point = self._point()
        if point is None:
            return STAT_NO_AP_FOUND
        return STAT_WRONG_PASSWORD if point.get("refuses") else STAT_CONNECTING

    def isconnected(self):
        point = self._point()
        return bool(point and not point.get("refuses") and not point.get("slow"))
