/* bayes.h: Gaussian naive Bayes: for each class, a line for each feature. */
#ifndef OUTPOST_BAYES_H
#define OUTPOST_BAYES_H

static int32_t outpost_predict(const int16_t *features, uint8_t *votes)
{
    int64_t cost[OUTPOST_CLASSES];
    const struct outpost_scale *line = outpost_scales;
    for (int i = 0; i < OUTPOST_CLASSES; i++) {
        uint64_t sum = (uint64_t)outpost_prior[i];
        for (int j = 0; j < OUTPOST_LINES; j++) {
            sum += outpost_squared(outpost_scaled(line++, features, OUTPOST_FAR));
        }
        cost[i] = (int64_t)sum;
    }
    return outpost_margins(cost, votes);
}

#endif
