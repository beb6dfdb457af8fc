/* scale.h: a feature brought to the scale of the model that looks at it, in integers. */
#ifndef OUTPOST_SCALE_H
#define OUTPOST_SCALE_H

#include <stdint.h>

/* A straight line: (gain * x - offset) >> shift; to the left if the shift is negative. */
struct outpost_scale {
    int32_t offset; /* of 31 bits, */
    int16_t gain;   /* and this of 14, so that the difference fits 32 */
    int8_t shift;
    uint8_t column; /* which feature x is */
};

/* What lies beyond `limit` is cut off. */
static inline int32_t outpost_scaled(const struct outpost_scale *scale, const int16_t *features,
                                     int32_t limit)
{
    int32_t value = scale->gain * features[scale->column] - scale->offset;
    int left = 0;
    if (scale->shift >= 0) {
        value >>= scale->shift;
    } else {
        left = -scale->shift;
        limit >>= left;
    }
    value = value > limit ? limit : value < -limit ? -limit : value;
    return (int32_t)((uint32_t)value << left);
}

#endif
