/* fork.c: a native module for MicroPython's unix port: serve() returns once in each new child.
 *
 * What has been imported before is there in every child, and nothing that a child does reaches
 * the next one, because the process they are copies of waits meanwhile. A child that doesn't end
 * in peace takes its parent with it, in the same way, so that whoever started the two sees one
 * process end. System calls are made directly: there is no C library to link with.
 */
#include "abi.h"

extern const mp_type_t mp_type_fun_builtin_0 MP_OBJECT(77);

enum { FORK = 57, KILL = 62, WAIT4 = 61, EXIT_GROUP = 231, GETPID = 39 };
enum { EINTR = 4, SIGABRT = 6 };

static long call(long number, long a, long b, long c, long d)
{
    register long r10 __asm__("r10") = d;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}

static mp_obj_t serve(void)
{
    for (;;) {
        long child = call(FORK, 0, 0, 0, 0);
        if (child == 0) {
            return mp_none;
        }
        int status = SIGABRT;
        while (child > 0 && call(WAIT4, child, (long)&status, 0, 0) == -EINTR) {
        }
        int signal = status & 127;
        if (signal) {
            call(KILL, call(GETPID, 0, 0, 0, 0), signal, 0, 0);
        }
        if (status) {
            call(EXIT_GROUP, signal ? 128 + signal : status >> 8 & 255, 0, 0, 0);
        }
    }
}

static const mp_fun_builtin_t serve_function = { &mp_type_fun_builtin_0, serve };

static const char export_names[] __attribute__((section(".mpy.names"), used)) = "serve\0";
static const mp_obj_t export_values[] = { &serve_function };

mp_obj_t outpost_module(const mp_fun_t *self, size_t arguments, size_t keywords, const mp_obj_t *);
mp_obj_t outpost_module(const mp_fun_t *self, size_t arguments, size_t keywords,
                        const mp_obj_t *values)
{
    (void)self, (void)arguments, (void)keywords, (void)values;
    mp_store_global(mp_qstr_table[1], export_values[0]);
    return mp_none;
}
