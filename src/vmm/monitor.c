/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Monitors on character backends: QMP sessions, and lines typed by people. */
#include "vmm/monitor.h"

#include "chardev/chardev.h"

#include <string.h>
#include <unistd.h>

#define PROMPT "(ruche) "
#define MAX_LINE 4096
#define MONITOR_INPUT 4096

struct monitor {
    struct vmm *vmm;
    struct chardev *chardev;     /* borrowed */
    bool qmp;
    struct qmp_session *session; /* QMP, while a peer is there */
    GString *line;               /* human: what is typed so far */
    bool greeted;
    struct loop_task drop_task;
};

static size_t can_receive(void *opaque)
{
    return MONITOR_INPUT;
}

/* ---- QMP ---- */

static size_t qmp_write(void *opaque, const void *data, size_t len)
{
    struct monitor *m = opaque;
    return chardev_write(m->chardev, data, len);
}

/* The stream of a chardev cannot be cut from here: the peer gets a new session. */
static void drop_session(void *opaque)
{
    struct monitor *m = opaque;
    g_clear_pointer(&m->session, qmp_session_free);
}

static void qmp_drop(void *opaque)
{
    struct monitor *m = opaque;
    loop_post(m->vmm->loop, &m->drop_task);
}

static void qmp_opened(void *opaque, bool open)
{
    struct monitor *m = opaque;
    g_clear_pointer(&m->session, qmp_session_free);
    const struct qmp_transport t = { .write = qmp_write, .drop = qmp_drop, .opaque = m };
    if (open)
        m->session = qmp_session_new(m->vmm->qmp, &t);
}

static void qmp_receive(void *opaque, const uint8_t *data, size_t len)
{
    struct monitor *m = opaque;
    if (m->session)
        qmp_session_receive(m->session, data, len);
}

static void qmp_receive_fd(void *opaque, int fd)
{
    struct monitor *m = opaque;
    if (m->session)
        qmp_session_receive_fd(m->session, fd);
    else
        close(fd);
}

static void qmp_sent(void *opaque)
{
    struct monitor *m = opaque;
    if (m->session)
        qmp_session_writable(m->session);
}

/* ---- people ---- */

static void say(struct monitor *m, const char *text)
{
    /* Terminals are raw: a line feed alone would not return to the first column. */
    for (const char *p = text; *p;) {
        size_t len = strcspn(p, "\n");
        chardev_write(m->chardev, p, len);
        p += len;
        if (*p) {
            chardev_write(m->chardev, "\r\n", 2);
            p++;
        }
    }
}

static void greet(struct monitor *m)
{
    if (!m->greeted)
        say(m, "ruche-vmm " RUCHE_VERSION " monitor; 'help' lists the commands\n");
    m->greeted = true;
    say(m, PROMPT);
}

static void run_line(struct monitor *m)
{
    say(m, "\n");
    g_autofree char *answer = hmp_run(m->vmm, m->line->str);
    g_string_truncate(m->line, 0);
    say(m, answer);
    if (*answer && !g_str_has_suffix(answer, "\n"))
        say(m, "\n");
    if (!m->vmm->run.ending)
        say(m, PROMPT);
}

static void type_byte(struct monitor *m, uint8_t b)
{
    if (b == '\r' || b == '\n') {
        if (m->line->len || b == '\r')
            run_line(m);
    } else if (b == 0x7f || b == '\b') {
        if (m->line->len) {
            g_string_truncate(m->line, m->line->len - 1);
            say(m, "\b \b");
        }
    } else if (b == 0x15) { /* Ctrl-u */
        for (; m->line->len; g_string_truncate(m->line, m->line->len - 1))
            say(m, "\b \b");
    } else if (b >= ' ' && m->line->len < MAX_LINE) {
        g_string_append_c(m->line, (char)b);
        chardev_write(m->chardev, &b, 1);
    }
}

static void human_receive(void *opaque, const uint8_t *data, size_t len)
{
    struct monitor *m = opaque;
    for (size_t i = 0; i < len && !m->vmm->run.ending; i++)
        type_byte(m, data[i]);
}

static void human_opened(void *opaque, bool open)
{
    struct monitor *m = opaque;
    m->greeted = false;
    g_string_truncate(m->line, 0);
    if (open && !chardev_is_mux(m->chardev))
        greet(m);
}

static void human_focus(void *opaque, bool in)
{
    struct monitor *m = opaque;
    if (in) {
        say(m, "\n");
        greet(m);
    }
}

/* ---- life ---- */

void monitor_free(gpointer monitor)
{
    struct monitor *m = monitor;
    if (m->session && qmp_session_pending(m->session))
        qmp_session_writable(m->session);
    g_clear_pointer(&m->session, qmp_session_free);
    chardev_detach(m->chardev, m);
    loop_unpost(m->vmm->loop, &m->drop_task);
    g_string_free(m->line, TRUE);
    g_free(m);
}

static bool attach_monitor(struct vmm *v, struct chardev *c, bool qmp, GError **error)
{
    struct monitor *m = g_new0(struct monitor, 1);
    *m = (struct monitor){ .vmm = v, .chardev = c, .qmp = qmp, .line = g_string_new(NULL) };
    m->drop_task = (struct loop_task){ .fn = drop_session, .opaque = m };
    const struct chardev_frontend human = { .can_receive = can_receive,
                                            .receive = human_receive,
                                            .opened = human_opened,
                                            .focus = human_focus,
                                            .opaque = m };
    const struct chardev_frontend program = { .can_receive = can_receive, .receive = qmp_receive,
                                              .receive_fd = qmp_receive_fd,
                                              .opened = qmp_opened, .sent = qmp_sent, .opaque = m };
    if (!chardev_attach(c, qmp ? &program : &human, error)) {
        g_string_free(m->line, TRUE);
        g_free(m);
        return false;
    }
    g_ptr_array_add(v->monitors, m);
    return true;
}

static bool build_monitor(struct vmm *v, const struct monitor_text *text, unsigned index,
                          GError **error)
{
    if (text->qmp && qmp_server_can_listen(text->spec))
        return qmp_server_listen(v->qmp, text->spec, error);
    g_autofree char *id = g_strdup_printf("compat_monitor%u", index);
    GError *local = NULL;
    bool is_mux = false;
    struct chardev *c = build_short_chardev(v, text->spec, id, &is_mux, &local);
    if (local) {
        g_propagate_error(error, local);
        return false;
    }
    return !c || attach_monitor(v, c, text->qmp, error);
}

bool build_monitors(struct vmm *v, GError **error)
{
    for (guint i = 0; i < v->options.monitors->len; i++) {
        const struct monitor_text *text = g_ptr_array_index(v->options.monitors, i);
        if (!build_monitor(v, text, i, error)) {
            g_prefix_error(error, text->qmp ? "-qmp: " : "-monitor: ");
            return false;
        }
    }
    return true;
}
