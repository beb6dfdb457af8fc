/* nodes.h: the compact form of a forest: its trees as a table of nodes, and a loop over them.
 *
 * A node is one word: threshold (signed, highest bits), feature, where to go if the feature is not
 * below the threshold, and (lowest bits) if it is. A number below OUTPOST_LEAVES is a leaf, others
 * count the nodes of the tree. How many bits each part has is worked out for each model; 32 are
 * enough for all but very wide or very large ones, which take 64.
 */
#ifndef OUTPOST_NODES_H
#define OUTPOST_NODES_H

#include <stdint.h>

static inline unsigned outpost_walk(const outpost_node_t *tree, const int16_t *features)
{
    const unsigned child = (1u << OUTPOST_CHILD_BITS) - 1;
    const unsigned feature = (1u << OUTPOST_FEATURE_BITS) - 1;
    uintptr_t start = (uintptr_t)tree - OUTPOST_LEAVES * sizeof *tree;
    __asm__("" : "+r"(start)); /* or the subtraction would be done in the loop */
    unsigned next = OUTPOST_LEAVES;
    do {
        outpost_node_t node = *(const outpost_node_t *)(start + next * sizeof node);
        int32_t value = features[(unsigned)(node >> 2 * OUTPOST_CHILD_BITS) & feature];
        if (value >= (int32_t)(node >> (8 * sizeof node - 32)) >> (32 - OUTPOST_THRESHOLD_BITS)) {
            node >>= OUTPOST_CHILD_BITS;
        }
        next = (unsigned)node & child;
    } while (next >= OUTPOST_LEAVES);
    return next;
}

static int32_t outpost_predict(const int16_t *features, uint8_t *votes)
{
    struct outpost_count count;
    outpost_begin(&count, votes);
    const outpost_node_t *tree = outpost_nodes;
    for (int asked = 1; asked <= OUTPOST_TREES; asked++) {
        int32_t leaf = (int32_t)outpost_walk(tree, features);
#if OUTPOST_VOTE == OUTPOST_SUM
        leaf = outpost_values[leaf];
#endif
        if (outpost_vote(&count, votes, leaf, asked)) {
            break;
        }
        tree += outpost_sizes[asked - 1];
    }
    return outpost_end(&count, votes);
}

#endif
