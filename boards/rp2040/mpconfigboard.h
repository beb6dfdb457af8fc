// Outpost on a Raspberry Pi Pico. The flash map is boards/rp2040.toml: 512 KB of firmware, 128 KB
// for a program of .mpy files that goes before the frozen one, then what rp2.Flash() reaches: 256 KB
// of files and 1152 KB of ring.
#define MICROPY_HW_BOARD_NAME          "Outpost RP2040"
#define MICROPY_HW_ROMFS_BYTES         (128 * 1024)
#define MICROPY_HW_FLASH_STORAGE_BYTES (1408 * 1024)

// One core is enough, and with the other asleep a flash operation need not stop it first.
#define MICROPY_PY_THREAD              (0)
#define MICROPY_PY_SSL                 (0)

// A module's dictionary begins with room for most of ours: MicroPython lets one grow from 1 to 2, 4,
// 6, 8, 10, 12, 17 … entries, each time only when it is full to the last, and enters all anew.
#define MICROPY_MODULE_DICT_SIZE         (47)
#define MICROPY_LOADED_MODULES_DICT_SIZE (47)
