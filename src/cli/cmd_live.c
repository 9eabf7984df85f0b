/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands that stay: console, top, events. */
#include "cli/cli.h"
#include "cli/rest.h"
#include "cli/table.h"

#include <glib-unix.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

/* The terminal without echo and lines; as it was, afterwards. */
static bool terminal_raw(struct termios *ret_before)
{
    struct termios raw;
    if (tcgetattr(0, ret_before) < 0)
        return false;
    raw = *ret_before;
    cfmakeraw(&raw);
    tcsetattr(0, TCSANOW, &raw);
    return true;
}

/* ---- console ---- */

#define LEAVE 0x1d /* Ctrl-] */

struct console {
    SoupWebsocketConnection *socket;
    char *why; /* it ended from the other side */
    bool over;
};

static void on_message(SoupWebsocketConnection *socket, int type, GBytes *message, gpointer opaque)
{
    size_t len;
    const char *data = g_bytes_get_data(message, &len);
    for (size_t done = 0; done < len;) {
        ssize_t n = write(1, data + done, len - done);
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    char taken[24];
    g_snprintf(taken, sizeof(taken), "%zu", len);
    if (soup_websocket_connection_get_state(socket) == SOUP_WEBSOCKET_STATE_OPEN)
        soup_websocket_connection_send_text(socket, taken);
}

static void on_closed(SoupWebsocketConnection *socket, gpointer opaque)
{
    struct console *k = opaque;
    k->why = g_strdup(soup_websocket_connection_get_close_data(socket));
    k->over = true;
}

static gboolean on_key(int fd, GIOCondition condition, gpointer opaque)
{
    struct console *k = opaque;
    char data[1024];
    ssize_t n = read(fd, data, sizeof(data));
    const char *leave = n > 0 ? memchr(data, LEAVE, (size_t)n) : NULL;
    size_t len = leave ? (size_t)(leave - data) : n > 0 ? (size_t)n : 0;
    if (len && soup_websocket_connection_get_state(k->socket) == SOUP_WEBSOCKET_STATE_OPEN)
        soup_websocket_connection_send_binary(k->socket, data, len);
    if (n > 0 && !leave)
        return G_SOURCE_CONTINUE;
    if (leave)
        k->over = true;
    return G_SOURCE_REMOVE;
}

int cli_console(struct cli *c, const char *name, bool force)
{
    GError *error = NULL;
    struct termios before;
    struct console k = { .socket = rest_websocket(c->rest, &error, force ? "/console/%s?force=true" : "/console/%s", name) };
    if (!k.socket)
        return cli_fail(error);
    g_signal_connect(k.socket, "message", G_CALLBACK(on_message), &k);
    g_signal_connect(k.socket, "closed", G_CALLBACK(on_closed), &k);
    bool raw = terminal_raw(&before); /* it drops what was typed: first that, then the invitation to type */
    if (c->tty)
        fprintf(stderr, "console of '%s'; Ctrl-] leaves\r\n", name);
    g_unix_fd_add(0, G_IO_IN | G_IO_HUP, on_key, &k);
    while (!k.over)
        g_main_context_iteration(NULL, TRUE);
    if (raw)
        tcsetattr(0, TCSANOW, &before);
    if (c->tty)
        fputs("\n", stderr);
    if (k.why && *k.why)
        fprintf(stderr, "ruche: %s\n", k.why);
    int status = k.why && *k.why && strcmp(k.why, "the machine's console ended") != 0;
    g_free(k.why);
    g_object_unref(k.socket);
    return status;
}

static const struct cli_option console_options[] = { { "force", NULL, "end another's session", false }, { 0 } };

static int run_console(struct cli *c)
{
    return cli_console(c, c->args[0], cli_has(c, "force"));
}
CLI_COMMAND(console, .name = "console", .arguments = "NAME", .summary = "A machine's console; Ctrl-] leaves", .options = console_options, .min_args = 1,
            .max_args = 1, .complete = COMPLETE_MACHINE, .run = run_console);

/* ---- events ---- */

static void print_event(struct cli *c, const char *text)
{
    g_autoptr(JsonParser) parser = json_parser_new();
    if (c->json || !json_parser_load_from_data(parser, text, -1, NULL)) {
        puts(text);
        return;
    }
    JsonObject *o = json_node_get_object(json_parser_get_root(parser));
    g_autoptr(GDateTime) now = g_date_time_new_now_local();
    g_autofree char *when = g_date_time_format(now, "%H:%M:%S");
    const char *what = text_of(o, "what");
    printf("%s  %-8s %-20s %s%s%s\n", when, text_of(o, "class"), text_of(o, "name"), text_of(o, "event"), what ? " " : "", what ? what : "");
}

static const struct cli_option events_options[] = { { "count", "N", "end after so many", false }, { 0 } };

static int run_events(struct cli *c)
{
    GError *error = NULL;
    g_autoptr(GInputStream) in = rest_stream(c->rest, &error, "/events");
    if (!in)
        return cli_fail(error);
    guint64 left = cli_has(c, "count") ? g_ascii_strtoull(cli_value(c, "count"), NULL, 10) : G_MAXUINT64;
    g_autoptr(GDataInputStream) lines = g_data_input_stream_new(in);
    char *line;
    while (left && (line = g_data_input_stream_read_line(lines, NULL, NULL, &error))) {
        if (g_str_has_prefix(line, "data: ")) {
            print_event(c, line + strlen("data: "));
            fflush(stdout);
            left--;
        }
        g_free(line);
    }
    if (error)
        return cli_fail(error);
    return 0;
}
CLI_COMMAND(events, .name = "events", .summary = "What changes, as it changes", .options = events_options, .run = run_events);

/* ---- top ---- */

struct usage {
    double cpu_seconds;
    gint64 when_us;
};

struct top_row {
    JsonObject *domain; /* borrowed */
    double percent;
};

static double percent_of(GHashTable *last, JsonObject *d)
{
    double now = json_object_get_double_member(d, "cpu_seconds"), percent = 0;
    gint64 when_us = g_get_monotonic_time();
    struct usage *u = g_hash_table_lookup(last, text_of(d, "uuid"));
    if (!u) {
        u = g_new0(struct usage, 1);
        g_hash_table_insert(last, g_strdup(text_of(d, "uuid")), u);
    } else if (when_us > u->when_us && now >= u->cpu_seconds) {
        percent = (now - u->cpu_seconds) / ((double)(when_us - u->when_us) / 1e6) * 100;
    }
    *u = (struct usage){ now, when_us };
    return percent;
}

static int by_percent(const void *a, const void *b)
{
    double x = ((const struct top_row *)a)->percent, y = ((const struct top_row *)b)->percent;
    return (x < y) - (x > y);
}

static void print_top(struct cli *c, JsonObject *answer, GHashTable *last)
{
    JsonArray *list = json_object_get_array_member(answer, "domains");
    g_autoptr(GArray) rows = g_array_new(FALSE, FALSE, sizeof(struct top_row));
    for (unsigned i = 0; i < json_array_get_length(list); i++) {
        JsonObject *d = json_array_get_object_element(list, i);
        struct top_row row = { .domain = d };
        if (!json_object_has_member(d, "id"))
            continue;
        row.percent = percent_of(last, d);
        g_array_append_val(rows, row);
    }
    qsort(rows->data, rows->len, sizeof(struct top_row), by_percent);
    struct table t;
    table_init(&t, c, 6, "NAME", "STATE", "CPU", "CPU TIME", "CPUS", "MEMORY");
    for (unsigned i = 0; i < rows->len; i++) {
        const struct top_row *row = &g_array_index(rows, struct top_row, i);
        char percent[32], seconds[32], cpus[24];
        g_snprintf(percent, sizeof(percent), "%.1f %%", row->percent);
        g_snprintf(seconds, sizeof(seconds), "%.1f s", json_object_get_double_member(row->domain, "cpu_seconds"));
        g_snprintf(cpus, sizeof(cpus), "%" PRIi64, json_object_get_int_member(row->domain, "vcpus"));
        table_add(&t, text_of(row->domain, "name"), text_of(row->domain, "state"), percent, seconds, cpus,
                  show_size(json_object_get_int_member(row->domain, "memory")));
    }
    if (c->tty)
        printf("\033[H\033[J%u machines run; q leaves\n\n", rows->len);
    table_print(&t);
    fflush(stdout);
}

/* Waits for the next round; false: the person wants to leave. */
static bool top_wait(int interval_ms, bool keys)
{
    struct pollfd p = { .fd = keys ? 0 : -1, .events = POLLIN };
    char key;
    if (poll(&p, 1, interval_ms) <= 0 || !keys)
        return true;
    return read(0, &key, 1) == 1 && key != 'q' && key != 3;
}

static const struct cli_option top_options[] = {
    { "interval", "SECONDS", "between rounds; 1", false },
    { "count", "N", "end after so many rounds", false },
    { 0 },
};

static int run_top(struct cli *c)
{
    g_autoptr(GHashTable) last = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    double interval = cli_has(c, "interval") ? g_ascii_strtod(cli_value(c, "interval"), NULL) : 1;
    guint64 rounds = cli_has(c, "count") ? g_ascii_strtoull(cli_value(c, "count"), NULL, 10) : c->tty ? G_MAXUINT64 : 2;
    int interval_ms = (int)(CLAMP(interval, 0.1, 3600) * 1000), status = 0;
    struct termios before;
    bool raw = c->tty && isatty(0) && terminal_raw(&before);
    if (raw) {
        struct termios lines = before;
        lines.c_lflag &= (tcflag_t)~(ICANON | ECHO);
        tcsetattr(0, TCSANOW, &lines);
    }
    do {
        GError *error = NULL;
        g_autoptr(JsonObject) o = rest_call(c->rest, "GET", NULL, &error, "/domains");
        if (!o) {
            status = cli_fail(error);
            break;
        }
        print_top(c, o, last);
    } while (--rounds && top_wait(interval_ms, raw));
    if (raw)
        tcsetattr(0, TCSANOW, &before);
    return status;
}
CLI_COMMAND(top, .name = "top", .summary = "What machines use, live", .options = top_options, .run = run_top);
