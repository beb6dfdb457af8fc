/* float.c: IEEE 754 single precision for cores without a floating-point unit.
 *
 * Rounds to nearest, ties to even; subnormals, infinities and NaN as the standard has them, NaN
 * always the same quiet one. A float is passed as its bits, which is how such cores pass it.
 */
#include <stdint.h>

#if UINTPTR_MAX == 0xffffffffu || defined(OUTPOST_HOST) /* the host tests it */

#define SIGN 0x80000000u
#define INFINITE 0x7f800000u
#define NAN_BITS 0x7fc00000u

typedef uint32_t float_t;

static int is_nan(float_t x)
{
    return (x & ~SIGN) > INFINITE;
}

/* A finite number other than zero: significand with its leading bit at 30, biased exponent. */
typedef struct {
    uint32_t significand;
    int exponent;
} parts_t;

static parts_t take_apart(float_t x)
{
    parts_t parts = { (x & 0x7fffff) << 7, (int)(x >> 23 & 0xff) };
    if (parts.exponent != 0) {
        parts.significand |= 1u << 30;
        return parts;
    }
    parts.exponent = 1;
    while ((parts.significand >> 30) == 0) {
        parts.significand <<= 1;
        parts.exponent--;
    }
    return parts;
}

static uint32_t shift_keeping(uint32_t value, int by) /* a lost bit stays visible in the lowest */
{
    if (by >= 32) {
        return value != 0;
    }
    return by <= 0 ? value : value >> by | ((value << (32 - by)) != 0);
}

/* The number nearest to significand * 2^exponent; the leading bit is at 30 already. */
static float_t put_together(uint32_t sign, int exponent, uint32_t significand)
{
    if (exponent >= 255) {
        return sign | INFINITE;
    }
    if (exponent <= 0) {
        significand = shift_keeping(significand, 1 - exponent);
        exponent = 1;
        if (significand < 1u << 30) {
            exponent = 0;
        }
    }
    uint32_t rest = significand & 0x7f;
    significand = (significand + 0x40) >> 7;
    if (rest == 0x40) {
        significand &= ~1u;
    }
    /* the leading bit adds one to the exponent, and so does a carry out of rounding */
    uint32_t base = exponent > 0 ? (uint32_t)(exponent - 1) << 23 : 0;
    return sign | (base + significand);
}

static float_t add(float_t a, float_t b)
{
    if (is_nan(a) || is_nan(b)) {
        return NAN_BITS;
    }
    if ((a & ~SIGN) < (b & ~SIGN)) {
        float_t swap = a;
        a = b;
        b = swap;
    }
    if ((a & ~SIGN) == INFINITE) {
        return b == (a ^ SIGN) ? NAN_BITS : a;
    }
    if ((b & ~SIGN) == 0) {
        return (a & ~SIGN) != 0 ? a : a & b; /* -0 only if both are */
    }
    parts_t x = take_apart(a), y = take_apart(b);
    uint32_t other = shift_keeping(y.significand, x.exponent - y.exponent);
    if (((a ^ b) & SIGN) == 0) {
        x.significand += other;
        if (x.significand >> 31) {
            x.significand = shift_keeping(x.significand, 1);
            x.exponent++;
        }
        return put_together(a & SIGN, x.exponent, x.significand);
    }
    x.significand -= other;
    if (x.significand == 0) {
        return 0;
    }
    while ((x.significand >> 30) == 0) {
        x.significand <<= 1;
        x.exponent--;
    }
    return put_together(a & SIGN, x.exponent, x.significand);
}

static float_t multiply(float_t a, float_t b)
{
    uint32_t sign = (a ^ b) & SIGN;
    if (is_nan(a) || is_nan(b)) {
        return NAN_BITS;
    }
    a &= ~SIGN;
    b &= ~SIGN;
    if (a == INFINITE || b == INFINITE) {
        return a == 0 || b == 0 ? NAN_BITS : sign | INFINITE;
    }
    if (a == 0 || b == 0) {
        return sign;
    }
    parts_t x = take_apart(a), y = take_apart(b);
    /* 24 times 24 bits by halves of 12 */
    uint32_t x1 = x.significand >> 19, x0 = x.significand >> 7 & 0xfff;
    uint32_t y1 = y.significand >> 19, y0 = y.significand >> 7 & 0xfff;
    uint32_t low = x0 * y0, middle = x1 * y0 + x0 * y1 + (low >> 12);
    uint32_t high = (x1 * y1 << 7) + (middle >> 5); /* the upper 31 of 48 bits */
    uint32_t product = high | (((middle & 0x1f) | (low & 0xfff)) != 0);
    int exponent = x.exponent + y.exponent - 127;
    if (product >> 30) {
        exponent++;
    } else {
        product = (high << 1 | (middle >> 4 & 1)) | (((middle & 0xf) | (low & 0xfff)) != 0);
    }
    return put_together(sign, exponent, product);
}

