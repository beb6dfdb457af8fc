/* trees.h: how the trees of model.c look at a feature: OUTPOST_BELOW(index, threshold).
 *
 * On most cores that is a signed comparison and nothing more. A Cortex-M0 loads a signed halfword
 * only by way of a second register, an unsigned one directly if it is among the first 32, which
 * saves a quarter of all instructions and bytes. Where no threshold is below 1, a negative feature
 * goes the same way as a zero everywhere; so, should there be any, a copy with zeros is looked at,
 * and unsigned is as good as signed. Features from 32 on are reached from a second pointer.
 */
#ifndef OUTPOST_TREES_H
#define OUTPOST_TREES_H

#include <stdint.h>

#if defined(__thumb__) && !defined(__thumb2__) && OUTPOST_LEAST_THRESHOLD > 0

#define OUTPOST_AT \
    const uint16_t *at __attribute__((unused)), const uint16_t *beyond __attribute__((unused))
#define OUTPOST_BELOW(index, threshold) \
    (((index) < 32 ? at[(index) & 31] : beyond[(index) - 32]) < (threshold))
#define OUTPOST_HERE at, beyond
#define OUTPOST_LOOK(features) \
    uint16_t copy[OUTPOST_FEATURES]; \
    const uint16_t *at = outpost_without_sign(features, copy), *beyond = at + 32; \
    __asm__("" : "+r"(at), "+r"(beyond)); /* two pointers, and not sums of something else */

static const uint16_t *__attribute__((noinline)) outpost_clamp(const int16_t *features,
                                                               uint16_t *copy)
{
    for (int i = 0; i < OUTPOST_FEATURES; i++) {
        copy[i] = (uint16_t)(features[i] < 0 ? 0 : features[i]);
    }
    return copy;
}

/* Return the features themselves if none is negative: 5 instructions for 8 of them. */
static inline const uint16_t *outpost_without_sign(const int16_t *features, uint16_t *copy)
{
    if (((uintptr_t)features & 2) != 0) { /* not on a word */
        return outpost_clamp(features, copy);
    }
    const int16_t *next = features;
    uint32_t all = 0;
#pragma GCC unroll 16
    for (int i = 0; i < OUTPOST_FEATURES / 8; i++) {
        __asm__(".syntax unified\n ldmia %0!, {r3-r6}\n"
                "orrs %1, r3\n orrs %1, r4\n orrs %1, r5\n orrs %1, r6"
                : "+l"(next), "+l"(all) : : "r3", "r4", "r5", "r6", "cc", "memory");
    }
#pragma GCC unroll 8
    for (int i = 0; i < OUTPOST_FEATURES % 8; i++) {
        all |= (uint32_t)next[i] << 16;
    }
    return (all & 0x80008000u) != 0 ? outpost_clamp(features, copy) : (const uint16_t *)features;
}

#else

#define OUTPOST_AT const int16_t *at __attribute__((unused))
#define OUTPOST_BELOW(index, threshold) (at[index] < (threshold))
#define OUTPOST_HERE at
#define OUTPOST_LOOK(features) const int16_t *at = features;

#endif
#endif
