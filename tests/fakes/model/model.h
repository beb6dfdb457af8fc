/* A model small enough to check by hand. */
#ifndef FAKE_MODEL_H
#define FAKE_MODEL_H

#define OUTPOST_VERSION 7
#define OUTPOST_WINDOW 4
#define OUTPOST_CHANNELS 2
#define OUTPOST_FEATURES 8
#define OUTPOST_CLASSES 3
#define OUTPOST_TREES 3
#define OUTPOST_RAW 1

#endif