static float_t divide(float_t a, float_t b)
{
    uint32_t sign = (a ^ b) & SIGN;
    if (is_nan(a) || is_nan(b)) {
        return NAN_BITS;
    }
    a &= ~SIGN;
    b &= ~SIGN;
    if (a == INFINITE || b == 0) {
        return a == b || (a == 0 && b == 0) ? NAN_BITS : sign | INFINITE;
    }
    if (a == 0 || b == INFINITE) {
        return sign;
    }
    parts_t x = take_apart(a), y = take_apart(b);
    int exponent = x.exponent - y.exponent + 127;
    uint32_t left = x.significand, quotient = 0;
    if (left < y.significand) {
        left <<= 1;
        exponent--;
    }
    for (int bit = 0; bit < 31; bit++) {
        quotient <<= 1;
        if (left >= y.significand) {
            left -= y.significand;
            quotient |= 1;
        }
        left <<= 1;
    }
    return put_together(sign, exponent, quotient | (left != 0));
}

/* -1, 0 or 1; 2 if there is no order */
static int compare(float_t a, float_t b)
{
    if (is_nan(a) || is_nan(b)) {
        return 2;
    }
    if (((a | b) & ~SIGN) == 0 || a == b) {
        return 0;
    }
    int below = ((a ^ b) & SIGN) != 0 ? (a & SIGN) != 0 : (a < b) != ((a & SIGN) != 0);
    return below ? -1 : 1;
}

static float_t from_unsigned(uint32_t sign, uint32_t value)
{
    if (value == 0) {
        return 0;
    }
    int exponent = 127 + 30;
    if (value >> 31) {
        value = shift_keeping(value, 1);
        exponent++;
    }
    while ((value >> 30) == 0) {
        value <<= 1;
        exponent--;
    }
    return put_together(sign, exponent, value);
}

static float_t from_signed(int32_t value)
{
    return value < 0 ? from_unsigned(SIGN, -(uint32_t)value) : from_unsigned(0, (uint32_t)value);
}

/* Towards zero; too much saturates, NaN is 0. */
static uint32_t to_size(float_t x, uint32_t most)
{
    int shift = (int)(x >> 23 & 0xff) - 127;
    uint32_t significand = (x & 0x7fffff) | 0x800000;
    if (is_nan(x) || shift < 0) {
        return 0;
    }
    if (shift > 31) {
        return most;
    }
    uint32_t size = shift < 23 ? significand >> (23 - shift) : significand << (shift - 23);
    return size > most ? most : size;
}

static int32_t to_signed(float_t x)
{
    return x & SIGN ? (int32_t)-to_size(x, 0x80000000u) : (int32_t)to_size(x, 0x7fffffffu);
}

static uint32_t to_unsigned(float_t x)
{
    return x & SIGN ? 0 : to_size(x, 0xffffffffu);
}

#define TWO(name, result, expression) \
    result name(float_t a, float_t b); \
    result name(float_t a, float_t b) { return expression; }
#define ONE(name, result, type, expression) \
    result name(type x); \
    result name(type x) { return expression; }

#if defined(__arm__) /* by the names of Arm's run-time ABI */

TWO(__aeabi_fadd, float_t, add(a, b))
TWO(__aeabi_fsub, float_t, add(a, b ^ SIGN))
TWO(__aeabi_frsub, float_t, add(b, a ^ SIGN))
TWO(__aeabi_fmul, float_t, multiply(a, b))
TWO(__aeabi_fdiv, float_t, divide(a, b))
TWO(__aeabi_fcmpeq, int, compare(a, b) == 0)
TWO(__aeabi_fcmplt, int, compare(a, b) == -1)
TWO(__aeabi_fcmple, int, compare(a, b) <= 0)
TWO(__aeabi_fcmpge, int, (compare(a, b) & ~1) == 0)
TWO(__aeabi_fcmpgt, int, compare(a, b) == 1)
TWO(__aeabi_fcmpun, int, compare(a, b) == 2)
ONE(__aeabi_i2f, float_t, int32_t, from_signed(x))
ONE(__aeabi_ui2f, float_t, uint32_t, from_unsigned(0, x))
ONE(__aeabi_f2iz, int32_t, float_t, to_signed(x))
ONE(__aeabi_f2uiz, uint32_t, float_t, to_unsigned(x))

#else /* by those of gcc's library: a comparison is compared with 0 once more by the caller */

TWO(__addsf3, float_t, add(a, b))
TWO(__subsf3, float_t, add(a, b ^ SIGN))
TWO(__mulsf3, float_t, multiply(a, b))
TWO(__divsf3, float_t, divide(a, b))
TWO(__eqsf2, int, compare(a, b))
TWO(__nesf2, int, compare(a, b))
TWO(__ltsf2, int, compare(a, b))
TWO(__lesf2, int, compare(a, b))
TWO(__gesf2, int, compare(a, b) == 2 ? -1 : compare(a, b))
TWO(__gtsf2, int, compare(a, b) == 2 ? -1 : compare(a, b))
TWO(__unordsf2, int, compare(a, b) == 2)
ONE(__floatsisf, float_t, int32_t, from_signed(x))
ONE(__floatunsisf, float_t, uint32_t, from_unsigned(0, x))
ONE(__fixsfsi, int32_t, float_t, to_signed(x))
ONE(__fixunssfsi, uint32_t, float_t, to_unsigned(x))

#endif
#endif
