/* empty.c: what a call into a native module costs by itself; bench/instructions.py subtracts it. */
#include "abi.h"

static mp_obj_t empty(mp_obj_t features, mp_obj_t votes)
{
    (void)features, (void)votes;
    return mp_none;
}

static const mp_fun_builtin_t empty_function = { &mp_type_fun_builtin_2, empty };
static const char names[] __attribute__((section(".mpy.names"), used)) = "empty\0";
static const mp_fun_builtin_t *const values[] = { &empty_function };

mp_obj_t outpost_module(const mp_fun_t *self);
mp_obj_t outpost_module(const mp_fun_t *self)
{
    (void)self;
    mp_store_global(mp_qstr_table[1], values[0]);
    return mp_none;
}
