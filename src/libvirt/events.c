/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Events of the core to the clients that asked for them. What goes over the wire is a table.
 * Thread: the loop thread. */
#include "libvirt/events.h"

#include "libvirt/params.h"

#include <json-glib/json-glib.h>
#include <string.h>

enum { E_INVALID_ARG = 8, FROM_REMOTE = 13, TUNABLES_MAX = 2048 };

struct event_registration {
    struct event_registration *next;
    int callback; /* -1: an old one */
    enum event_class class;
    int event;
    bool any;         /* every object */
    uint8_t uuid[16]; /* else this one, ... */
    char *name;       /* ... or of a node device, by its name */
    char *word;       /* of a monitor: this event alone; NULL: all */
    bool any_case;
    GRegex *pattern; /* or those that it matches */
};

/* All that a message can hold. */
struct message {
    int32_t callback, reason;
    struct wire_domain dom;
    struct wire_named obj;
    struct wire_device dev;
    struct wire_secret secret;
    int32_t event, detail;
    char *text[4],
        *optional[4]; /* the same strings: one that must be there, one that may be NULL */
    int64_t number, excess;
    uint32_t micros; /* of a monitor's event, whose seconds are the number */
    struct xdr_array params;
};

#define F(kind, field, ...) XDR_F(kind, struct message, field, ##__VA_ARGS__)
#define DOM                 XDR_SUB(struct message, dom, wire_domain_xdr)
#define ROWS(name, ...)                                                                            \
    static const struct xdr_row name[] = {F(INT, callback), __VA_ARGS__, XDR_DONE}
ROWS(dom_rows, DOM);
ROWS(dom_two_rows, DOM, F(INT, event), F(INT, detail));
ROWS(dom_number_rows, DOM, F(HYPER, number));
ROWS(dom_event_rows, DOM, F(INT, event));
ROWS(io_error_rows, DOM, F(STRING, text[0]), F(STRING, text[1]), F(INT, event));
ROWS(io_reason_rows, DOM, F(STRING, text[0]), F(STRING, text[1]), F(INT, event),
     F(STRING, text[2]));
ROWS(block_job_rows, DOM, F(STRING, text[0]), F(INT, event), F(INT, detail));
ROWS(disk_rows, DOM, F(STRING_OPT, optional[0]), F(STRING_OPT, optional[1]), F(STRING, text[2]),
     F(INT, event));
ROWS(tray_rows, DOM, F(STRING, text[0]), F(INT, event));
ROWS(pm_rows, F(INT, reason), DOM);
ROWS(alias_rows, DOM, F(STRING, text[0]));
ROWS(params_rows, DOM, XDR_LIST(struct message, params, wire_param, TUNABLES_MAX));
ROWS(metadata_rows, DOM, F(INT, event), F(STRING_OPT, optional[0]));
ROWS(threshold_rows, DOM, F(STRING, text[0]), F(STRING_OPT, optional[1]), F(HYPER, number),
     F(HYPER, excess));
ROWS(failure_rows, DOM, F(INT, event), F(INT, detail), F(INT, reason));
ROWS(size_rows, DOM, F(STRING, text[0]), F(HYPER, number));
ROWS(obj_two_rows, XDR_SUB(struct message, obj, wire_named_xdr), F(INT, event), F(INT, detail));
ROWS(obj_rows, XDR_SUB(struct message, obj, wire_named_xdr));
ROWS(dev_two_rows, XDR_SUB(struct message, dev, wire_device_xdr), F(INT, event), F(INT, detail));
ROWS(dev_rows, XDR_SUB(struct message, dev, wire_device_xdr));
ROWS(secret_two_rows, XDR_SUB(struct message, secret, wire_secret_xdr), F(INT, event),
     F(INT, detail));
ROWS(secret_rows, XDR_SUB(struct message, secret, wire_secret_xdr));

ROWS(monitor_rows, DOM, F(STRING, text[0]), F(HYPER, number), F(UINT, micros),
     F(STRING_OPT, optional[1]));

/* How an event goes out: the message's procedure, that of the old registrations (0: none), and from
 * which row on these have it. */
