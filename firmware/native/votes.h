/* votes.h: what the trees of a forest say, made into one answer.
 *
 * model.c defines OUTPOST_VOTE first:
 *   OUTPOST_HARD  a leaf is a class, and each tree has one vote
 *   OUTPOST_SOFT  a leaf is a place in outpost_leaves, which shares 255 points out among classes
 *   OUTPOST_SUM   a leaf is a value, and the answer is the sum
 *
 * With OUTPOST_EARLY_EXIT the trees that can no longer change the class are left out. It is the
 * class that all of them would have chosen; `votes` tells what those asked have said.
 */
#ifndef OUTPOST_VOTES_H
#define OUTPOST_VOTES_H

#include <stdint.h>

#define OUTPOST_HARD 0
#define OUTPOST_SOFT 1
#define OUTPOST_SUM 2

#define OUTPOST_INLINE static inline __attribute__((always_inline))

/* In the fast form, loops over a few classes are written out. */
#if OUTPOST_COMPACT
#define OUTPOST_EACH_CLASS
#else
#define OUTPOST_EACH_CLASS _Pragma("GCC unroll 16")
#endif

#if OUTPOST_VOTE == OUTPOST_SUM

struct outpost_count {
    int32_t sum;
};

OUTPOST_INLINE void outpost_begin(struct outpost_count *count, uint8_t *votes)
{
    (void)votes;
    count->sum = 0;
}

OUTPOST_INLINE int outpost_vote(struct outpost_count *count, uint8_t *votes, int32_t leaf,
                                int asked)
{
    (void)votes, (void)asked;
    count->sum += leaf;
    return 0;
}

OUTPOST_INLINE int32_t outpost_end(const struct outpost_count *count, uint8_t *votes)
{
    (void)votes;
    return count->sum;
}

#elif OUTPOST_VOTE == OUTPOST_HARD && OUTPOST_EARLY_EXIT

/* Each class has a rank, its votes times STEP less its number: no two are equal, and of equal
 * votes the lowest class is ahead. How far the first is ahead of the second tells when to stop. */
#define OUTPOST_STEP (OUTPOST_CLASSES <= 16 ? 16 : 256)
#define OUTPOST_RANK(which) ((int32_t)votes[which] * OUTPOST_STEP - (which))

struct outpost_count {
    int32_t first; /* class */
    int32_t ahead; /* in rank */
};

OUTPOST_INLINE void outpost_begin(struct outpost_count *count, uint8_t *votes)
{
    count->first = 0;
    count->ahead = 1;
    OUTPOST_EACH_CLASS
    for (int i = 0; i < OUTPOST_CLASSES; i++) {
        votes[i] = 0;
    }
}

/* Count one vote; true if that of no other tree matters any more. */
OUTPOST_INLINE int outpost_vote(struct outpost_count *count, uint8_t *votes, int32_t leaf,
                                int asked)
{
    votes[leaf]++;
    if (__builtin_expect(leaf == count->first, 1)) {
        count->ahead += OUTPOST_STEP;
    } else {
        int32_t ahead = OUTPOST_RANK(count->first) - OUTPOST_RANK(leaf);
        if (ahead < 0) {
            count->first = leaf;
            count->ahead = -ahead;
        } else if (ahead < count->ahead) {
            count->ahead = ahead;
        }
    }
    int left = OUTPOST_TREES - asked;
    return asked >= left && count->ahead > left * OUTPOST_STEP;
}

OUTPOST_INLINE int32_t outpost_end(const struct outpost_count *count, uint8_t *votes)
{
    (void)votes;
    return count->first;
}

#else

struct outpost_count {
#if OUTPOST_VOTE == OUTPOST_SOFT
    uint16_t points[OUTPOST_CLASSES];
#else
    uint8_t *points;
#endif
};

OUTPOST_INLINE void outpost_begin(struct outpost_count *count, uint8_t *votes)
{
#if OUTPOST_VOTE == OUTPOST_SOFT
    (void)votes;
#else
    count->points = votes;
#endif
    OUTPOST_EACH_CLASS
    for (int i = 0; i < OUTPOST_CLASSES; i++) {
        count->points[i] = 0;
    }
}

OUTPOST_INLINE int32_t outpost_best(const struct outpost_count *count)
{
    int32_t best = 0;
    unsigned most = count->points[0];
    OUTPOST_EACH_CLASS
    for (int i = 1; i < OUTPOST_CLASSES; i++) {
        if (__builtin_expect(count->points[i] > most, 0)) {
            most = count->points[i];
            best = i;
        }
    }
    return best;
}

OUTPOST_INLINE int32_t outpost_end(const struct outpost_count *count, uint8_t *votes)
{
#if OUTPOST_VOTE == OUTPOST_SOFT
    OUTPOST_EACH_CLASS
    for (int i = 0; i < OUTPOST_CLASSES; i++) {
        votes[i] = (uint8_t)(count->points[i] >> OUTPOST_POINTS_SHIFT);
    }
#else
    (void)votes;
#endif
    return outpost_best(count);
}

#if OUTPOST_VOTE == OUTPOST_SOFT

/* A leaf is a list of points in the low byte, class in the next seven bits, one for each class
 * that has any; the last has the highest bit set. */
OUTPOST_INLINE void outpost_share(struct outpost_count *count, int32_t leaf)
{
    const uint16_t *entry = &outpost_leaves[leaf];
    unsigned share;
    do {
        share = *entry++;
        count->points[share >> 8 & 0x7F] += share & 0xFF;
    } while ((share & 0x8000) == 0);
}

OUTPOST_INLINE int outpost_vote(struct outpost_count *count, uint8_t *votes, int32_t leaf,
                                int asked)
{
    (void)votes;
    outpost_share(count, leaf);
#if OUTPOST_EARLY_EXIT
    int left = OUTPOST_TREES - asked;
    if (asked >= left) {
        int32_t best = outpost_best(count);
        int32_t most = count->points[best], gain = left * 255;
        for (int i = 0; i < OUTPOST_CLASSES; i++) {
            if (i != best && count->points[i] + gain + (i < best) > most) {
                return 0;
            }
        }
        return 1;
    }
#endif
    (void)asked;
    return 0;
}

#else

OUTPOST_INLINE int outpost_vote(struct outpost_count *count, uint8_t *votes, int32_t leaf,
                                int asked)
{
    (void)count, (void)asked;
    votes[leaf]++;
    return 0;
}

#endif
#endif
#endif
