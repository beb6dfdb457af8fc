/* net.h: a dense network in int8: sums in 32 bits, shifted and cut off between layers. */
#ifndef OUTPOST_NET_H
#define OUTPOST_NET_H

#include <stdint.h>

struct outpost_layer {
    uint8_t inputs, outputs, shift;
};

static const struct outpost_layer outpost_layers[] = { OUTPOST_LAYER_TABLE };

static int32_t outpost_predict(const int16_t *features, uint8_t *votes)
{
    int8_t values[2][OUTPOST_WIDEST];
    int32_t sums[OUTPOST_CLASSES];
    const int8_t *weight = outpost_weights;
    const int32_t *bias = outpost_biases;
    for (int i = 0; i < OUTPOST_LINES; i++) {
        values[0][i] = (int8_t)outpost_scaled(&outpost_scales[i], features, 127);
    }
    for (int i = 0; i < OUTPOST_LAYERS; i++) {
        const struct outpost_layer *layer = &outpost_layers[i];
        const int8_t *in = values[i & 1];
        int8_t *out = values[~i & 1];
        for (int j = 0; j < layer->outputs; j++) {
            int32_t sum = *bias++;
            for (int k = 0; k < layer->inputs; k++) {
                sum += in[k] * *weight++;
            }
            if (i == OUTPOST_LAYERS - 1) {
                sums[j] = sum;
                continue;
            }
            sum >>= layer->shift;
            out[j] = (int8_t)(sum > 127 ? 127 : sum < OUTPOST_LEAST ? OUTPOST_LEAST : sum);
        }
    }
    int32_t best = 0;
    for (int i = 1; i < OUTPOST_CLASSES; i++) {
        if (sums[i] > sums[best]) {
            best = i;
        }
    }
    for (int i = 0; i < OUTPOST_CLASSES; i++) {
        int32_t behind = (sums[best] - sums[i]) >> OUTPOST_VOTE_SHIFT;
        votes[i] = (uint8_t)(behind > 255 ? 0 : 255 - behind);
    }
    return best;
}

#endif