struct kind {
    uint32_t procedure, old_procedure;
    const struct xdr_row *rows;
    unsigned old_from;
};
static const struct kind domain_kinds[DOMAIN_EVENT_IDS] = {
    [DOMAIN_EVENT_LIFECYCLE] = {318, 107, dom_two_rows, 1},
    [DOMAIN_EVENT_REBOOT] = {319, 169, dom_rows, 1},
    [DOMAIN_EVENT_RTC_CHANGE] = {320, 170, dom_number_rows, 1},
    [DOMAIN_EVENT_WATCHDOG] = {321, 171, dom_event_rows, 1},
    [DOMAIN_EVENT_IO_ERROR] = {322, 172, io_error_rows, 1},
    [DOMAIN_EVENT_GRAPHICS] = {323, 173, NULL, 0},
    [DOMAIN_EVENT_IO_ERROR_REASON] = {324, 195, io_reason_rows, 1},
    [DOMAIN_EVENT_CONTROL_ERROR] = {325, 224, dom_rows, 1},
    [DOMAIN_EVENT_BLOCK_JOB] = {326, 241, block_job_rows, 1},
    [DOMAIN_EVENT_DISK_CHANGE] = {327, 248, disk_rows, 1},
    [DOMAIN_EVENT_TRAY_CHANGE] = {328, 268, tray_rows, 1},
    [DOMAIN_EVENT_PMWAKEUP] = {329, 269, pm_rows, 2},
    [DOMAIN_EVENT_PMSUSPEND] = {330, 270, pm_rows, 2},
    [DOMAIN_EVENT_BALLOON_CHANGE] = {331, 276, dom_number_rows, 1},
    [DOMAIN_EVENT_PMSUSPEND_DISK] = {332, 292, pm_rows, 2},
    [DOMAIN_EVENT_DEVICE_REMOVED] = {333, 311, alias_rows, 1},
    [DOMAIN_EVENT_BLOCK_JOB_2] = {339, 0, block_job_rows, 0},
    [DOMAIN_EVENT_TUNABLE] = {346, 0, params_rows, 0},
    [DOMAIN_EVENT_AGENT_LIFECYCLE] = {348, 0, dom_two_rows, 0},
    [DOMAIN_EVENT_DEVICE_ADDED] = {354, 0, alias_rows, 0},
    [DOMAIN_EVENT_MIGRATION_ITERATION] = {359, 0, dom_event_rows, 0},
    [DOMAIN_EVENT_JOB_COMPLETED] = {363, 0, params_rows, 0},
    [DOMAIN_EVENT_DEVICE_REMOVAL_FAILED] = {367, 0, alias_rows, 0},
    [DOMAIN_EVENT_METADATA_CHANGE] = {379, 0, metadata_rows, 0},
    [DOMAIN_EVENT_BLOCK_THRESHOLD] = {385, 0, threshold_rows, 0},
    [DOMAIN_EVENT_MEMORY_FAILURE] = {423, 0, failure_rows, 0},
    [DOMAIN_EVENT_MEMORY_DEVICE_SIZE_CHANGE] = {438, 0, size_rows, 0},
};
static const struct kind network_kinds[] = {{315, 0, obj_two_rows, 0}};
static const struct kind pool_kinds[] = {{370, 0, obj_two_rows, 0}, {373, 0, obj_rows, 0}};
static const struct kind device_kinds[] = {{376, 0, dev_two_rows, 0}, {377, 0, dev_rows, 0}};
static const struct kind secret_kinds[] = {{382, 0, secret_two_rows, 0}, {383, 0, secret_rows, 0}};
static const struct kind monitor_kinds[] = {{6, 0, monitor_rows, 0}};
static const struct {
    const struct kind *kinds;
    int count;
    const char *name;
    uint32_t program;
} classes[EVENT_CLASSES] = {
    [EVENT_DOMAIN] = {domain_kinds, G_N_ELEMENTS(domain_kinds), "domain", PROGRAM_REMOTE},
    [EVENT_NETWORK] = {network_kinds, G_N_ELEMENTS(network_kinds), "network", PROGRAM_REMOTE},
    [EVENT_POOL] = {pool_kinds, G_N_ELEMENTS(pool_kinds), "storage pool", PROGRAM_REMOTE},
    [EVENT_NODE_DEVICE] = {device_kinds, G_N_ELEMENTS(device_kinds), "node device", PROGRAM_REMOTE},
    [EVENT_SECRET] = {secret_kinds, G_N_ELEMENTS(secret_kinds), "secret", PROGRAM_REMOTE},
    [EVENT_MONITOR] = {monitor_kinds, G_N_ELEMENTS(monitor_kinds), "monitor", PROGRAM_QEMU},
};

const struct xdr_row *events_rows(uint32_t program, uint32_t procedure, size_t *ret_size)
{
    *ret_size = sizeof(struct message);
    for (unsigned i = 0; i < G_N_ELEMENTS(classes); i++)
        for (int j = 0; classes[i].program == program && j < classes[i].count; j++) {
            const struct kind *k = &classes[i].kinds[j];
            if (k->rows && (k->procedure == procedure || k->old_procedure == procedure))
                return k->rows + (k->procedure == procedure ? 0 : k->old_from);
        }
    return NULL;
}

