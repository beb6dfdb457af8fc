/* features.c: integer features of one window of samples; no float, no heap, no divide instruction.
 * module.c includes it after model.h; the host compiles the same text for training.
 *
 * A signal is one channel, or the magnitude of neighbouring channels as a vector. Each row of
 * OUTPOST_PLAN (generated, in model.h) names a signal and the statistics wanted of it; features
 * come out row by row and within a row in the order of the bits below.
 */
#include <stdint.h>

/* x: the samples of a signal, N: how many, m: their mean; every result saturates at 32767 */
#define OUTPOST_MEAN          0x001u /* m = floor(sum x / N) */
#define OUTPOST_DEVIATION     0x002u /* standard deviation: isqrt(sum (x - m)^2 / N) */
#define OUTPOST_MAD           0x004u /* mean absolute deviation: sum |x - m| / N */
#define OUTPOST_MIN           0x008u
#define OUTPOST_MAX           0x010u
#define OUTPOST_ENERGY        0x020u /* root of the mean energy: isqrt(sum x^2 / N) */
#define OUTPOST_PEAK_TO_PEAK  0x040u /* max - min */
#define OUTPOST_CROSSINGS     0x080u /* how often x goes from above m to not above it, or back */
#define OUTPOST_JERK          0x100u /* isqrt(sum (x[i] - x[i-1])^2 / N) */

#if OUTPOST_RAW

static void outpost_features(const int16_t *window, int16_t *out)
{
    for (int i = 0; i < OUTPOST_FEATURES; i++) {
        out[i] = window[i];
    }
}

#else

#if OUTPOST_WINDOW < 2 || OUTPOST_WINDOW > 1024
#error "the sums below hold for windows of 2 to 1024 samples"
#endif

struct outpost_signal {
    uint8_t first, count; /* channels first .. first + count - 1; count <= 3 */
    uint16_t statistics;
};

static const struct outpost_signal outpost_plan[] = { OUTPOST_PLAN };

static int16_t outpost_saturate(uint32_t value)
{
    return (int16_t)(value > 32767u ? 32767u : value);
}

/* 15 bits of root are enough: from 2^30 on it comes out as 32767, where everything saturates. */
static uint32_t outpost_isqrt(uint32_t value)
{
    uint32_t root = 0;
    for (uint32_t bit = 1u << 28; bit != 0; bit >>= 2) {
        uint32_t trial = root + bit;
        root >>= 1;
        if (value >= trial) {
            value -= trial;
            root += bit;
        }
    }
    return root;
}

/* sum / OUTPOST_WINDOW, for sums below 2^32 a sample */
static uint32_t outpost_per_sample(uint64_t sum)
{
#if (OUTPOST_WINDOW & (OUTPOST_WINDOW - 1)) == 0
    return (uint32_t)(sum / OUTPOST_WINDOW); /* a shift */
#else
    /* Digit by digit, because a Cortex-M0+ has no divide and a 64-bit one is a library's call. */
    uint32_t rest = (uint32_t)(sum >> 32), low = (uint32_t)sum, quotient = 0;
    for (int bit = 0; bit < 32; bit++) {
        rest = (rest << 1) | (low >> 31);
        low <<= 1;
        quotient <<= 1;
        if (rest >= OUTPOST_WINDOW) {
            rest -= OUTPOST_WINDOW;
            quotient |= 1u;
        }
    }
    return quotient;
#endif
}

/* Squares as unsigned: the difference of two int16 reaches 65535, its square fits only so. */
static uint32_t outpost_square(int32_t value)
{
    uint32_t size = value < 0 ? (uint32_t)-value : (uint32_t)value;
    return size * size;
}

/* Lay the samples of one signal side by side. */
static void outpost_gather(const struct outpost_signal *signal, const int16_t *window, int16_t *x)
{
    window += signal->first;
    for (int i = 0; i < OUTPOST_WINDOW; i++, window += OUTPOST_CHANNELS) {
#if OUTPOST_MAGNITUDES
        if (signal->count > 1) {
            uint32_t sum = 0; /* three squares of 2^30 fit */
            for (int c = 0; c < signal->count; c++) {
                sum += outpost_square(window[c]);
            }
            x[i] = outpost_saturate(outpost_isqrt(sum));
            continue;
        }
#endif
        x[i] = *window;
    }
}

