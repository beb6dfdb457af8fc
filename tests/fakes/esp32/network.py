# The port's `network`: one access point, there or not; the radio stays on until it is put off.

import machine


class WLAN:
    IF_STA, IF_AP = 0, 1

    def __init__(self, interface=0):
        self._interface = interface

    def active(self, on=None):
        if on is None:
            return machine.radio_on.get(self._interface, False)
        machine.radio_on[self._interface] = bool(on)

    def connect(self, ssid, password):
        if not self.active():
            raise OSError("Wifi Not Started")
        machine.events.append(["join", ssid])

    def isconnected(self):
        return bool(machine.state.get("access_point"))
