/* mixture.h: full normal distributions, one or several: as classes, or to tell the unusual. */
#ifndef OUTPOST_MIXTURE_H
#define OUTPOST_MIXTURE_H

/* The cost of one component; `row` and `factor` move on to the next. */
static int64_t outpost_component(const int16_t *features, const struct outpost_row **row,
                                 const int32_t **factor)
{
    uint64_t sum = 0;
    for (int i = 0; i < OUTPOST_LINES; i++) {
        int64_t value = -(*row)->start;
        for (int j = 0; j <= i; j++) {
            value += (int64_t)features[outpost_columns[j]] * *(*factor)++;
        }
        value >>= (*row)++->shift;
        sum += outpost_squared((int32_t)(value > OUTPOST_FAR    ? OUTPOST_FAR
                                         : value < -OUTPOST_FAR ? -OUTPOST_FAR
                                                                : value));
    }
    return (int64_t)sum;
}

#ifdef OUTPOST_THRESHOLD

/* Of costs a and b: that of both together, which is less than either. */
static int64_t outpost_together(int64_t a, int64_t b)
{
    int64_t less = a < b ? a : b, step = (a < b ? b - a : a - b) >> OUTPOST_SUM_SHIFT;
    return less - outpost_sums[step < OUTPOST_SUM_STEPS ? step : OUTPOST_SUM_STEPS];
}

#endif

static int32_t outpost_predict(const int16_t *features, uint8_t *votes)
{
    const struct outpost_row *row = outpost_rows;
    const int32_t *factor = outpost_factors;
#ifdef OUTPOST_THRESHOLD
    int64_t cost = 0;
    for (int i = 0; i < OUTPOST_COMPONENTS; i++) {
        int64_t one = outpost_prior[i] + outpost_component(features, &row, &factor);
        cost = i == 0 ? one : outpost_together(cost, one);
    }
    int32_t chosen = cost <= OUTPOST_THRESHOLD ? OUTPOST_USUAL : 1 - OUTPOST_USUAL;
    votes[chosen] = 255;
    votes[1 - chosen] = 0;
    return chosen;
#else
    int64_t cost[OUTPOST_CLASSES];
    for (int i = 0; i < OUTPOST_CLASSES; i++) {
        cost[i] = outpost_prior[i] + outpost_component(features, &row, &factor);
    }
    return outpost_margins(cost, votes);
#endif
}

#endif
