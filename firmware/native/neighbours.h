/* neighbours.h: the training windows nearest to a window have a vote each. */
#ifndef OUTPOST_NEIGHBOURS_H
#define OUTPOST_NEIGHBOURS_H

/* The squared distance to an item, or any number that is not less than `far`. */
static uint64_t outpost_distance(const int16_t *z, const outpost_item_t *item, uint64_t far)
{
    uint64_t sum = 0;
    for (int i = 0; i < OUTPOST_LINES && sum < far; i++) {
        int32_t apart = z[i] - item[i];
        uint32_t size = apart < 0 ? (uint32_t)-apart : (uint32_t)apart;
        sum += size * size;
    }
    return sum;
}

static int32_t outpost_predict(const int16_t *features, uint8_t *votes)
{
    int16_t z[OUTPOST_LINES];
    uint64_t near[OUTPOST_NEAREST]; /* nearest first */
    uint8_t label[OUTPOST_NEAREST];
    for (int i = 0; i < OUTPOST_LINES; i++) {
        z[i] = (int16_t)outpost_scaled(&outpost_scales[i], features, OUTPOST_FAR);
    }
    for (int i = 0; i < OUTPOST_NEAREST; i++) {
        near[i] = UINT64_MAX;
        label[i] = 0;
    }
    for (int i = 0; i < OUTPOST_ITEMS; i++) {
        uint64_t far = near[OUTPOST_NEAREST - 1];
        uint64_t distance = outpost_distance(z, &outpost_items[i * OUTPOST_LINES], far);
        if (distance < far) {
            int at = OUTPOST_NEAREST - 1;
            for (; at > 0 && near[at - 1] > distance; at--) {
                near[at] = near[at - 1];
                label[at] = label[at - 1];
            }
            near[at] = distance;
            label[at] = outpost_labels[i];
        }
    }
    for (int i = 0; i < OUTPOST_CLASSES; i++) {
        votes[i] = 0;
    }
    for (int i = 0; i < OUTPOST_NEAREST; i++) {
        votes[label[i]]++;
    }
    int32_t best = 0;
    for (int i = 1; i < OUTPOST_CLASSES; i++) {
        if (votes[i] > votes[best]) {
            best = i;
        }
    }
    return best;
}

#endif