/* ---- registrations ---- */

static bool check(const struct client *c, enum event_class class, int event, GError **error)
{
    unsigned count = 0;
    if (event < 0 || event >= classes[class].count)
        return wire_error(error, E_INVALID_ARG, FROM_REMOTE, "there is no %s event %d",
                          classes[class].name, event);
    for (const struct event_registration *r = c->registrations; r; r = r->next)
        count++;
    return count < EVENT_REGISTRATIONS_MAX ||
           wire_error(error, E_INVALID_ARG, FROM_REMOTE, "one client may register for %d events",
                      EVENT_REGISTRATIONS_MAX);
}

static struct event_registration *add(struct client *c, enum event_class class, int event,
                                      int callback)
{
    struct event_registration *r = g_new0(struct event_registration, 1), **end = &c->registrations;
    r->callback = callback;
    r->class = class;
    r->event = event;
    r->any = true;
    while (*end)
        end = &(*end)->next;
    *end = r;
    return r;
}

int events_register(struct client *c, enum event_class class, int event, const uint8_t *uuid,
                    const char *name, GError **error)
{
    if (!check(c, class, event, error))
        return -1;
    struct event_registration *r = add(c, class, event, c->next_callback++);
    r->any = !uuid && !name;
    if (uuid)
        memcpy(r->uuid, uuid, sizeof(r->uuid));
    else
        r->name = g_strdup(name);
    return r->callback;
}

/* NULL: no expression. */
static GRegex *expression(const char *text, unsigned flags, GError **error)
{
    g_autoptr(GError) why = NULL;
    GRegex *r = strlen(text) > EVENT_PATTERN_MAX
                    ? NULL
                    : g_regex_new(text, flags & EVENT_ANY_CASE ? G_REGEX_CASELESS : 0, 0, &why);
    if (!r)
        wire_error(error, E_INVALID_ARG, FROM_REMOTE, "the pattern of an event, '%.80s', %s", text,
                   why ? why->message : "is too long");
    return r;
}

int events_register_monitor(struct client *c, const uint8_t *uuid, const char *event,
                            unsigned flags, GError **error)
{
    GRegex *pattern = NULL;
    if (event && (flags & EVENT_PATTERN) && !(pattern = expression(event, flags, error)))
        return -1;
    if (!check(c, EVENT_MONITOR, 0, error)) {
        g_clear_pointer(&pattern, g_regex_unref);
        return -1;
    }
    struct event_registration *r = add(c, EVENT_MONITOR, 0, c->next_callback++);
    r->any = !uuid;
    if (uuid)
        memcpy(r->uuid, uuid, sizeof(r->uuid));
    r->word = pattern ? NULL : g_strdup(event);
    r->any_case = flags & EVENT_ANY_CASE;
    r->pattern = pattern;
    return r->callback;
}

static struct event_registration **find(struct client *c, enum event_class class, int callback,
                                        int event)
{
    struct event_registration **at = &c->registrations;
    while (*at && ((*at)->class != class || (*at)->callback != callback ||
                   (event >= 0 && (*at)->event != event)))
        at = &(*at)->next;
    return at;
}

static void take_out(struct event_registration **at)
{
    struct event_registration *r = *at;
    *at = r->next;
    g_free(r->name);
    g_free(r->word);
    g_clear_pointer(&r->pattern, g_regex_unref);
    g_free(r);
}

bool events_deregister(struct client *c, enum event_class class, int callback, GError **error)
{
    struct event_registration **at = find(c, class, callback, -1);
    if (callback < 0 || !*at)
        return wire_error(error, E_INVALID_ARG, FROM_REMOTE,
                          "%s event callback %d is not registered", classes[class].name, callback);
    take_out(at);
    return true;
}

bool events_register_old(struct client *c, int event, GError **error)
{
    if (!check(c, EVENT_DOMAIN, event, error))
        return false;
    if (!domain_kinds[event].old_procedure || *find(c, EVENT_DOMAIN, -1, event))
        return wire_error(error, E_INVALID_ARG, FROM_REMOTE, "domain event %d %s", event,
                          domain_kinds[event].old_procedure ? "is registered already"
                                                            : "needs a callback");
    add(c, EVENT_DOMAIN, event, -1);
    return true;
}

bool events_deregister_old(struct client *c, int event, GError **error)
{
    struct event_registration **at = find(c, EVENT_DOMAIN, -1, event);
    if (event < 0 || !*at)
        return wire_error(error, E_INVALID_ARG, FROM_REMOTE, "domain event %d is not registered",
                          event);
    take_out(at);
    return true;
}

void events_forget(struct client *c)
{
    while (c->registrations)
        take_out(&c->registrations);
}

