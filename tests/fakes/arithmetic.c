/* A module that does what models may want of a core and its runtime library: floats, division,
 * 64 bits, copying, calls by address, a variable. Its answers must be the same everywhere.
 */
#include "abi.h"

#define WORDS 24 /* of answer to two words of question */

int calls; /* in what the loader clears */

typedef union {
    uint32_t bits;
    float value;
} number_t;

typedef struct {
    uint32_t word[40];
} big_t;

static uint32_t of(float value)
{
    number_t number = { .value = value };
    return value == value ? number.bits : 0x7fc00000u; /* processors differ in their NaN */
}

static uint32_t add(uint32_t a, uint32_t b) { return a + b; }
static uint32_t turn(uint32_t a, uint32_t b) { return a << (b & 31) | a >> (-b & 31); }

static const struct {
    uint32_t (*apply)(uint32_t, uint32_t);
    const char *name;
} table[] = { { add, "add" }, { turn, "turn" } };

static void reckon_floats(uint32_t a, uint32_t b, uint32_t *out)
{
    float x = ((number_t){ .bits = a }).value, y = ((number_t){ .bits = b }).value;
    *out++ = of(x + y);
    *out++ = of(x - y);
    *out++ = of(x * y);
    *out++ = of(x / y);
    *out++ = (uint32_t)((x < y) | (x <= y) << 1 | (x == y) << 2 | (x > y) << 3 | (x >= y) << 4 |
                        (x != y) << 5);
    *out++ = x > -2e9f && x < 2e9f ? (uint32_t)(int32_t)x : 0;
    *out++ = x > 0 && x < 4e9f ? (uint32_t)x : 0;
    *out++ = of((float)a);
    *out++ = of((float)(int32_t)a);
}

static void reckon_wholes(uint32_t a, uint32_t b, uint32_t *out)
{
    uint64_t wide = (uint64_t)a << 32 | b, divisor = ((uint64_t)b << 8 | 1) >> (a & 31) | 1;
    int32_t x = (int32_t)(a >> 1) * ((a & 1) != 0 ? -1 : 1), y = (int32_t)((b >> 1) | 1);
    *out++ = a / (b | 1);
    *out++ = a % (b | 1);
    *out++ = (uint32_t)(x / y);
    *out++ = (uint32_t)(x % y);
    uint64_t results[] = { wide / divisor, wide % divisor, wide * divisor, wide << (b & 63),
                           (uint64_t)((int64_t)wide >> (b & 63)) };
    for (unsigned i = 0; i < sizeof results / sizeof results[0]; i++) {
        *out++ = (uint32_t)results[i];
        *out++ = (uint32_t)(results[i] >> 32);
    }
    *out++ = table[a & 1].apply(a, b) + (uint32_t)table[b & 1].name[1];
    big_t clear = { { 0 } };
    clear.word[b & 31] = a;
    big_t copy = clear;
    *out++ = copy.word[a & 31];
}

typedef void (*reckon_t)(uint32_t a, uint32_t b, uint32_t *out);

static mp_obj_t compute(mp_obj_t question, mp_obj_t answer, reckon_t reckon)
{
    mp_buffer_t in, out;
    if (!mp_get_buffer(question, &in, MP_READ) || !mp_get_buffer(answer, &out, MP_READ_WRITE) ||
        in.length != 8 || out.length != WORDS * 4) {
        return mp_none;
    }
    const uint32_t *word = in.start;
    reckon(word[0], word[1], out.start);
    return MP_SMALL_INT(++calls);
}

static mp_obj_t floats(mp_obj_t question, mp_obj_t answer)
{
    return compute(question, answer, reckon_floats);
}

static mp_obj_t wholes(mp_obj_t question, mp_obj_t answer)
{
    return compute(question, answer, reckon_wholes);
}

static const mp_fun_builtin_t floats_function = { &mp_type_fun_builtin_2, floats };
static const mp_fun_builtin_t wholes_function = { &mp_type_fun_builtin_2, wholes };
static const char names[] __attribute__((section(".mpy.names"), used)) = "floats\0wholes\0";
static const mp_fun_builtin_t *const values[] = { &floats_function, &wholes_function };

mp_obj_t outpost_module(const mp_fun_t *self);
mp_obj_t outpost_module(const mp_fun_t *self)
{
    (void)self;
    mp_store_global(mp_qstr_table[1], values[0]);
    mp_store_global(mp_qstr_table[2], values[1]);
    return mp_none;
}
