/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What libvirt's own client and daemon sent each other (tests/golden/libvirt/record.py), read and
 * written by our tables: every byte must be used, and come out again. And every decoder, with bytes
 * that are no message.
 */
#include "libvirt/errors.h"
#include "libvirt/events.h"
#include "libvirt/frame.h"
#include "libvirt/names.h"
#include "libvirt/rpc.h"

#include <string.h>

static const char *golden_path;

static GByteArray *from_hex(const char *hex)
{
    GByteArray *a = g_byte_array_new();
    for (; g_ascii_isxdigit(hex[0]) && g_ascii_isxdigit(hex[1]); hex += 2) {
        guint8 v = (guint8)(g_ascii_xdigit_value(hex[0]) << 4 | g_ascii_xdigit_value(hex[1]));
        g_byte_array_append(a, &v, 1);
    }
    return a;
}

static void check(const char *what, const struct xdr_row *rows, size_t size,
                  const GByteArray *bytes)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    g_autofree void *obj = g_malloc(size + 1);
    size_t used = 0;
    g_test_message("%s", what);
    g_assert_cmpint(xdr_read(rows, obj, size, bytes->data, bytes->len, &used), ==, 0);
    g_assert_cmpuint(used, ==, bytes->len);
    g_assert_cmpint(xdr_write(rows, obj, out), ==, 0);
    g_assert_cmpmem(out->data, out->len, bytes->data, bytes->len);
    xdr_free(rows, obj);
}

static const struct xdr_row nothing[] = {XDR_DONE};

/* The rows of one line's payload; NULL: it is of a procedure that we do not answer. */
static const struct xdr_row *rows_of(uint32_t program, uint32_t number, const char *kind,
                                     size_t *ret_size)
{
    const struct rpc_proc *p = rpc_find(program, number);
    if (!strcmp(kind, "message"))
        return events_rows(program, number, ret_size);
    *ret_size = sizeof(struct wire_error);
    if (!strcmp(kind, "error"))
        return wire_error_xdr;
    const struct xdr_row *rows = NULL;
    if (p)
        rows = !strcmp(kind, "call") ? p->args : p->ret;
    *ret_size = p && !strcmp(kind, "call") ? p->args_size : p ? p->ret_size : 0;
    return p && !rows ? nothing : rows;
}

static void test_wire(void)
{
    g_autofree char *text = NULL;
    unsigned checked = 0;
    g_assert_true(g_file_get_contents(golden_path, &text, NULL, NULL));
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line && **line; line++) {
        g_auto(GStrv) f = g_strsplit(*line, " ", 4);
        g_autoptr(GByteArray) bytes = from_hex(f[3]);
        uint32_t program = (uint32_t)g_ascii_strtoull(f[0], NULL, 16);
        size_t size = 0;
        const struct xdr_row *rows =
            rows_of(program, (uint32_t)g_ascii_strtoull(f[1], NULL, 10), f[2], &size);
        if (!rows)
            continue;
        g_autofree char *what = g_strjoin(" ", f[0], f[1], f[2], NULL);
        check(what, rows, size, bytes);
        checked++;
    }
    g_test_message("%u payloads", checked);
    g_assert_cmpuint(checked, >=, 600);
}

/* Each decoder meets random bytes, short and long: it refuses or reads them, within its limits. */
static void test_random(void)
{
    guint8 bytes[512];
    LINKSET_FOREACH (rpc_procs, struct rpc_proc, p) {
        if (!p->args)
            continue;
        g_autofree void *obj = g_malloc(p->args_size);
        for (unsigned round = 0; round < 200; round++) {
            for (unsigned i = 0; i < sizeof(bytes); i++)
                bytes[i] = (guint8)(g_test_rand_int_range(0, 4) ? 0 : g_test_rand_int());
            xdr_read(p->args, obj, p->args_size, bytes,
                     (size_t)g_test_rand_int_range(0, sizeof(bytes)), NULL);
            xdr_free(p->args, obj);
        }
    }
}

static void test_numbers(void)
{
    unsigned ours = 0;
    for (uint32_t i = 1; rpc_name(PROGRAM_REMOTE, i); i++)
        ours += rpc_find(PROGRAM_REMOTE, i) != NULL;
    g_assert_cmpuint(ours, >, 200);
    g_assert_null(rpc_name(PROGRAM_REMOTE, 444));
    g_assert_null(rpc_name(PROGRAM_REMOTE, 0));
    g_assert_null(rpc_find(PROGRAM_REMOTE, UINT32_MAX));
    g_assert_cmpstr(rpc_name(PROGRAM_REMOTE, 443), ==, "domain_fd_associate");
    g_assert_cmpstr(rpc_name(PROGRAM_QEMU, 7), ==, "domain_monitor_command_with_files");
    /* Names are the numbers', so that what an error calls a procedure is what libvirt calls it. */
    LINKSET_FOREACH (rpc_procs, struct rpc_proc, p)
        if (!p->program)
            g_assert_cmpstr(rpc_name(PROGRAM_REMOTE, p->number), ==, p->name);
}

static unsigned count_missing(const char *text, const char *name, uint32_t program, uint32_t number,
                              const char *kind)
{
    g_autofree char *line = g_strdup_printf("\n%x %u %s ", program, number, kind);
    if (strstr(text, line))
        return 0;
    g_test_message("%s (%x %u) has no %s", name, program, number, kind);
    return 1;
}

/* As there are no snapshots yet, these have errors for an answer. */
static bool only_fails(const char *name)
{
    return !strcmp(name, "domain_snapshot_lookup_by_name") ||
           !strcmp(name, "domain_snapshot_current");
}

/* Each procedure that we answer has golden bytes of its call and of its reply, each event of its
 * message: who adds one records them. */
static void test_all_have(void)
{
    static const uint32_t programs[] = {PROGRAM_REMOTE, PROGRAM_QEMU};
    g_autofree char *text = NULL;
    unsigned missing = 0;
    size_t size;
    g_assert_true(g_file_get_contents(golden_path, &text, NULL, NULL));
    LINKSET_FOREACH (rpc_procs, struct rpc_proc, p) {
        uint32_t program = p->program ? p->program : PROGRAM_REMOTE;
        missing += count_missing(text, p->name, program, p->number, "call");
        if (!only_fails(p->name))
            missing += count_missing(text, p->name, program, p->number, "reply");
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(programs); i++)
        for (uint32_t number = 1; rpc_name(programs[i], number); number++)
            if (events_rows(programs[i], number, &size))
                missing += count_missing(text, rpc_name(programs[i], number), programs[i], number,
                                         "message");
    g_assert_cmpuint(missing, ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    golden_path = argv[1];
    g_test_add_func("/golden/what libvirt sends", test_wire);
    g_test_add_func("/golden/random bytes", test_random);
    g_test_add_func("/golden/numbers and names", test_numbers);
    g_test_add_func("/golden/each procedure", test_all_have);
    return g_test_run();
}