/* ---- emission ---- */

/* Of the events of a monitor, those that were asked for. */
static bool is_word(const struct event_registration *r, const char *word)
{
    if (r->pattern)
        return g_regex_match(r->pattern, word, 0, NULL);
    return !r->word || (r->any_case ? !g_ascii_strcasecmp(r->word, word) : !strcmp(r->word, word));
}

static bool matches(const struct event_registration *r, const struct event *e)
{
    if (r->class != e->class || r->event != e->id ||
        (e->class == EVENT_MONITOR && !is_word(r, e->text[0])))
        return false;
    if (r->any)
        return true;
    return r->name ? !g_strcmp0(r->name, e->name)
                   : e->uuid && !memcmp(r->uuid, e->uuid, sizeof(r->uuid));
}

/* Strings stay the emitter's. */
static void fill(struct message *m, const struct event *e)
{
    *m = (struct message){.event = e->event,
                          .detail = e->detail,
                          .number = (int64_t)e->number,
                          .excess = (int64_t)e->excess};
    m->dom.name = m->obj.name = m->dev.name = (char *)e->name;
    m->secret.usage = (char *)(e->text[0] ? e->text[0] : "");
    m->secret.usage_type = (int32_t)e->number;
    m->dom.id = e->object_id;
    if (e->uuid) {
        memcpy(m->dom.uuid, e->uuid, 16);
        memcpy(m->obj.uuid, e->uuid, 16);
        memcpy(m->secret.uuid, e->uuid, 16);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(e->text); i++)
        m->text[i] = m->optional[i] = (char *)e->text[i];
    if (e->class == EVENT_DOMAIN && e->id == DOMAIN_EVENT_METADATA_CHANGE)
        m->event = (int32_t)e->number;
    if (e->class == EVENT_MONITOR) {
        m->number = (int64_t)(e->number / G_USEC_PER_SEC);
        m->micros = (uint32_t)(e->number % G_USEC_PER_SEC);
    }
}

/* What a monitor tells is text only for those who asked. */
static void fill_data(struct message *m, const struct event *e)
{
    if (!e->data || m->optional[1])
        return;
    g_autoptr(JsonNode) n = json_node_init_object(json_node_alloc(), e->data);
    m->optional[1] = json_to_string(n, FALSE);
}

static void fill_params(struct message *m, const struct event *e)
{
    struct param_list copy = {0};
    for (unsigned i = 0; e->params && i < e->params->count; i++) {
        const struct param *p = &e->params->rows[i];
        if (p->type == PARAM_STRING)
            param_string(&copy, p->name, p->s);
        else
            param_ullong(&copy, p->name, 0);
        if (p->type != PARAM_STRING)
            copy.rows[copy.count - 1] = *p;
    }
    params_to_wire(&copy, &m->params);
}

static void send(struct client *c, const struct event_registration *r, const struct kind *k,
                 struct message *m)
{
    bool old = r->callback < 0;
    uint32_t program = classes[r->class].program;
    const struct frame f = {
        program, PROGRAM_VERSION, old ? k->old_procedure : k->procedure, FRAME_MESSAGE,
        1,       FRAME_OK};
    m->callback = r->callback;
    client_send_rows(c, &f, k->rows + (old ? k->old_from : 0), m);
    server_figures()->events++;
}

static void tell(struct client *c, const struct event *e, const struct kind *k, struct message *m)
{
    bool any = false;
    for (const struct event_registration *r = c->registrations; r; r = r->next)
        if (matches(r, e)) {
            fill_data(m, e);
            send(c, r, k, m);
            any = true;
        }
    if (any && client_waiting_bytes(c) > server_config()->max_output_bytes)
        client_end(c, "it does not read its events");
    else if (any)
        client_flush(c);
}

static void emitted(void *opaque, const struct event *e)
{
    if (e->id < 0 || e->id >= classes[e->class].count || !classes[e->class].kinds[e->id].rows)
        return;
    static const struct xdr_row free_rows[] = {
        XDR_LIST(struct message, params, wire_param, TUNABLES_MAX), XDR_DONE};
    struct message m;
    fill(&m, e);
    fill_params(&m, e);
    for (GList *l = server_clients(), *next; l; l = next) {
        next = l->next;
        struct client *c = l->data;
        if (c->registrations)
            tell(c, e, &classes[e->class].kinds[e->id], &m);
    }
    xdr_free(free_rows, &m);
    if (e->data)
        g_free(m.optional[1]);
}

static struct event_listener listener = {.fn = emitted};

void events_start(void)
{
    event_listen(&listener);
}

void events_stop(void)
{
    event_unlisten(&listener);
}
