# Raspberry Pi Pico and boards like it: RP2040 with 2 MB of flash, no radio.
set(PICO_BOARD "pico")
set(PICO_PLATFORM "rp2040")

# The clock, and the voltage it takes: clock.c.
set(MICROPY_DEF_BOARD SYS_CLK_MHZ=200 PICO_CLOCK_ADJUST_PERI_CLOCK_WITH_SYS_CLOCK=1)
set(MICROPY_SOURCE_BOARD ${MICROPY_BOARD_DIR}/clock.c)
add_link_options(-Wl,--wrap=runtime_init_clocks_optional_usb -Wl,--wrap=pll_deinit)

# What a boot spends most of its time in, besides what the port compiles for speed already.
foreach(file bc gc objfun objtype qstr runtime)
    set_source_files_properties(${MICROPY_DIR}/py/${file}.c PROPERTIES COMPILE_OPTIONS "-O2")
endforeach()
