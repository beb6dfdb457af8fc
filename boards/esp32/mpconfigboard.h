// Outpost on an ESP32: no Bluetooth, no wired network; what is left boots faster.
#define MICROPY_HW_BOARD_NAME     "Outpost ESP32"
#define MICROPY_HW_MCU_NAME       "ESP32"
#define MICROPY_PY_BLUETOOTH      (0)
#define MICROPY_PY_NETWORK_LAN    (0)

// Room for most of our modules' names from the start: boards/rp2040/mpconfigboard.h.
#define MICROPY_MODULE_DICT_SIZE         (47)
#define MICROPY_LOADED_MODULES_DICT_SIZE (47)
