/* As much of a C library as emlearn's trees ask for; freestanding compilers have none. */
#include <stddef.h>
void *memset(void *to, int value, size_t length);
void *memcpy(void *to, const void *from, size_t length);
