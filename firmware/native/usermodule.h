/* usermodule.h: the names of abi.h for a model that is compiled into the firmware.
 *
 * There the interpreter's own functions are at hand, the code runs from flash, and the module costs
 * no heap. A unit per model (written by host_tools/outpost/firmware.py) defines
 * OUTPOST_USER_MODULE as the module's name, includes this, model.h, features.c, model.c and
 * module.c, and registers the module.
 */
#ifndef OUTPOST_USERMODULE_H
#define OUTPOST_USERMODULE_H

#include "py/binary.h"
#include "py/runtime.h"

/* Laid out as mp_obj_fun_builtin_fixed_t, mp_buffer_info_t and mp_obj_array_t are. */
typedef struct {
    const mp_obj_type_t *type;
    const void *code;
} mp_fun_builtin_t;

typedef struct {
    void *start;
    size_t length;
    int typecode;
} mp_buffer_t;

typedef struct {
    const mp_obj_type_t *type;
    size_t typecode;
    size_t count;
    void *start;
} mp_array_t;

#define OUTPOST_STATE static

typedef mp_obj_type_t mp_type_t;

#define MP_BYTEARRAY BYTEARRAY_TYPECODE
#define MP_READ MP_BUFFER_READ
#define MP_READ_WRITE MP_BUFFER_RW
#define MP_SMALL_INT(value) ((void *)(((uintptr_t)(value) << 1) | 1u))

#define mp_none mp_const_none
#define mp_type_of mp_obj_get_type
#define mp_type_str (&mp_type_str)
#define mp_get_buffer(object, buffer, access) \
    mp_get_buffer(object, (mp_buffer_info_t *)(buffer), access)

#define REFUSE(message) mp_raise_ValueError(MP_ERROR_TEXT(message))

#endif
