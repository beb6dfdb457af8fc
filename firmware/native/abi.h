/* abi.h: the part of MicroPython's native interface that a model module uses (.mpy 6.3, which is
 * MicroPython 1.23 and later).
 *
 * The interpreter keeps one table of pointers, mp_fun_table; its order is part of the .mpy version.
 * An entry is named here by its number, and the linker (host_tools/outpost/link.py) knows nothing
 * but this rule:
 *
 *   MP_SLOT(n)    a word in the module, which the loader fills with entry n
 *   MP_OBJECT(n)  the thing that entry n points to; its address may stand in constant data
 *
 * A slot costs one word and one relocation byte, and a call through it one load. The numbers count
 * words from the start of the table, so the byte offset is n * sizeof(void *).
 */
#ifndef OUTPOST_ABI_H
#define OUTPOST_ABI_H

#include <stddef.h>
#include <stdint.h>

#define MP_SLOT(n) __asm__("mp_slot_" #n) __attribute__((visibility("hidden")))
#define MP_OBJECT(n) __asm__("mp_object_" #n)

typedef const void *mp_obj_t;
typedef struct mp_type mp_type_t;

/* What a module's entry point is given: the function object it is the code of. */
typedef struct {
    const mp_type_t *type;
    const void *context;
} mp_fun_t;

/* A function with a fixed number of positional arguments; MicroPython checks their number. */
typedef struct {
    const mp_type_t *type;
    const void *code;
} mp_fun_builtin_t;

typedef struct {
    void *start;
    size_t length; /* bytes */
    int typecode;  /* as in module array, or MP_BYTEARRAY */
} mp_buffer_t;

/* How array and bytearray lie in memory. The table promises nothing about it, so module.c believes
 * it of a type only after an object of the type has shown it. */
typedef struct {
    const mp_type_t *type;
    size_t typecode; /* in the low byte */
    size_t count;    /* items */
    void *start;
} mp_array_t;

#define MP_BYTEARRAY 1
#define MP_READ 1u
#define MP_READ_WRITE 3u

/* A small integer is an object by itself, and so in every object representation in use. */
#define MP_SMALL_INT(value) ((mp_obj_t)(((uintptr_t)(value) << 1) | 1u))

/* Names known to every interpreter by the same number. */
#define MP_QSTR_ValueError 55u
#define MP_QSTR_builtins 63u

extern mp_obj_t const mp_none MP_SLOT(0);
extern mp_obj_t (*const mp_load_attr)(mp_obj_t base, size_t name) MP_SLOT(9);
extern void (*const mp_store_global)(size_t name, mp_obj_t value) MP_SLOT(13);
extern mp_obj_t (*const mp_call)(mp_obj_t function, size_t arguments, const mp_obj_t *) MP_SLOT(27);
extern void (*const mp_raise)(mp_obj_t exception) MP_SLOT(34);
extern mp_obj_t (*const mp_import)(size_t name, mp_obj_t from, mp_obj_t level) MP_SLOT(35);
extern void *(*const mp_memset)(void *to, int value, size_t length) MP_SLOT(50);
extern void *(*const mp_memmove)(void *to, const void *from, size_t length) MP_SLOT(51);
extern const mp_type_t *(*const mp_type_of)(mp_obj_t) MP_SLOT(56);
extern mp_obj_t (*const mp_new_str)(const char *text, size_t length) MP_SLOT(57);
extern _Bool (*const mp_get_buffer)(mp_obj_t, mp_buffer_t *, size_t access) MP_SLOT(65);
extern const mp_type_t *const mp_type_str MP_SLOT(74);

extern const mp_type_t mp_type_fun_builtin_2 MP_OBJECT(79);
extern const mp_type_t mp_type_fun_builtin_3 MP_OBJECT(80);

/* The numbers this interpreter gave to the names of the module: [0] is the file's. */
extern const uint16_t *const mp_qstr_table MP_SLOT(qstrs);

#define MP_NAME(name, value) #name "\0"
#define MP_VALUE(name, value) value,

/* The module's names and what stands for them: EXPORTS(EXPORT) is EXPORT(name, value) of each.
 *
 * The linker turns the names into the file's table of names; they take no room in the code.
 * outpost_module() runs when the module is imported, with the module's globals in place. */
#define MP_MODULE(EXPORTS) \
    static const char export_names[] __attribute__((section(".mpy.names"), used)) = \
        EXPORTS(MP_NAME); \
    static const mp_obj_t export_values[] = { EXPORTS(MP_VALUE) }; \
    mp_obj_t outpost_module(const mp_fun_t *, size_t, size_t, const mp_obj_t *); \
    mp_obj_t outpost_module(const mp_fun_t *self, size_t arguments, size_t keywords, \
                            const mp_obj_t *values) \
    { \
        (void)self, (void)arguments, (void)keywords, (void)values; \
        for (size_t i = 0; i < sizeof export_values / sizeof export_values[0]; i++) { \
            mp_store_global(mp_qstr_table[i + 1], export_values[i]); \
        } \
        return mp_none; \
    }

#endif
