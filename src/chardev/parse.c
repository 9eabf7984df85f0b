/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The short forms of -serial and -monitor: "stdio", "mon:stdio", "file:PATH",
 * "tcp:HOST:PORT,server=on", ...
 *
 * Spec      QEMU's manual, option -serial.
 * Trust     The user's command line.
 */
#include "chardev/chardev_priv.h"

#include <string.h>

#define MAX_SHORT_OPTIONS 16

/* Options under construction; every string is owned. */
struct words {
    struct chardev_option option[MAX_SHORT_OPTIONS];
    size_t count;
};

static void add_option(struct words *w, const char *name, char *value)
{
    if (w->count == MAX_SHORT_OPTIONS) {
        g_free(value);
        return;
    }
    w->option[w->count++] = (struct chardev_option){ .name = g_strdup(name), .value = value };
}

static void free_words(struct words *w)
{
    for (size_t i = 0; i < w->count; i++) {
        g_free((char *)w->option[i].name);
        g_free((char *)w->option[i].value);
    }
}

/* Text up to a single comma; ",," is a comma. */
static char *take_item(const char **p)
{
    GString *s = g_string_new(NULL);
    const char *c = *p;
    for (; *c && !(*c == ',' && c[1] != ','); c++) {
        c += *c == ',';
        g_string_append_c(s, *c);
    }
    *p = *c ? c + 1 : c;
    return g_string_free(s, FALSE);
}

/* "server=on,wait=off", "server,nowait". */
static void parse_tail(struct words *w, const char *p)
{
    while (*p) {
        g_autofree char *item = take_item(&p);
        char *eq = strchr(item, '=');
        if (eq) {
            *eq = '\0';
            add_option(w, item, g_strdup(eq + 1));
        } else if (!strcmp(item, "nowait")) {
            add_option(w, "wait", g_strdup("off"));
        } else {
            add_option(w, item, g_strdup("on"));
        }
    }
}

/* "host:port" or "[v6]:port" into the two options. */
static bool parse_host_port(struct words *w, const char *text, const char *host_name,
                            const char *port_name, GError **error)
{
    const char *colon = strrchr(text, ':');
    if (!colon || !colon[1])
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is not HOST:PORT", text);
    g_autofree char *host = g_strndup(text, colon - text);
    size_t len = strlen(host);
    if (len >= 2 && host[0] == '[' && host[len - 1] == ']')
        add_option(w, host_name, g_strndup(host + 1, len - 2));
    else
        add_option(w, host_name, g_strdup(host));
    add_option(w, port_name, g_strdup(colon + 1));
    return true;
}

static bool fill_none(struct words *w, const char *rest, GError **error)
{
    return true;
}

static bool fill_tail(struct words *w, const char *rest, GError **error)
{
    parse_tail(w, rest);
    return true;
}

static bool fill_path(struct words *w, const char *rest, GError **error)
{
    char *path = take_item(&rest);
    add_option(w, "path", path);
    if (!*path)
        return ruche_error(error, RUCHE_ERR_INVALID, "a path is missing behind ':'");
    parse_tail(w, rest);
    return true;
}

static bool fill_tcp(struct words *w, const char *rest, GError **error)
{
    g_autofree char *where = take_item(&rest);
    if (!parse_host_port(w, where, "host", "port", error))
        return false;
    parse_tail(w, rest);
    return true;
}

static bool fill_telnet(struct words *w, const char *rest, GError **error)
{
    add_option(w, "telnet", g_strdup("on"));
    return fill_tcp(w, rest, error);
}

/* "rhost:rport@lhost:lport" */
static bool fill_udp(struct words *w, const char *rest, GError **error)
{
    g_autofree char *text = g_strdup(rest);
    char *at = strchr(text, '@');
    if (at)
        *at++ = '\0';
    return parse_host_port(w, text, "host", "port", error) &&
           (!at || parse_host_port(w, at, "localaddr", "localport", error));
}

static const struct short_form {
    const char *prefix; /* ends with ':' when more follows */
    const char *backend;
    bool (*fill)(struct words *w, const char *rest, GError **error);
} forms[] = {
    { "null", "null", fill_none },
    { "vc:", "null", fill_none },
    { "vc", "null", fill_none },
    { "pty", "pty", fill_none },
    { "ringbuf", "ringbuf", fill_none },
    { "stdio,", "stdio", fill_tail },
    { "stdio", "stdio", fill_none },
    { "file:", "file", fill_path },
    { "pipe:", "pipe", fill_path },
    { "unix:", "socket", fill_path },
    { "tcp:", "socket", fill_tcp },
    { "telnet:", "socket", fill_telnet },
    { "udp:", "udp", fill_udp },
};

static const char *const form_names[] = { "none",  "null",  "stdio",    "mon:stdio", "pty",
                                          "file:", "pipe:", "unix:",    "tcp:",      "telnet:",
                                          "udp:",  "vc",    "chardev:", "ringbuf",   NULL };

static const struct short_form *form_find(const char *text, const char **ret_rest)
{
    for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
        size_t len = strlen(forms[i].prefix);
        char last = forms[i].prefix[len - 1];
        if (last == ':' || last == ',' ? strncmp(text, forms[i].prefix, len) == 0
                                       : strcmp(text, forms[i].prefix) == 0) {
            *ret_rest = text + len;
            return &forms[i];
        }
    }
    return NULL;
}

struct chardev *chardev_parse(const char *text, const char *id, struct loop *loop,
                              bool *ret_monitor, GError **error)
{
    const char *rest, *body = text;
    bool monitor = g_str_has_prefix(text, "mon:");
    if (monitor)
        body += 4;
    if (!strcmp(body, "none"))
        return NULL;
    const struct short_form *form = form_find(body, &rest);
    if (!form) {
        ruche_error(error, RUCHE_ERR_UNKNOWN, "'%s' is not a character device%s", text,
                    suggest_phrase(body, form_names));
        return NULL;
    }
    struct words w = { .count = 0 };
    struct chardev *c = NULL;
    if (form->fill(&w, rest, error)) {
        if (monitor)
            add_option(&w, "mux", g_strdup("on"));
        /* With a monitor on the same terminal, Ctrl-C belongs to the guest. */
        if (monitor && !strcmp(form->backend, "stdio"))
            add_option(&w, "signal", g_strdup("off"));
        c = chardev_new(form->backend, id, &(struct chardev_config){ w.option, w.count }, loop,
                        error);
    }
    free_words(&w);
    if (c && ret_monitor)
        *ret_monitor = monitor;
    return c;
}
