#define OUTPOST_LEAST_THRESHOLD (-300)
#include "trees.h"

static int outpost_tree_0(OUTPOST_AT)
{
    return OUTPOST_BELOW(0, 10) ? 0 : OUTPOST_BELOW(1, -300) ? 1 : 2;
}

static int outpost_tree_1(OUTPOST_AT)
{
    return OUTPOST_BELOW(7, 1000) ? (OUTPOST_BELOW(2, 0) ? 1 : 2) : 0;
}

static int outpost_tree_2(OUTPOST_AT)
{
    return OUTPOST_BELOW(3, 5) ? 0 : 1;
}

static void outpost_tree_votes(const int16_t *features, uint8_t *votes)
{
    OUTPOST_LOOK(features)
    votes[outpost_tree_0(OUTPOST_HERE)]++;
    votes[outpost_tree_1(OUTPOST_HERE)]++;
    votes[outpost_tree_2(OUTPOST_HERE)]++;
}
