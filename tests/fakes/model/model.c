#define OUTPOST_VOTE OUTPOST_HARD
#include "votes.h"
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

static int32_t outpost_predict(const int16_t *features, uint8_t *votes)
{
    OUTPOST_LOOK(features)
    struct outpost_count count;
    outpost_begin(&count, votes);
    outpost_vote(&count, votes, outpost_tree_0(OUTPOST_HERE), 1);
    outpost_vote(&count, votes, outpost_tree_1(OUTPOST_HERE), 2);
    outpost_vote(&count, votes, outpost_tree_2(OUTPOST_HERE), 3);
    return outpost_end(&count, votes);
}
