/* features.h: what the features of a window are. Definitions: docs/features.md.
 *
 * A signal is one channel, or the magnitude of neighbouring channels as a vector. Each row of
 * OUTPOST_PLAN (generated, in model.h) names a signal and the statistics wanted of it; features
 * come out row by row and within a row in the order of the bits below.
 */
#ifndef OUTPOST_FEATURES_H
#define OUTPOST_FEATURES_H

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

/* Compute OUTPOST_FEATURES features of a window of OUTPOST_WINDOW samples, each of
 * OUTPOST_CHANNELS interleaved int16. */
static void outpost_features(const int16_t *window, int16_t *out);

#endif
