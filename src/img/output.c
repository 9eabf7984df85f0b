/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What verbs print: errors, sizes, JSON and nested lists in qemu-img's form.
 *
 * Trust     Names out of images are hostile: JSON strings are escaped; human lines have control
 * characters replaced.
 */
#include "img/img.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define JSON_DEPTH_MAX 64

int img_fail(GError *error, int code)
{
    fflush(stdout);
    fprintf(stderr, "ruche-img: %s\n", error ? error->message : "failed");
    g_clear_error(&error);
    return code;
}

void img_warn(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    g_autofree char *text = g_strdup_vprintf(format, ap);
    va_end(ap);
    fflush(stdout);
    fprintf(stderr, "ruche-img: warning: %s\n", text);
}

const char *img_size_text(uint64_t bytes)
{
    static const char *const units[] = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
    static __thread char buf[32];
    double value = (double)bytes;
    unsigned unit = 0;
    /* Three digits are shown: from 1000 on, the next unit is the shorter one. */
    while (value >= 1000.0 && unit + 1 < ARRAY_COUNT(units)) {
        value /= 1024.0;
        unit++;
    }
    snprintf(buf, sizeof(buf), "%0.3g %sB", value, units[unit]);
    return buf;
}

/* ---- JSON ---- */

static void append_char(GString *to, gunichar c)
{
    static const char plain[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    const char *at = c && c < 128 ? strchr(plain, (int)c) : NULL;
    if (at)
        g_string_append_printf(to, "\\%c", letter[at - plain]);
    else if (c >= ' ' && c < 127)
        g_string_append_c(to, (char)c);
    else if (c < 0x10000)
        g_string_append_printf(to, "\\u%04X", c);
    else
        g_string_append_printf(to, "\\u%04X\\u%04X", 0xd800 + ((c - 0x10000) >> 10),
                               0xdc00 + ((c - 0x10000) & 0x3ff));
}

static void append_string(GString *to, const char *text)
{
    g_string_append_c(to, '"');
    while (*text) {
        gunichar c = g_utf8_get_char_validated(text, -1);
        bool bad = c == (gunichar)-1 || c == (gunichar)-2;
        append_char(to, bad ? 0xfffd : c);
        text = bad ? text + 1 : g_utf8_next_char(text);
    }
    g_string_append_c(to, '"');
}

static void append_value(GString *to, JsonNode *node)
{
    GType type = json_node_get_value_type(node);
    if (json_node_is_null(node))
        g_string_append(to, "null");
    else if (type == G_TYPE_BOOLEAN)
        g_string_append(to, json_node_get_boolean(node) ? "true" : "false");
    else if (type == G_TYPE_STRING)
        append_string(to, json_node_get_string(node));
    else if (type == G_TYPE_DOUBLE)
        g_string_append_printf(to, "%.17g", json_node_get_double(node));
    else
        g_string_append_printf(to, "%" PRId64, json_node_get_int(node));
}

static void append_line(GString *to, bool first, unsigned depth)
{
    g_string_append_printf(to, "%s\n%*s", first ? "" : ",", (int)(4 * depth), "");
}

static void append_node(GString *to, JsonNode *node, unsigned depth);

static void append_object(GString *to, JsonObject *o, unsigned depth)
{
    bool first = true;
    g_autoptr(GList) names = json_object_get_members(o);
    g_string_append_c(to, '{');
    for (GList *l = names; l; l = l->next, first = false) {
        append_line(to, first, depth + 1);
        append_string(to, l->data);
        g_string_append(to, ": ");
        append_node(to, json_object_get_member(o, l->data), depth + 1);
    }
    if (!first)
        append_line(to, true, depth);
    g_string_append_c(to, '}');
}

static void append_array(GString *to, JsonArray *a, unsigned depth)
{
    guint count = json_array_get_length(a);
    g_string_append_c(to, '[');
    for (guint i = 0; i < count; i++) {
        append_line(to, i == 0, depth + 1);
        append_node(to, json_array_get_element(a, i), depth + 1);
    }
    if (count)
        append_line(to, true, depth);
    g_string_append_c(to, ']');
}

static void append_node(GString *to, JsonNode *node, unsigned depth)
{
    if (depth > JSON_DEPTH_MAX)
        g_string_append(to, "null");
    else if (JSON_NODE_HOLDS_OBJECT(node))
        append_object(to, json_node_get_object(node), depth);
    else if (JSON_NODE_HOLDS_ARRAY(node))
        append_array(to, json_node_get_array(node), depth);
    else
        append_value(to, node);
}

void img_print_json(JsonNode *node)
{
    g_autoptr(GString) text = g_string_new(NULL);
    append_node(text, node, 0);
    puts(text->str);
    json_node_unref(node);
}

JsonNode *img_json_object(JsonObject *o)
{
    JsonNode *node = json_node_new(JSON_NODE_OBJECT);
    json_node_take_object(node, o);
    return node;
}

/* ---- lists for people ---- */

static void print_value(const char *label, JsonNode *node, unsigned indent);

static void print_elements(JsonArray *a, unsigned indent)
{
    for (guint i = 0; i < json_array_get_length(a); i++) {
        char label[32];
        snprintf(label, sizeof(label), "[%u]", i);
        print_value(label, json_array_get_element(a, i), indent);
    }
}

static void print_value(const char *label, JsonNode *node, unsigned indent)
{
    bool nested = JSON_NODE_HOLDS_OBJECT(node) || JSON_NODE_HOLDS_ARRAY(node);
    printf("%*s%s:%s", (int)(4 * indent), "", label, nested ? "\n" : " ");
    if (indent > JSON_DEPTH_MAX)
        return;
    if (JSON_NODE_HOLDS_OBJECT(node)) {
        img_print_members(json_node_get_object(node), indent + 1);
    } else if (JSON_NODE_HOLDS_ARRAY(node)) {
        print_elements(json_node_get_array(node), indent + 1);
    } else if (json_node_get_value_type(node) == G_TYPE_STRING) {
        puts(json_node_get_string(node));
    } else {
        g_autoptr(GString) text = g_string_new(NULL);
        append_value(text, node);
        puts(text->str);
    }
}

/* The order in which qemu-img shows members; others follow. */
static const char *const shown_order[] = {
    "compat",       "compression-type", "lazy-refcounts",
    "bitmaps",      "refcount-bits",    "encrypt",
    "data-file",    "data-file-raw",    "corrupt",
    "extended-l2",  "ivgen-alg",        "hash-alg",
    "cipher-alg",   "uuid",             "ivgen-hash-alg",
    "compressed",   "virtual-size",     "filename",
    "cluster-size", "format",           "cipher-mode",
    "slots",        "payload-offset",   "master-key-iters",
    NULL,
};

static unsigned rank_of(const char *name)
{
    unsigned i = 0;
    while (shown_order[i] && strcmp(shown_order[i], name))
        i++;
    return i;
}

static int compare_ranks(gconstpointer a, gconstpointer b)
{
    return (int)rank_of(a) - (int)rank_of(b);
}

void img_print_members(JsonObject *o, unsigned indent)
{
    g_autoptr(GList) names = g_list_sort(json_object_get_members(o), compare_ranks);
    for (GList *l = names; l; l = l->next) {
        g_autofree char *label = g_strdelimit(g_strdup(l->data), "-", ' ');
        print_value(label, json_object_get_member(o, l->data), indent);
    }
}

/* ---- snapshots ---- */

static void print_snapshot(const struct snapshot_info *s)
{
    char date[32] = "", clock[48], icount[32] = "";
    uint64_t sec = s->vm_clock_ns / NS_PER_SEC;
    g_autoptr(GDateTime) when = g_date_time_new_from_unix_local((int64_t)s->date_sec);
    if (when) {
        g_autofree char *text = g_date_time_format(when, "%Y-%m-%d %H:%M:%S");
        g_strlcpy(date, text ? text : "", sizeof(date));
    }
    snprintf(clock, sizeof(clock), "%02" PRIu64 ":%02u:%02u.%03u", sec / 3600,
             (unsigned)(sec / 60 % 60), (unsigned)(sec % 60),
             (unsigned)(s->vm_clock_ns / NS_PER_MS % 1000));
    if (s->icount != UINT64_MAX)
        snprintf(icount, sizeof(icount), "%" PRIu64, s->icount);
    printf("%-9s %-16s %8s%20s%13s%11s\n", s->id, s->name, img_size_text(s->vm_state_bytes), date,
           clock, icount);
}

void img_print_snapshots(const struct snapshot_info *list, unsigned count)
{
    if (!count)
        return;
    printf("Snapshot list:\n%-10s%-17s%8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE",
           "VM CLOCK", "ICOUNT");
    for (unsigned i = 0; i < count; i++)
        print_snapshot(&list[i]);
}

void img_free_snapshots(struct snapshot_info *list, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        g_free(list[i].id);
        g_free(list[i].name);
    }
    g_free(list);
}