/* What measures an amplitude may lose bits that the model does not need: thresholds then fit an
 * immediate operand, and tables a narrower word. A shift of a negative int rounds down everywhere. */
#ifndef OUTPOST_SHIFT
#define OUTPOST_SHIFT 0
#endif

/* Sums for statistics that no signal wants are constant zero: the compiler drops them. */
#define WANTED(statistic) ((OUTPOST_STATISTICS & (statistic)) != 0)
#define EMIT(statistic, value) \
    if (WANTED(statistic) && (signal->statistics & (statistic)) != 0) { \
        *out++ = (int16_t)((value) >> ((statistic) == OUTPOST_CROSSINGS ? 0 : OUTPOST_SHIFT)); \
    }

static int16_t *outpost_summarise(const struct outpost_signal *signal, const int16_t *x,
                                  int16_t *out)
{
    int32_t sum = 0, least = x[0], most = x[0];
    uint64_t energy = 0, jerk = 0;
    for (int i = 0; i < OUTPOST_WINDOW; i++) {
        int32_t value = x[i];
        sum += value;
        if (WANTED(OUTPOST_MIN | OUTPOST_PEAK_TO_PEAK) && value < least) {
            least = value;
        }
        if (WANTED(OUTPOST_MAX | OUTPOST_PEAK_TO_PEAK) && value > most) {
            most = value;
        }
        if (WANTED(OUTPOST_ENERGY)) {
            energy += outpost_square(value);
        }
        if (WANTED(OUTPOST_JERK) && i > 0) {
            jerk += outpost_square(value - x[i - 1]);
        }
    }

    int32_t mean = 0;
    uint32_t distance = 0, crossings = 0;
    uint64_t spread = 0;
    if (WANTED(OUTPOST_MEAN | OUTPOST_DEVIATION | OUTPOST_MAD | OUTPOST_CROSSINGS)) {
        /* shifted to be positive, so that dividing rounds down */
        mean = (int32_t)outpost_per_sample((uint64_t)(sum + 32768 * OUTPOST_WINDOW)) - 32768;
    }
    if (WANTED(OUTPOST_DEVIATION | OUTPOST_MAD | OUTPOST_CROSSINGS)) {
        int was_above = x[0] > mean;
        for (int i = 0; i < OUTPOST_WINDOW; i++) {
            int32_t off = x[i] - mean;
            if (WANTED(OUTPOST_DEVIATION)) {
                spread += outpost_square(off);
            }
            if (WANTED(OUTPOST_MAD)) {
                distance += (uint32_t)(off < 0 ? -off : off);
            }
            if (WANTED(OUTPOST_CROSSINGS)) {
                int above = off > 0;
                crossings += (uint32_t)(above ^ was_above);
                was_above = above;
            }
        }
    }

    EMIT(OUTPOST_MEAN, (int16_t)mean)
    EMIT(OUTPOST_DEVIATION, outpost_saturate(outpost_isqrt(outpost_per_sample(spread))))
    EMIT(OUTPOST_MAD, outpost_saturate(outpost_per_sample(distance)))
    EMIT(OUTPOST_MIN, (int16_t)least)
    EMIT(OUTPOST_MAX, (int16_t)most)
    EMIT(OUTPOST_ENERGY, outpost_saturate(outpost_isqrt(outpost_per_sample(energy))))
    EMIT(OUTPOST_PEAK_TO_PEAK, outpost_saturate((uint32_t)(most - least)))
    EMIT(OUTPOST_CROSSINGS, (int16_t)crossings)
    EMIT(OUTPOST_JERK, outpost_saturate(outpost_isqrt(outpost_per_sample(jerk))))
    return out;
}

#undef EMIT
#undef WANTED

/* Compute OUTPOST_FEATURES features of OUTPOST_WINDOW samples of OUTPOST_CHANNELS interleaved. */
static void outpost_features(const int16_t *window, int16_t *out)
{
    int16_t x[OUTPOST_WINDOW];
    for (unsigned i = 0; i < sizeof outpost_plan / sizeof outpost_plan[0]; i++) {
        outpost_gather(&outpost_plan[i], window, x);
        out = outpost_summarise(&outpost_plan[i], x, out);
    }
}

#endif
