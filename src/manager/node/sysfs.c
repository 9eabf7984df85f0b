/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Small files of /sys and /proc. Thread: any. */
#include "manager/node/sysfs.h"

#include "base/fd.h"
#include "base/units.h"
#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *sysfs_path(const char *path)
{
    const char *root = g_getenv("NODE_SYSFS");
    return g_strconcat(root ? root : "", path, NULL);
}

bool sysfs_exists(const char *path)
{
    g_autofree char *full = sysfs_path(path);
    return access(full, F_OK) == 0;
}

static char *read_all(int fd)
{
    g_autoptr(GString) b = g_string_new(NULL);
    char piece[4096];
    ssize_t n;
    while ((n = read(fd, piece, sizeof(piece))) > 0 || (n < 0 && errno == EINTR)) {
        if (n > 0)
            g_string_append_len(b, piece, n);
        if (b->len > SYSFS_MAX_BYTES)
            return NULL;
    }
    if (n < 0)
        return NULL;
    if (b->len && b->str[b->len - 1] == '\n')
        g_string_truncate(b, b->len - 1);
    return g_string_free(g_steal_pointer(&b), FALSE);
}

static char *read_path(const char *path)
{
    g_autofree char *full = sysfs_path(path);
    autofd fd = open(full, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? NULL : read_all(fd);
}

char *sysfs_read(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    g_autofree char *path = g_strdup_vprintf(format, ap);
    va_end(ap);
    return read_path(path);
}

bool sysfs_read_u64(uint64_t *ret, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    g_autofree char *path = g_strdup_vprintf(format, ap);
    va_end(ap);
    g_autofree char *text = read_path(path);
    return text && units_parse_u64(g_strstrip(text), ret);
}

bool sysfs_write(const char *path, const char *text, GError **error)
{
    g_autofree char *full = sysfs_path(path);
    autofd fd = open(full, O_WRONLY | O_CLOEXEC | O_TRUNC);
    size_t len = strlen(text);
    return (fd >= 0 && write(fd, text, len) == (ssize_t)len) ||
           ruche_error_errno(error, errno, "'%s' cannot be written to %s", text, path);
}

static int by_number(const void *a, const void *b)
{
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return x < y ? -1 : x > y;
}

GArray *sysfs_numbers(const char *folder, const char *prefix)
{
    GArray *found = g_array_new(FALSE, FALSE, sizeof(unsigned));
    g_autofree char *path = sysfs_path(folder);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        uint64_t n;
        if (!g_str_has_prefix(name, prefix) || !g_ascii_isdigit(name[strlen(prefix)]) ||
            !units_parse_u64(name + strlen(prefix), &n) || n >= CPU_SET_MAX)
            continue;
        unsigned number = (unsigned)n;
        g_array_append_val(found, number);
    }
    g_array_sort(found, by_number);
    return found;
}

static bool parse_range(struct cpu_set *s, const char *text)
{
    char *end;
    if (!g_ascii_isdigit(*text))
        return false;
    unsigned long first = strtoul(text, &end, 10), last = first;
    if (*end == '-' && g_ascii_isdigit(end[1]))
        last = strtoul(end + 1, &end, 10);
    if (*end || last < first || last >= CPU_SET_MAX)
        return false;
    for (unsigned long n = first; n <= last; n++)
        cpu_set_add(s, (unsigned)n);
    return true;
}

bool cpu_set_parse(struct cpu_set *s, const char *text)
{
    *s = (struct cpu_set){0};
    if (!text || !*text)
        return false;
    g_auto(GStrv) parts = g_strsplit(text, ",", CPU_SET_MAX);
    for (char **p = parts; *p; p++)
        if (!parse_range(s, g_strstrip(*p))) {
            *s = (struct cpu_set){0};
            return false;
        }
    return true;
}

unsigned cpu_set_count(const struct cpu_set *s)
{
    unsigned n = 0;
    for (unsigned i = 0; i < ARRAY_COUNT(s->bits); i++)
        n += (unsigned)__builtin_popcountll(s->bits[i]);
    return n;
}

int cpu_set_last(const struct cpu_set *s)
{
    for (int i = ARRAY_COUNT(s->bits) - 1; i >= 0; i--)
        if (s->bits[i])
            return i * 64 + 63 - __builtin_clzll(s->bits[i]);
    return -1;
}

char *cpu_set_text(const struct cpu_set *s)
{
    GString *b = g_string_new(NULL);
    unsigned end = (unsigned)(cpu_set_last(s) + 1);
    for (unsigned n = 0; n < end; n++) {
        if (!cpu_set_has(s, n))
            continue;
        unsigned first = n;
        while (cpu_set_has(s, n + 1))
            n++;
        g_string_append_printf(b, n > first ? "%s%u-%u" : "%s%u", b->len ? "," : "", first, n);
    }
    return g_string_free(b, FALSE);
}
