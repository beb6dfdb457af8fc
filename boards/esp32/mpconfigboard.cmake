# Outpost on an ESP32 with 4 MB of flash, for MicroPython's esp32 port. NEVER BUILT: ESP-IDF was not
# at hand. How to build it, and what to look at first: docs/hardware.md.
set(IDF_TARGET esp32)

# The path of our partition table is known only now, and ESP-IDF wants it in a file of its own.
file(WRITE ${CMAKE_BINARY_DIR}/sdkconfig.partitions
    "CONFIG_PARTITION_TABLE_CUSTOM=y\n"
    "CONFIG_PARTITION_TABLE_CUSTOM_FILENAME=\"${MICROPY_BOARD_DIR}/partitions.csv\"\n")

set(SDKCONFIG_DEFAULTS
    boards/sdkconfig.base
    ${MICROPY_BOARD_DIR}/sdkconfig.board
    ${CMAKE_BINARY_DIR}/sdkconfig.partitions
)

set(MICROPY_FROZEN_MANIFEST ${MICROPY_BOARD_DIR}/manifest.py)
