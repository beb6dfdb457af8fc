/* runner.c: as much of MicroPython as a model's module asks for, on a bare Xtensa core.
 *
 * xtensa.py puts this and the module into one ELF file and runs it in qemu-xtensa. Calls come in
 * on standard input (which export, then up to three arrays), answers go out on standard output.
 */
#include "abi.h"

#define NAMES 32

/* What xtensa.py leaves at the start of memory. */
struct header {
    void (*module)(const mp_fun_t *, size_t, size_t, const mp_obj_t *);
    const struct {
        uintptr_t *word;
        uintptr_t entry;
    } *fixups;
    uintptr_t fixup_count;
};

#define HEADER ((const struct header *)0x10000000)

/* read (12), write (13) and exit (118), by the numbers Linux has for Xtensa */
long call_system(long number, long a, long b, long c);
__asm__(".section .text.call_system,\"ax\"\n"
        ".global call_system\n"
        ".align 4\n"
        "call_system:\n"
        "entry a1, 32\n mov a6, a3\n mov a3, a4\n mov a4, a5\n syscall\n retw\n"
        ".section .text.outpost_module,\"ax\"\n"
        ".global outpost_module\n"
        ".align 4\n"
        "outpost_module:\n"
        "movi a0, 0\n"
        "call8 run\n");

static mp_obj_t exports[NAMES];
static const struct mp_type {
    char name;
} array_type = { 'a' }, function_type = { 'f' }, string_type = { 's' };
static mp_array_t arrays[3];
static char memory[3][4096] __attribute__((aligned(4)));
static const char none = 'n';

static void leave(int code)
{
    call_system(118, code, 0, 0);
}

static void transfer(int number, int file, void *data, size_t length)
{
    char *at = data;
    while (length > 0) {
        long done = call_system(number, file, (long)at, (long)length);
        if (done <= 0) {
            leave(done == 0 && length == 8 ? 0 : 2); /* between two calls, the end is the end */
        }
        at += done;
        length -= (size_t)done;
    }
}

static void store_global(size_t name, mp_obj_t value)
{
    exports[name] = value;
}

static const mp_type_t *type_of(mp_obj_t object)
{
    return *(const mp_type_t *const *)object;
}

static _Bool get_buffer(mp_obj_t object, mp_buffer_t *buffer, size_t access)
{
    const mp_array_t *array = object;
    (void)access;
    if (((uintptr_t)object & 3) != 0 || array->type != &array_type) {
        return 0;
    }
    buffer->start = array->start;
    buffer->typecode = (int)array->typecode;
    buffer->length = array->count * (array->typecode == 'h' ? 2 : 1);
    return 1;
}

static void fail(void)
{
    leave(3); /* something was refused that must not be */
}

static void *fill(void *to, int value, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        ((volatile char *)to)[i] = (char)value;
    }
    return to;
}

static void *move(void *to, const void *from, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        ((volatile char *)to)[i] = ((const char *)from)[i];
    }
    return to;
}

static uintptr_t entry(uintptr_t number)
{
    switch (number) {
    case 0: return (uintptr_t)&none;
    case 13: return (uintptr_t)store_global;
    case 50: return (uintptr_t)fill;
    case 51: return (uintptr_t)move;
    case 56: return (uintptr_t)type_of;
    case 65: return (uintptr_t)get_buffer;
    case 74: return (uintptr_t)&string_type;
    case 79: case 80: return (uintptr_t)&function_type;
    default: return (uintptr_t)fail;
    }
}

typedef mp_obj_t (*call_t)(mp_obj_t, mp_obj_t, mp_obj_t);

void run(void);
void run(void)
{
    for (uintptr_t i = 0; i < HEADER->fixup_count; i++) {
        *HEADER->fixups[i].word += entry(HEADER->fixups[i].entry);
    }
    HEADER->module(0, 0, 0, 0);
    for (;;) {
        uint32_t request[2]; /* which export, how many arrays */
        uint32_t shape[3][2]; /* typecode, items */
        transfer(12, 0, request, 8);
        for (uint32_t i = 0; i < request[1]; i++) {
            transfer(12, 0, shape[i], 8);
            arrays[i].type = &array_type;
            arrays[i].typecode = shape[i][0];
            arrays[i].count = shape[i][1];
            arrays[i].start = memory[i];
            transfer(12, 0, memory[i], shape[i][1] * (shape[i][0] == 'h' ? 2 : 1));
        }
        const mp_fun_builtin_t *function = exports[request[0]];
        uint32_t answer = (uint32_t)(uintptr_t)((call_t)function->code)(&arrays[0], &arrays[1],
                                                                        &arrays[2]);
        transfer(13, 1, &answer, 4);
        for (uint32_t i = 0; i < request[1]; i++) {
            transfer(13, 1, memory[i], shape[i][1] * (shape[i][0] == 'h' ? 2 : 1));
        }
    }
}
