/* fork.c: a native module for MicroPython's unix port: serve() returns once in each new child, which
 * ends with leave(code).
 *
 * What has been imported before is there in every child, and nothing that a child does reaches
 * the next one, because the process they are copies of does nothing but divide and wait. The next
 * child is made while one lives, and let go when that one has ended. A child that doesn't end in
 * peace takes its parent with it, in the same way, so that whoever started the two sees one
 * process end. System calls are made directly: there is no C library to link with.
 */
#include "abi.h"

extern const mp_type_t mp_type_fun_builtin_0 MP_OBJECT(77);
extern const mp_type_t mp_type_fun_builtin_1 MP_OBJECT(78);

enum {
    READ = 0, WRITE = 1, CLOSE = 3, PIPE = 22, GETPID = 39, FORK = 57, WAIT4 = 61, KILL = 62,
    EXIT_GROUP = 231
};
enum { EINTR = 4, SIGABRT = 6, SIGKILL = 9 };

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

static int wait_for(long child)
{
    int status = SIGABRT;
    while (child > 0 && call(WAIT4, child, (long)&status, 0, 0) == -EINTR) {
    }
    return status;
}

/* Die as a child has died. */
static void follow(int status)
{
    int signal = status & 127;
    if (signal) {
        call(KILL, call(GETPID, 0, 0, 0, 0), signal, 0, 0);
    }
    call(EXIT_GROUP, signal ? 128 + signal : status >> 8 & 255, 0, 0, 0);
}

/* A child that waits until a byte comes through `gate`, or until its parent is no more. */
static long divide(int *gate)
{
    int ends[2] = { -1, -1 };
    call(PIPE, (long)ends, 0, 0, 0);
    long child = call(FORK, 0, 0, 0, 0);
    if (child == 0) {
        char go;
        call(CLOSE, ends[1], 0, 0, 0);
        if (call(READ, ends[0], (long)&go, 1, 0) != 1) {
            call(EXIT_GROUP, 1, 0, 0, 0);
        }
    }
    call(CLOSE, ends[0], 0, 0, 0);
    *gate = ends[1];
    return child;
}

static mp_obj_t serve(void)
{
    int gate;
    long next = divide(&gate);
    while (next != 0) {
        long child = next;
        call(WRITE, gate, (long)"", 1, 0);
        call(CLOSE, gate, 0, 0, 0);
        next = divide(&gate);
        if (next == 0) {
            break;
        }
        int status = wait_for(child);
        if (status) {
            call(KILL, next, SIGKILL, 0, 0);
            wait_for(next);
            follow(status);
        }
    }
    return mp_none;
}

/* End this process at once. */
static mp_obj_t leave(mp_obj_t code)
{
    call(EXIT_GROUP, (long)code >> 1, 0, 0, 0); /* of a small integer */
    return mp_none;
}

static const mp_fun_builtin_t serve_function = { &mp_type_fun_builtin_0, serve };
static const mp_fun_builtin_t leave_function = { &mp_type_fun_builtin_1, leave };

#define EXPORTS(EXPORT) \
    EXPORT(serve, &serve_function) \
    EXPORT(leave, &leave_function)

MP_MODULE(EXPORTS)
