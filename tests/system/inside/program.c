/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A user program that uses much of a processor and a kernel, and prints what came of it: the same
 * line for line wherever it runs.
 */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static uint64_t seed = 88172645463325252;

static uint64_t next(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static uint64_t mix(uint64_t h, uint64_t v)
{
    return (h ^ v) * 0x100000001b3 + (h >> 31);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void sorting(void)
{
    static uint64_t v[20000];
    for (int i = 0; i < 20000; i++)
        v[i] = next();
    qsort(v, 20000, sizeof(v[0]), compare);
    uint64_t h = 0;
    for (int i = 0; i < 20000; i++)
        h = mix(h, v[i]);
    printf("sorted %016lx\n", h);
}

static void integers(void)
{
    uint64_t h = 0;
    for (int i = 0; i < 20000; i++) {
        uint64_t a = next(), b = next() >> (i % 60);
        unsigned __int128 p = (unsigned __int128)a * b;
        int64_t c = (int64_t)a, d = (int64_t)(b | 1);
        h = mix(h, (uint64_t)(p >> 64) ^ (uint64_t)p);
        h = mix(h, (uint64_t)(p % (b | 1)));
        h = mix(h, (uint64_t)(c % d) + (uint64_t)(c / d));
        h = mix(h, (uint32_t)a % ((uint32_t)b | 1) + (uint16_t)((uint16_t)a / ((uint8_t)b | 1)));
        h = mix(h, (uint64_t)__builtin_popcountll(a) + (uint64_t)__builtin_clzll(a | 1) * 64 + (uint64_t)__builtin_ctzll(b | 1ull << 63));
        h = mix(h, __builtin_bswap64(a) + (a << (b & 63) | a >> (-b & 63)));
        int64_t s;
        h = mix(h, (uint64_t)__builtin_add_overflow(c, d, &s) + (uint64_t)s);
        h = mix(h, (uint64_t)__builtin_mul_overflow(c, d, &s));
    }
    printf("integers %016lx\n", h);
}

static uint64_t bits(double d)
{
    uint64_t v;
    memcpy(&v, &d, 8);
    return v;
}

static void floats(void)
{
    static double (*const fns[])(double) = { sin, cos, tan, exp, log, sqrt, cbrt, atan, sinh, erf, tgamma, floor, rint };
    uint64_t h = 0;
    long double l = 1;
    float f = 1;
    for (int i = 1; i < 2000; i++) {
        double x = (double)(next() >> 11) / (double)(1 << 30) / (1 << i % 25);
        for (unsigned j = 0; j < sizeof(fns) / sizeof(fns[0]); j++)
            h = mix(h, bits(fns[j](x)));
        h = mix(h, bits(pow(x, 1.5)) ^ bits(fmod(x, 0.37)) ^ bits(fma(x, x, -x)));
        l = l * 1.0000001L + sinl((long double)x) / 3;
        f = f * 0.75f - (float)x / (f * f + 2);
        h = mix(h, (uint64_t)(int64_t)llrint(x) + (uint64_t)(int64_t)(float)x);
    }
    printf("floats %016lx %.20Lg %a %.17g %e\n", h, l, (double)f, 1 / 3.0, 5e-324);
}

static void strings(void)
{
    char a[600], b[600] = { 0 };
    uint64_t h = 0;
    for (int i = 0; i < 6000; i++) {
        size_t off = next() % 64, len = next() % 500, to = next() % 64;
        memset(a, 'a' + i % 26, sizeof(a));
        a[off + len] = 0;
        strcpy(b + to, a + off);
        h = mix(h, strlen(b + to) + (uint64_t)(strchr(a + off, 0) - a));
        b[to + len / 2] ^= 1;
        h = mix(h, (uint64_t)(memcmp(a + off, b + to, len) != 0) + (uint64_t)(strcmp(a + off, b + to) > 0));
        memmove(b + to, b + off, len);
        h = mix(h, memchr(b, 0, sizeof(b)) ? (uint64_t)((char *)memchr(b, 0, sizeof(b)) - b) : 1000);
    }
    printf("strings %016lx\n", h);
}

/* --- signals: a fault's address, registers changed by the handler, and going on --- */

static sigjmp_buf back;
static volatile uintptr_t fault_at;
static volatile int fault_signal;

static void on_signal(int number, siginfo_t *info, void *context)
{
    fault_signal = number;
    fault_at = (uintptr_t)info->si_addr;
    siglongjmp(back, 1);
}

static void on_trap(int number, siginfo_t *info, void *context)
{
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = 4711; /* what the asm below reads */
}

static void signals(void)
{
    static const int numbers[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL };
    struct sigaction s = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };
    for (int i = 0; i < 4; i++)
        sigaction(numbers[i], &s, NULL);
    char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(p + 4096, 4096, PROT_NONE);
    uint64_t h = 0;
    volatile int zero = 0;
    for (volatile int i = 0; i < 400; i++) {
        if (!sigsetjmp(back, 1)) {
            if (i % 4 == 0)
                *(volatile char *)(p + 4096 + i) = 1;
            if (i % 4 == 1)
                memset(p + 4000, 1, 200);
            if (i % 4 == 2)
                zero = i / zero;
            __asm__ volatile("ud2");
        }
        h = mix(h, (uint64_t)fault_signal * 10000 + (fault_signal == SIGSEGV ? fault_at - (uintptr_t)p : 0));
    }
    s.sa_sigaction = on_trap;
    sigaction(SIGTRAP, &s, NULL);
    uint64_t rax = 1;
    __asm__ volatile("int3" : "+a"(rax));
    printf("signals %016lx %lu\n", h, rax);
}

/* --- code made and changed at run time --- */

static void code(void)
{
    uint8_t *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < 3000; i++) {
        uint8_t *at = p + i * 7 % 4000;
        at[0] = 0xb8;
        memcpy(at + 1, &i, 4);
        at[5] = 0xc3;
        sum += ((uint32_t(*)(void))at)();
        if (i % 100 == 0) {
            mprotect(p, 4096, PROT_READ | PROT_EXEC);
            sum += ((uint32_t(*)(void))at)();
            mprotect(p, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
        }
    }
    printf("code %lu\n", sum);
}

/* --- threads and processes --- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t locked_sum, atomic_sum;

static void *thread(void *arg)
{
    for (uint64_t i = 0; i < 5000; i++) {
        pthread_mutex_lock(&lock);
        locked_sum += i;
        pthread_mutex_unlock(&lock);
        __atomic_fetch_add(&atomic_sum, (uint64_t)arg, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void threads(void)
{
    pthread_t t[4];
    for (uint64_t i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, thread, (void *)(i + 1));
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    printf("threads %lu %lu\n", locked_sum, atomic_sum);
}

static void processes(void)
{
    static uint64_t page[1024];
    uint64_t sum = 0;
    for (uint64_t i = 0; i < 40; i++) {
        int fd[2];
        if (pipe(fd))
            abort();
        page[i] = i;
        fflush(stdout);
        pid_t pid = fork();
        if (!pid) {
            page[i] += 1000; /* on a copy */
            if (write(fd[1], &page[i], 8) != 8)
                _exit(99);
            _exit((int)i);
        }
        uint64_t got = 0;
        int status;
        if (read(fd[0], &got, 8) != 8)
            abort();
        waitpid(pid, &status, 0);
        sum += got * 1000 + page[i] + (uint64_t)WEXITSTATUS(status);
        close(fd[0]);
        close(fd[1]);
    }
    printf("processes %lu\n", sum);
}

static uint64_t deep(uint64_t n)
{
    volatile uint64_t here[8] = { n };
    return n ? deep(n - 1) + here[0] : 0;
}

int main(void)
{
    sorting();
    integers();
    floats();
    strings();
    signals();
    code();
    threads();
    processes();
    printf("recursion %lu\n", deep(20000));
    return 0;
}
