/* integer.c: division where the core has none, and arithmetic on 64 bits of 32-bit cores.
 *
 * Bit by bit and small rather than fast: what is on the hot path of a model avoids it. Dividing by
 * zero gives all ones, as on RISC-V.
 */
#include <stdint.h>

#if UINTPTR_MAX == 0xffffffffu || defined(OUTPOST_HOST) /* the host tests it */

/* Halves, so that no shift in here is one that the compiler would call us for. */
typedef union {
    uint64_t whole;
    struct {
        uint32_t low, high;
    } half;
} wide_t;

static uint32_t divide32(uint32_t dividend, uint32_t divisor, uint32_t *rest)
{
    uint32_t quotient = 0, left = 0;
    for (int bit = 0; bit < 32; bit++) {
        uint32_t carry = left >> 31;
        left = left << 1 | dividend >> 31;
        dividend <<= 1;
        quotient <<= 1;
        if (carry != 0 || left >= divisor) {
            left -= divisor;
            quotient |= 1;
        }
    }
    *rest = left;
    return quotient;
}

static uint64_t divide64(uint64_t dividend, uint64_t divisor, uint64_t *rest)
{
    wide_t left = { 0 }, from = { dividend }, quotient = { 0 };
    for (int bit = 0; bit < 64; bit++) {
        uint32_t carry = left.half.high >> 31;
        left.half.high = left.half.high << 1 | left.half.low >> 31;
        left.half.low = left.half.low << 1 | from.half.high >> 31;
        from.half.high = from.half.high << 1 | from.half.low >> 31;
        from.half.low <<= 1;
        quotient.half.high = quotient.half.high << 1 | quotient.half.low >> 31;
        quotient.half.low <<= 1;
        if (carry != 0 || left.whole >= divisor) {
            left.whole -= divisor;
            quotient.half.low |= 1;
        }
    }
    *rest = left.whole;
    return quotient.whole;
}

static uint32_t size32(int32_t value)
{
    return value < 0 ? -(uint32_t)value : (uint32_t)value;
}

static uint64_t size64(int64_t value)
{
    return value < 0 ? -(uint64_t)value : (uint64_t)value;
}

/* Quotients round towards zero, a rest has the sign of the dividend. */
static int32_t divide_signed32(int32_t dividend, int32_t divisor, int32_t *rest)
{
    uint32_t left;
    uint32_t quotient = divide32(size32(dividend), size32(divisor), &left);
    *rest = (int32_t)(dividend < 0 ? -left : left);
    return (int32_t)((dividend ^ divisor) < 0 ? -quotient : quotient);
}

static int64_t divide_signed64(int64_t dividend, int64_t divisor, int64_t *rest)
{
    uint64_t left;
    uint64_t quotient = divide64(size64(dividend), size64(divisor), &left);
    *rest = (int64_t)(dividend < 0 ? -left : left);
    return (int64_t)((dividend ^ divisor) < 0 ? -quotient : quotient);
}

static uint64_t multiply(uint64_t a, uint64_t b)
{
    wide_t x = { a }, y = { b }, product;
    uint32_t x0 = x.half.low & 0xffff, x1 = x.half.low >> 16;
    uint32_t y0 = y.half.low & 0xffff, y1 = y.half.low >> 16;
    uint32_t low = x0 * y0, middle = x1 * y0 + (low >> 16);
    uint32_t other = x0 * y1 + (middle & 0xffff);
    product.half.low = other << 16 | (low & 0xffff);
    product.half.high = x1 * y1 + (middle >> 16) + (other >> 16) + x.half.low * y.half.high +
                        x.half.high * y.half.low;
    return product.whole;
}

static uint64_t shift_left(uint64_t value, int by)
{
    wide_t x = { value };
    if (by >= 32) {
        x.half.high = x.half.low << (by - 32);
        x.half.low = 0;
    } else if (by > 0) {
        x.half.high = x.half.high << by | x.half.low >> (32 - by);
        x.half.low <<= by;
    }
    return x.whole;
}

static uint64_t shift_right(uint64_t value, int by, uint32_t fill)
{
    wide_t x = { value };
    if (by >= 32) {
        x.half.low = by == 32 ? x.half.high : x.half.high >> (by - 32) | fill << (64 - by);
        x.half.high = fill;
    } else if (by > 0) {
        x.half.low = x.half.low >> by | x.half.high << (32 - by);
        x.half.high = x.half.high >> by | fill << (32 - by);
    }
    return x.whole;
}

