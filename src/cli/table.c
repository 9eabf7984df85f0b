/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a person sees of answers. */
#include "cli/table.h"
#include "cli/rest.h"

#include "base/units.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BOLD "\033[1m"
#define PLAIN "\033[0m"
#define GREEN "\033[32m"
#define YELLOW "\033[33m"

static const struct {
    const char *word, *colour;
} colours[] = { { "running", GREEN }, { "paused", YELLOW }, { "crashed", "\033[31m" } };

static const char *colour_of(const char *text)
{
    for (size_t i = 0; i < G_N_ELEMENTS(colours); i++)
        if (!strcmp(colours[i].word, text))
            return colours[i].colour;
    return NULL;
}

static void add_cell(struct table *t, const char *text)
{
    /* What a guest or a peer named must not steer the terminal. */
    char *cell = g_utf8_make_valid(text ? text : "-", -1);
    for (char *p = cell; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    g_ptr_array_add(t->cells, cell);
}

static void add_cells(struct table *t, va_list ap)
{
    for (unsigned i = 0; i < t->columns; i++)
        add_cell(t, va_arg(ap, const char *));
}

void table_init(struct table *t, const struct cli *c, unsigned columns, ...)
{
    *t = (struct table){ .cells = g_ptr_array_new_with_free_func(g_free), .columns = columns, .tty = c->tty };
    va_list ap;
    va_start(ap, columns);
    add_cells(t, ap);
    va_end(ap);
}

void table_init_words(struct table *t, const struct cli *c, const char *headings)
{
    g_auto(GStrv) words = g_strsplit(headings, " ", 0);
    *t = (struct table){ .cells = g_ptr_array_new_with_free_func(g_free), .columns = g_strv_length(words), .tty = c->tty };
    for (char **w = words; *w; w++)
        add_cell(t, *w);
}

void table_add(struct table *t, ...)
{
    va_list ap;
    va_start(ap, t);
    add_cells(t, ap);
    va_end(ap);
}

static int width_of(const struct table *t, unsigned column)
{
    glong width = 0;
    for (unsigned i = column; i < t->cells->len; i += t->columns)
        width = MAX(width, g_utf8_strlen(t->cells->pdata[i], -1));
    return (int)width;
}

void table_print(struct table *t)
{
    for (unsigned i = 0; i < t->cells->len; i++) {
        const char *text = t->cells->pdata[i], *colour = NULL;
        unsigned column = i % t->columns;
        if (t->tty)
            colour = i < t->columns ? BOLD : colour_of(text);
        int pad = width_of(t, column) - (int)g_utf8_strlen(text, -1);
        bool last = column + 1 == t->columns;
        printf("%s%s%s%*s", colour ? colour : "", text, colour ? PLAIN : "", last ? 0 : pad + 2, "");
        if (last)
            putchar('\n');
    }
    g_ptr_array_unref(t->cells);
}

int print_json(JsonObject *o)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);
    json_node_set_object(node, o);
    g_autofree char *text = json_to_string(node, TRUE);
    puts(text);
    return 0;
}

const char *show_size(int64_t bytes)
{
    static char buffers[4][32];
    static unsigned next;
    char *b = buffers[next++ % 4];
    g_strlcpy(b, units_format_size((uint64_t)bytes), sizeof(buffers[0]));
    return b;
}

/* ---- jobs ---- */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal)
{
    interrupted = 1;
}

static void show_progress(const struct cli *c, JsonObject *job, unsigned tick)
{
    const char *step = json_object_get_string_member_with_default(job, "step", "waiting");
    int64_t done = json_object_get_int_member(job, "done"), total = json_object_get_int_member(job, "total");
    if (!c->tty || c->json)
        return;
    if (total > 0)
        printf("\r\033[K%s: %.0f %%", step, 100.0 * (double)done / (double)total);
    else
        printf("\r\033[K%c %s", "|/-\\"[tick % 4], step);
    fflush(stdout);
}

JsonObject *follow_job(struct cli *c, JsonObject *job, GError **error)
{
    unsigned id = (unsigned)json_object_get_int_member(job, "id");
    void (*before)(int) = signal(SIGINT, on_interrupt);
    for (unsigned tick = 0; job && !strcmp(json_object_get_string_member(job, "state"), "running"); tick++) {
        show_progress(c, job, tick);
        if (interrupted == 1) {
            JsonObject *o = rest_call(c->rest, "DELETE", NULL, NULL, "/jobs/%u", id);
            g_clear_pointer(&o, json_object_unref);
            interrupted = 2;
        }
        json_object_unref(job);
        job = rest_call(c->rest, "GET", NULL, error, "/jobs/%u?wait=250", id);
    }
    signal(SIGINT, before);
    if (c->tty && !c->json)
        printf("\r\033[K");
    const char *state = job ? json_object_get_string_member(job, "state") : "done";
    if (!strcmp(state, "cancelled")) {
        ruche_error(error, RUCHE_ERR_STATE, "cancelled: nothing is left of it");
        g_clear_pointer(&job, json_object_unref);
    } else if (strcmp(state, "done") != 0) {
        ruche_error(error, RUCHE_ERR_IO, "%s", json_object_get_string_member_with_default(job, "message", "the job failed"));
        g_clear_pointer(&job, json_object_unref);
    }
    return job;
}
