/* rewind.c: a native module for MicroPython's unix port that lets one process live wake after wake.
 *
 * mark() remembers all that the process is: every byte of its memory that can be written, its
 * registers, its files and folder. back(mark, 0) makes it that again, so that mark() returns once
 * more, to a process in which nothing has happened since. back(mark, code) ends it. What a wake did
 * to the memory is overwritten, what it mapped or opened is gone, what it closed is open; which
 * objects MicroPython or the C library keep where plays no part. Machine code is not written to:
 * what a wake loads is mapped anew.
 *
 * System calls are made directly: there is no C library to link with.
 */
#include "abi.h"

extern const mp_type_t mp_type_fun_builtin_0 MP_OBJECT(77);

enum {
    READ = 0, OPEN = 2, CLOSE = 3, MMAP = 9, MUNMAP = 11, BRK = 12, FCNTL = 72, FCHDIR = 81,
    GETDENTS = 217, EXIT_GROUP = 231, DUP3 = 292, CLOSE_RANGE = 436
};
enum { PAGE = 4096, MOST = 62, ROOM = 4 << 20 };

typedef struct {
    unsigned long from, to; /* a mapping */
    unsigned long first;    /* from here on it is kept; `to` where it is not */
    unsigned char *kept;
} region_t;

typedef struct {
    unsigned long registers[8]; /* rbx rbp r12 r13 r14 r15 rsp rip */
    unsigned long end;          /* of what brk() gave */
    long folder;
    long files, file[2 * MOST]; /* numbers of those that are open, then of duplicates of them */
    long count;
    region_t regions[MOST];
    unsigned char stack[2 * PAGE]; /* to stand on while the stack is put back */
    unsigned char kept[];
} mark_t;

static long call(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

#define CALL(number, a, b, c) call(number, (long)(a), (long)(b), (long)(c), 0, 0, 0)

static void copy(void *to, const void *from, unsigned long size)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
}

/* Return 0 now, and 1 whenever the registers are loaded again. */
__attribute__((naked, noinline, returns_twice)) static long registers_of(unsigned long *to)
{
    __asm__("mov %rbx, 0(%rdi)\n mov %rbp, 8(%rdi)\n mov %r12, 16(%rdi)\n mov %r13, 24(%rdi)\n"
            "mov %r14, 32(%rdi)\n mov %r15, 40(%rdi)\n lea 8(%rsp), %rax\n mov %rax, 48(%rdi)\n"
            "mov (%rsp), %rax\n mov %rax, 56(%rdi)\n xor %eax, %eax\n ret");
}

static void fail(void)
{
    CALL(EXIT_GROUP, 70, 0, 0); /* which the world takes for a crash */
}

/* --- the mark --- */

/* Read a line of /proc/self/maps into `found`; what may be written there is kept, but no code. */
static const char *mapping(const char *text, region_t *found, unsigned long stack)
{
    unsigned long numbers[2] = {0, 0};
    for (int i = 0; i < 2; text++, i++) {
        for (; *text != '-' && *text != ' '; text++) {
            numbers[i] = numbers[i] << 4 | (unsigned long)(*text > '9' ? *text - 'a' + 10
                                                                       : *text - '0');
        }
    }
    found->from = numbers[0];
    found->to = numbers[1];
    found->first = found->to;
    if (text[1] == 'w' && text[2] != 'x' && text[3] == 'p') {
        found->first = found->from;
        if (found->from <= stack && stack < found->to) { /* below it nothing counts */
            found->first = stack;
        }
    }
    while (*text != '\n') {
        text++;
    }
    return text + 1;
}

static void keep_memory(mark_t *mark)
{
    unsigned long stack = mark->registers[6] - 128;
    char *text = (char *)mark->kept; /* its place is needed afterwards only */
    long file = CALL(OPEN, "/proc/self/maps", 0, 0), size, length = 0;
    while ((size = CALL(READ, file, text + length, PAGE)) > 0) {
        length += size;
    }
    CALL(CLOSE, file, 0, 0);
    mark->count = 0;
    for (const char *at = text; at < text + length;) {
        if (mark->count == MOST) {
            fail();
        }
        region_t *found = &mark->regions[mark->count];
        at = mapping(at, found, stack);
        mark->count += !(found->from >> 47); /* above is the kernel's */
    }
    unsigned char *place = mark->kept;
    for (long i = 0; i < mark->count; i++) {
        region_t *one = &mark->regions[i];
        unsigned long bytes = one->to - one->first;
        if (place + bytes > (unsigned char *)mark + ROOM) {
            fail();
        }
        one->kept = place;
        copy(place, (void *)one->first, bytes);
        place += bytes;
    }
}

