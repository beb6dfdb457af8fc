/* gauss.h: what models of normal distributions have in common. A cost is twice a distance in nats,
 * in units of 2^-16; the least wins. */
#ifndef OUTPOST_GAUSS_H
#define OUTPOST_GAUSS_H

#include <stdint.h>

struct outpost_row {
    int64_t start;
    int32_t shift;
};

/* Most are small, and a 64-bit product is a library's call on a Cortex-M0+. */
static inline uint64_t outpost_squared(int32_t value)
{
    uint32_t size = value < 0 ? (uint32_t)-value : (uint32_t)value;
    return size < 65536 ? size * size : (uint64_t)size * size;
}

/* Return the class that costs least, of equal ones the first; votes fall by one for each sixteenth
 * of a nat a class is behind it. */
static inline int32_t outpost_margins(const int64_t *cost, uint8_t *votes)
{
    int32_t best = 0;
    for (int i = 1; i < OUTPOST_CLASSES; i++) {
        if (cost[i] < cost[best]) {
            best = i;
        }
    }
    for (int i = 0; i < OUTPOST_CLASSES; i++) {
        int64_t behind = (cost[i] - cost[best]) >> 13;
        votes[i] = (uint8_t)(behind > 255 ? 0 : 255 - behind);
    }
    return best;
}

#endif
