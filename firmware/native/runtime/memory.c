/* memory.c: what compilers call to copy and fill; MicroPython has it already. */
#include "abi.h"

void *memcpy(void *to, const void *from, size_t length);
void *memmove(void *to, const void *from, size_t length);
void *memset(void *to, int value, size_t length);

void *memcpy(void *to, const void *from, size_t length)
{
    return mp_memmove(to, from, length);
}

void *memmove(void *to, const void *from, size_t length)
{
    return mp_memmove(to, from, length);
}

void *memset(void *to, int value, size_t length)
{
    return mp_memset(to, value, length);
}

#if defined(__arm__) /* the same by the names of Arm's run-time ABI, which returns nothing */

#define COPY(name) \
    void name(void *to, const void *from, size_t length); \
    void name(void *to, const void *from, size_t length) { mp_memmove(to, from, length); }
COPY(__aeabi_memcpy)
COPY(__aeabi_memcpy4)
COPY(__aeabi_memcpy8)
COPY(__aeabi_memmove)
COPY(__aeabi_memmove4)
COPY(__aeabi_memmove8)

#define FILL(name) \
    void name(void *to, size_t length, int value); \
    void name(void *to, size_t length, int value) { mp_memset(to, value, length); }
FILL(__aeabi_memset)
FILL(__aeabi_memset4)
FILL(__aeabi_memset8)

#define CLEAR(name) \
    void name(void *to, size_t length); \
    void name(void *to, size_t length) { mp_memset(to, 0, length); }
CLEAR(__aeabi_memclr)
CLEAR(__aeabi_memclr4)
CLEAR(__aeabi_memclr8)

#endif
