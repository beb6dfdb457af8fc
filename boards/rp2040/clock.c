// 200 MHz at 1.15 V while awake, 12 MHz at 1.10 V in light sleep: RP2040 datasheet, 2.15.3, and
// pico-sdk 2.1.1. MicroPython 1.25 sets the clocks itself and would leave the voltage as it is.

#include "hardware/clocks.h"
#include "hardware/pll.h"
#include "hardware/structs/vreg_and_chip_reset.h"
#include "pico/runtime_init.h"

#define VSEL_1_10 (11)
#define VSEL_1_15 (12)

static uint32_t voltage(void) {
    return (vreg_and_chip_reset_hw->vreg & VREG_AND_CHIP_RESET_VREG_VSEL_BITS)
        >> VREG_AND_CHIP_RESET_VREG_VSEL_LSB;
}

static void set_voltage(uint32_t vsel) {
    hw_write_masked(&vreg_and_chip_reset_hw->vreg, vsel << VREG_AND_CHIP_RESET_VREG_VSEL_LSB,
        VREG_AND_CHIP_RESET_VREG_VSEL_BITS);
}

// The core runs on the crystal, or on the ring oscillator, which is no faster.
static void raise_voltage(void) {
    if (voltage() < VSEL_1_15) {
        set_voltage(VSEL_1_15);
        busy_wait_at_least_cycles(XOSC_MHZ * SYS_CLK_VREG_VOLTAGE_AUTO_ADJUST_DELAY_US);
    }
}

// After a reset: the clocks are set at 00500.
PICO_RUNTIME_INIT_FUNC_RUNTIME(raise_voltage, "00499");

// Out of light sleep.
void __real_runtime_init_clocks_optional_usb(bool init_usb);

void __wrap_runtime_init_clocks_optional_usb(bool init_usb) {
    raise_voltage();
    __real_runtime_init_clocks_optional_usb(init_usb);
}

// Into light sleep; the core runs on the crystal by now.
void __real_pll_deinit(PLL pll);

void __wrap_pll_deinit(PLL pll) {
    __real_pll_deinit(pll);
    if (pll == pll_sys) {
        set_voltage(VSEL_1_10);
    }
}
