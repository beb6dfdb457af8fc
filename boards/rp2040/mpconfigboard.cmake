# Raspberry Pi Pico and boards like it: RP2040 with 2 MB of flash, no radio.
set(PICO_BOARD "pico")
set(PICO_PLATFORM "rp2040")