static void keep_files(mark_t *mark)
{
    mark->folder = CALL(OPEN, ".", 0, 0);
    mark->files = 0;
    long list = CALL(OPEN, "/proc/self/fd", 0, 0), size;
    while ((size = CALL(GETDENTS, list, mark->kept, PAGE)) > 0) { /* in order */
        for (const unsigned char *at = mark->kept; at < mark->kept + size;) {
            long file = 0;
            const unsigned char *name = at + 19;
            for (; *name >= '0' && *name <= '9'; name++) {
                file = 10 * file + *name - '0';
            }
            if (name > at + 19 && file != list) {
                if (mark->files == MOST) {
                    fail();
                }
                mark->file[mark->files++] = file;
            }
            at += at[16] | at[17] << 8;
        }
    }
    CALL(CLOSE, list, 0, 0);
    long after = mark->file[mark->files - 1];
    for (long i = 0; i < mark->files; i++) {
        after = mark->file[mark->files + i] = CALL(FCNTL, mark->file[i], 0, after + 1); /* F_DUPFD */
        if (after < 0) {
            fail();
        }
    }
}

static mp_obj_t mark(void)
{
    /* shared: so it is told apart from what is kept, and never grows together with it */
    mark_t *made = (mark_t *)call(MMAP, 0, ROOM, 3, 0x4021, -1, 0); /* rw, anonymous, no reserve */
    if ((long)made < 0) {
        fail();
    }
    if (registers_of(made->registers) == 0) {
        made->end = (unsigned long)CALL(BRK, 0, 0, 0);
        keep_files(made);
        keep_memory(made);
    }
    return MP_SMALL_INT((unsigned long)made / PAGE);
}

/* --- back to it --- */

static void files_back(const mark_t *mark)
{
    for (long i = 0; i < mark->files; i++) {
        CALL(DUP3, mark->file[mark->files + i], mark->file[i], 0);
    }
    long free = 0;
    for (long i = 0; i < 2 * mark->files; free = mark->file[i++] + 1) {
        if (free < mark->file[i]) {
            CALL(CLOSE_RANGE, free, mark->file[i] - 1, 0);
        }
    }
    CALL(CLOSE_RANGE, free, ~0u, 0);
    CALL(FCHDIR, mark->folder, 0, 0);
}

static void memory_back(const mark_t *mark)
{
    if ((unsigned long)CALL(BRK, mark->end, 0, 0) != mark->end) {
        fail();
    }
    unsigned long from = 16 * PAGE; /* nothing may be mapped below */
    for (long i = 0; i <= mark->count; i++) {
        const region_t *one = &mark->regions[i];
        unsigned long to = i < mark->count ? one->from : (1ul << 47) - PAGE;
        if (from < to) {
            CALL(MUNMAP, from, to - from, 0);
        }
        if (i < mark->count) {
            from = one->to;
        }
    }
    for (long i = 0; i < mark->count; i++) {
        const region_t *one = &mark->regions[i];
        copy((void *)one->first, one->kept, one->to - one->first);
    }
}

static void all_back(const mark_t *mark)
{
    files_back(mark);
    memory_back(mark);
}

static mp_obj_t back(mp_obj_t given, mp_obj_t code)
{
    mark_t *mark = (mark_t *)(((unsigned long)given >> 1) * PAGE);
    if (code != MP_SMALL_INT(0)) {
        CALL(EXIT_GROUP, (long)code >> 1, 0, 0); /* of a small integer */
    }
    __asm__ volatile(
        "mov %[stack], %%rsp\n mov %[mark], %%rbx\n mov %[mark], %%rdi\n call *%[go]\n"
        "mov %%rbx, %%rdi\n mov 0(%%rdi), %%rbx\n mov 8(%%rdi), %%rbp\n mov 16(%%rdi), %%r12\n"
        "mov 24(%%rdi), %%r13\n mov 32(%%rdi), %%r14\n mov 40(%%rdi), %%r15\n"
        "mov 48(%%rdi), %%rsp\n mov $1, %%eax\n jmp *56(%%rdi)"
        :
        : [stack] "r"((unsigned long)(mark->stack + sizeof mark->stack) & -16ul), [mark] "r"(mark),
          [go] "r"(all_back)
        : "memory");
    __builtin_unreachable();
}

static const mp_fun_builtin_t mark_function = { &mp_type_fun_builtin_0, mark };
static const mp_fun_builtin_t back_function = { &mp_type_fun_builtin_2, back };

#define EXPORTS(EXPORT) \
    EXPORT(mark, &mark_function) \
    EXPORT(back, &back_function)

MP_MODULE(EXPORTS)
