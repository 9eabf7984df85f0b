/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Console output, results, and the four string functions that gcc wants. Built for both word sizes.
 */
#include "guest.h"

#include <stdarg.h>

static unsigned passed, failed, skipped;
static volatile int console_lock;

/* COM1, polled; the bound keeps a machine without it going. */
void put_char(char c)
{
    for (int i = 0; i < 1000 && !(in8(0x3fd) & 0x20); i++)
        pause();
    out8(0x3f8, (uint8_t)c);
}

static void put_string(const char *s)
{
    for (s = s ? s : "(null)"; *s; s++)
        put_char(*s);
}

static void put_number(uint64_t v, unsigned base, unsigned width, char pad)
{
    char buf[24];
    unsigned n = 0;
    uint32_t hi = (uint32_t)(v >> 32), lo = (uint32_t)v;
    do { /* long division by hand: no libgcc for 32-bit payloads */
        uint32_t rem = hi % base;
        hi /= base;
        uint32_t q = 0;
        for (int bit = 31; bit >= 0; bit--) {
            rem = rem << 1 | (lo >> bit & 1);
            if (rem >= base) {
                rem -= base;
                q |= 1u << bit;
            }
        }
        lo = q;
        buf[n++] = "0123456789abcdef"[rem];
    } while (hi || lo);
    for (unsigned i = n; i < width; i++)
        put_char(pad);
    while (n)
        put_char(buf[--n]);
}

static uint64_t next_number(va_list *ap, unsigned longs, bool is_signed)
{
    if (longs >= 2)
        return va_arg(*ap, uint64_t);
    if (longs)
        return is_signed ? (uint64_t)va_arg(*ap, long) : va_arg(*ap, unsigned long);
    return is_signed ? (uint64_t)va_arg(*ap, int) : va_arg(*ap, unsigned);
}

static const char *put_field(const char *f, va_list *ap)
{
    unsigned width = 0, longs = 0;
    char pad = *f == '0' ? '0' : ' ';
    for (; *f >= '0' && *f <= '9'; f++)
        width = width * 10 + (unsigned)(*f - '0');
    for (; *f == 'l' || *f == 'z'; f++)
        longs++;
    switch (*f) {
    case 'd': {
        int64_t v = (int64_t)next_number(ap, longs, true);
        if (v < 0)
            put_char('-');
        put_number(v < 0 ? -(uint64_t)v : (uint64_t)v, 10, width, pad);
        break;
    }
    case 'u':
        put_number(next_number(ap, longs, false), 10, width, pad);
        break;
    case 'x':
        put_number(next_number(ap, longs, false), 16, width, pad);
        break;
    case 's':
        put_string(va_arg(*ap, const char *));
        break;
    case 'c':
        put_char((char)va_arg(*ap, int));
        break;
    case '%':
        put_char('%');
        break;
    default:
        put_char('?');
    }
    return *f ? f + 1 : f;
}

static void vprint(const char *format, va_list *ap)
{
    while (*format) {
        if (*format == '%')
            format = put_field(format + 1, ap);
        else
            put_char(*format++);
    }
}

static void lock_console(void)
{
    while (__atomic_exchange_n(&console_lock, 1, __ATOMIC_ACQUIRE))
        pause();
}

static void unlock_console(void)
{
    __atomic_store_n(&console_lock, 0, __ATOMIC_RELEASE);
}

void print(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    lock_console();
    vprint(format, &ap);
    unlock_console();
    va_end(ap);
}

bool check_at(bool ok, const char *file, int line, const char *format, ...)
{
    __atomic_fetch_add(ok ? &passed : &failed, 1, __ATOMIC_RELAXED);
    if (ok)
        return true;
    va_list ap;
    va_start(ap, format);
    lock_console();
    put_string("FAILED ");
    vprint(format, &ap);
    put_string(" (");
    put_string(file);
    put_char(':');
    put_number((uint64_t)line, 10, 0, ' ');
    put_string(")\n");
    unlock_console();
    va_end(ap);
    return false;
}

bool check_eq_at(uint64_t got, uint64_t want, const char *file, int line, const char *format, ...)
{
    if (check_at(got == want, file, line, "a value: 0x%llx, not 0x%llx, is",
                 (unsigned long long)got, (unsigned long long)want))
        return true;
    va_list ap;
    va_start(ap, format);
    lock_console();
    put_string("       ");
    vprint(format, &ap);
    put_char('\n');
    unlock_console();
    va_end(ap);
    return false;
}

void skip(const char *what, const char *why)
{
    skipped++;
    print("skipped %s: %s\n", what, why);
}

void exit_machine(int code)
{
    out32(0xf4, (uint32_t)code);
    for (;;)
        __asm__ volatile("cli; hlt");
}

void finish(void)
{
    print("%u checks passed, %u failed, %u skipped\n", passed, failed, skipped);
    exit_machine(failed ? 1 : 0);
}

void fatal(const char *what)
{
    print("FAILED %s\n", what);
    exit_machine(1);
}

void *memset(void *p, int c, size_t n)
{
    void *to = p;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(c) : "memory");
    return p;
}

void *memcpy(void *to, const void *from, size_t n)
{
    void *ret = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory");
    return ret;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;
    for (; n; n--, x++, y++) {
        if (*x != *y)
            return *x - *y;
    }
    return 0;
}

size_t strlen(const char *s)
{
    size_t n = 0;
    while (s[n])
        n++;
    return n;
}
