/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Messages and the debug log. Each message is formatted into one buffer and written by one write(2). */
#include "base/log.h"
#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

uint32_t log_items;
static const char *program = "ruche";
static bool timestamps;
static int debug_fd = STDERR_FILENO;

static pthread_mutex_t trace_lock = PTHREAD_MUTEX_INITIALIZER;
static char *trace_patterns[32];
static unsigned trace_count;

const struct log_item_name log_item_names[] = {
    { "in_asm", "guest instructions as they are decoded", LOG_IN_ASM },
    { "int", "interrupts and exceptions", LOG_INT },
    { "cpu", "processor state at every block", LOG_CPU },
    { "exec", "every block that is run", LOG_EXEC },
    { "mmu", "page faults and TLB flushes", LOG_MMU },
    { "guest_errors", "what a guest does against a device's rules", LOG_GUEST_ERRORS },
    { "unimp", "registers and functions that are not there", LOG_UNIMP },
    { "cpu_reset", "processor state before a reset", LOG_CPU_RESET },
    { "pcall", "protected-mode far calls, returns and exceptions", LOG_PCALL },
    { "lockstep", "compare every translated block with the interpreter, and stop at a difference", LOG_LOCKSTEP },
    { 0 },
};

void log_set_program(const char *name)
{
    program = name;
}

void log_set_timestamps(bool on)
{
    timestamps = on;
}

static void write_all(int fd, const char *buf, size_t len)
{
    while (len) {
        ssize_t n = write(fd, buf, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* nowhere left to complain to */
        buf += n;
        len -= (size_t)n;
    }
}

static void message(const char *kind, const char *format, va_list ap)
{
    char buf[2048];
    int n = 0;
    if (timestamps) {
        struct timespec now;
        struct tm tm;
        clock_gettime(CLOCK_REALTIME, &now);
        gmtime_r(&now.tv_sec, &tm);
        n = (int)strftime(buf, sizeof(buf), "%Y-%m-%dT%H:%M:%S", &tm);
        n += snprintf(buf + n, sizeof(buf) - (size_t)n, ".%06ldZ ", now.tv_nsec / 1000);
    }
    n += snprintf(buf + n, sizeof(buf) - (size_t)n, "%s: %s", program, kind);
    int body = vsnprintf(buf + n, sizeof(buf) - (size_t)n - 1, format, ap);
    n += body < 0 ? 0 : body;
    if (n > (int)sizeof(buf) - 2)
        n = (int)sizeof(buf) - 2;
    buf[n++] = '\n';
    write_all(STDERR_FILENO, buf, (size_t)n);
}

#define LOG_DEFINE(name, kind)                                                                     \
    void name(const char *format, ...)                                                             \
    {                                                                                              \
        va_list ap;                                                                                \
        va_start(ap, format);                                                                      \
        message(kind, format, ap);                                                                 \
        va_end(ap);                                                                                \
    }
LOG_DEFINE(log_warn, "warning: ")
LOG_DEFINE(log_info, "")
LOG_DEFINE(log_error, "")

void log_warn_once(bool *once, const char *format, ...)
{
    if (__atomic_exchange_n(once, true, __ATOMIC_RELAXED))
        return;
    va_list ap;
    va_start(ap, format);
    message("warning: ", format, ap);
    va_end(ap);
}

static void debug_line(const char *head, const char *format, va_list ap)
{
    char buf[1024];
    int n = snprintf(buf, sizeof(buf), "%s", head);
    int body = vsnprintf(buf + n, sizeof(buf) - (size_t)n - 1, format, ap);
    n += body < 0 ? 0 : body;
    if (n > (int)sizeof(buf) - 2)
        n = (int)sizeof(buf) - 2;
    buf[n++] = '\n';
    write_all(debug_fd, buf, (size_t)n);
}

void log_debug(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    debug_line("", format, ap);
    va_end(ap);
}

const char *log_parse_items(const char *text, uint32_t *ret_items)
{
    static char unknown[64];
    uint32_t items = 0;
    while (*text) {
        size_t len = strcspn(text, ",");
        const struct log_item_name *n = log_item_names;
        while (n->name && (strlen(n->name) != len || memcmp(n->name, text, len)))
            n++;
        if (!n->name) {
            snprintf(unknown, sizeof(unknown), "%.*s", (int)len, text);
            return unknown;
        }
        items |= n->bit;
        text += len + (text[len] == ',');
    }
    *ret_items = items;
    return NULL;
}

int log_set_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    if (debug_fd != STDERR_FILENO)
        close(debug_fd);
    debug_fd = fd;
    return 0;
}

void log_trace_enable(const char *pattern)
{
    pthread_mutex_lock(&trace_lock);
    if (trace_count < ARRAY_COUNT(trace_patterns))
        trace_patterns[trace_count++] = strdup(pattern);
    pthread_mutex_unlock(&trace_lock);
    log_items |= LOG_TRACE;
}

void log_trace(const char *event, const char *format, ...)
{
    bool wanted = false;
    pthread_mutex_lock(&trace_lock);
    for (unsigned i = 0; i < trace_count && !wanted; i++)
        wanted = trace_patterns[i] && !fnmatch(trace_patterns[i], event, 0);
    pthread_mutex_unlock(&trace_lock);
    if (!wanted)
        return;
    char head[96];
    snprintf(head, sizeof(head), "%s ", event);
    va_list ap;
    va_start(ap, format);
    debug_line(head, format, ap);
    va_end(ap);
}