static uint32_t sign(uint64_t value)
{
    return (int64_t)value < 0 ? 0xffffffffu : 0;
}

/* By the names of gcc's library. */
#define WHOLE(name, type, from, divide, wanted) \
    type name(type dividend, type divisor); \
    type name(type dividend, type divisor) \
    { \
        type rest, quotient = (type)divide((from)dividend, (from)divisor, (from *)&rest); \
        (void)rest, (void)quotient; \
        return wanted; \
    }
WHOLE(__udivsi3, uint32_t, uint32_t, divide32, quotient)
WHOLE(__umodsi3, uint32_t, uint32_t, divide32, rest)
WHOLE(__divsi3, int32_t, int32_t, divide_signed32, quotient)
WHOLE(__modsi3, int32_t, int32_t, divide_signed32, rest)
WHOLE(__udivdi3, uint64_t, uint64_t, divide64, quotient)
WHOLE(__umoddi3, uint64_t, uint64_t, divide64, rest)
WHOLE(__divdi3, int64_t, int64_t, divide_signed64, quotient)
WHOLE(__moddi3, int64_t, int64_t, divide_signed64, rest)

#define TWO(name, expression) \
    uint64_t name(uint64_t a, uint64_t b); \
    uint64_t name(uint64_t a, uint64_t b) { return expression; }
TWO(__muldi3, multiply(a, b))

#define SHIFT(name, expression) \
    uint64_t name(uint64_t value, int by); \
    uint64_t name(uint64_t value, int by) { return expression; }
SHIFT(__ashldi3, shift_left(value, by))
SHIFT(__lshrdi3, shift_right(value, by, 0))
SHIFT(__ashrdi3, shift_right(value, by, sign(value)))

#if defined(__arm__) /* and by those of Arm's run-time ABI */

WHOLE(__aeabi_uidiv, uint32_t, uint32_t, divide32, quotient)
WHOLE(__aeabi_idiv, int32_t, int32_t, divide_signed32, quotient)
TWO(__aeabi_lmul, multiply(a, b))
SHIFT(__aeabi_llsl, shift_left(value, by))
SHIFT(__aeabi_llsr, shift_right(value, by, 0))
SHIFT(__aeabi_lasr, shift_right(value, by, sign(value)))

/* Quotient in r0, rest in r1: as one 64-bit result. */
uint64_t __aeabi_uidivmod(uint32_t dividend, uint32_t divisor);
uint64_t __aeabi_uidivmod(uint32_t dividend, uint32_t divisor)
{
    wide_t both;
    both.half.low = divide32(dividend, divisor, &both.half.high);
    return both.whole;
}

uint64_t __aeabi_idivmod(int32_t dividend, int32_t divisor);
uint64_t __aeabi_idivmod(int32_t dividend, int32_t divisor)
{
    wide_t both;
    int32_t rest;
    both.half.low = (uint32_t)divide_signed32(dividend, divisor, &rest);
    both.half.high = (uint32_t)rest;
    return both.whole;
}

/* Quotient in r0 and r1, rest in r2 and r3, which C can't say. */
uint64_t outpost_uldivmod(uint64_t dividend, uint64_t divisor, uint64_t *rest);
int64_t outpost_ldivmod(int64_t dividend, int64_t divisor, int64_t *rest);

uint64_t outpost_uldivmod(uint64_t dividend, uint64_t divisor, uint64_t *rest)
{
    return divide64(dividend, divisor, rest);
}

int64_t outpost_ldivmod(int64_t dividend, int64_t divisor, int64_t *rest)
{
    return divide_signed64(dividend, divisor, rest);
}

#define BOTH(name, function) \
    void name(void); \
    __attribute__((naked)) void name(void) \
    { \
        __asm__(".syntax unified\n" \
                "push {r4, lr}\n sub sp, #16\n add r4, sp, #8\n str r4, [sp]\n" \
                "bl " #function "\n" \
                "ldr r2, [sp, #8]\n ldr r3, [sp, #12]\n add sp, #16\n pop {r4, pc}"); \
    }
BOTH(__aeabi_uldivmod, outpost_uldivmod)
BOTH(__aeabi_ldivmod, outpost_ldivmod)

#endif
#endif
