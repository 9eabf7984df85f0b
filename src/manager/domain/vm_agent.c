/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guest agent, behind its channel's socket.
 *
 * Spec      QEMU Guest Agent protocol: JSON lines; guest-sync begins each exchange, so that what
 *           an earlier one left behind is not taken for an answer.
 * Trust     The peer is the guest itself: bounded in bytes, depth and time.
 */
#include "manager/domain/vm_internal.h"

#include "base/fd.h"
#include "base/json_frame.h"
#include "base/sock.h"

#include <string.h>
#include <sys/socket.h>

#define AGENT_NAME "org.qemu.guest_agent.0"
#define MAX_ANSWER (16u << 20)
#define DEFAULT_S  5
#define OBEY_S     15 /* for the agent of a busy guest to listen; the domain is held meanwhile */
#define BLOCK_S    3600

struct talk {
    const struct vm *v;
    int fd;
    int64_t until_us;
    struct frame frame;
    char buf[4096]; /* read, from `at` on not yet looked at */
    size_t at, len;
};

static bool no_agent(const struct vm *v, const char *why, GError **error)
{
    return ruche_error(error, MANAGER_ERR_AGENT, "machine '%s': %s", v->name, why);
}

static int left_ms(const struct talk *t)
{
    int64_t left = (t->until_us - g_get_monotonic_time()) / 1000;
    return (int)CLAMP(left, 0, G_MAXINT);
}

static bool send_text(struct talk *t, const char *text, GError **error)
{
    for (size_t len = strlen(text), at = 0; at < len;) {
        ssize_t n = send(t->fd, text + at, len - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0)
            at += (size_t)n;
        else if (errno != EAGAIN && errno != EINTR)
            return no_agent(t->v, "its channel is closed", error);
        else if (!task_wait_fd(t->fd, G_IO_OUT, left_ms(t)))
            return no_agent(t->v, "it does not read", error);
    }
    return true;
}

/* More bytes. False: over. */
static bool fill(struct talk *t, GError **error)
{
    if (!task_wait_fd(t->fd, G_IO_IN, left_ms(t)))
        return no_agent(t->v, "no answer in time; is the agent running in the guest?", error);
    ssize_t n = recv(t->fd, t->buf, sizeof(t->buf), MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        return no_agent(t->v, "its channel was closed", error);
    t->at = 0;
    t->len = n > 0 ? (size_t)n : 0;
    return true;
}

/* The next text that is JSON; noise before it is skipped. NULL with *error. */
static char *receive_text(struct talk *t, GError **error)
{
    for (size_t total = 0; total < MAX_ANSWER; total += t->len) {
        while (t->at < t->len) {
            const char *p = t->buf + t->at, *why;
            size_t left = t->len - t->at;
            enum frame_result r = frame_feed(&t->frame, &p, &left, &why);
            t->at = t->len - left;
            if (r == FRAME_TEXT)
                return g_strdup(t->frame.text->str);
        }
        if (!fill(t, error))
            return NULL;
    }
    no_agent(t->v, "its answer is too long", error);
    return NULL;
}

/* Until our number comes back. */
static bool synchronize(struct talk *t, GError **error)
{
    int64_t id = (int64_t)g_random_int();
    g_autofree char *text = g_strdup_printf(
        "\xff{\"execute\":\"guest-sync\",\"arguments\":{\"id\":%" G_GINT64_FORMAT "}}\n", id);
    if (!send_text(t, text, error))
        return false;
    for (int i = 0; i < 100; i++) {
        g_autofree char *answer = receive_text(t, error);
        if (!answer)
            return false;
        g_autoptr(JsonNode) n = json_from_string(answer, NULL);
        if (vm_json_int(vm_json_object(n), "return", -1) == id)
            return true;
    }
    return no_agent(t->v, "it does not come to an end", error);
}

/* How long it may take to say that it is there: as long as it may take to answer; but who waits for
 * an answer for ever, waits for one of an agent that lives. */
static int greeting_s(int timeout_s, bool silent)
{
    return silent ? OBEY_S : timeout_s > 0 ? timeout_s : DEFAULT_S;
}

/* silent: that it says nothing more is an answer. */
static char *talk(struct vm *v, const char *path, const char *json, int timeout_s, bool silent,
                  GError **error)
{
    g_autoptr(GError) closed = NULL;
    autofd fd = vm_connect(path, &closed);
    if (fd < 0) {
        no_agent(v, closed->message, error);
        return NULL;
    }
    int seconds = timeout_s == AGENT_BLOCK     ? BLOCK_S
                  : timeout_s == AGENT_DEFAULT ? DEFAULT_S
                                               : MAX(timeout_s, 1);
    int64_t began = g_get_monotonic_time();
    struct talk t = {
        .v = v, .fd = fd, .until_us = began + greeting_s(timeout_s, silent) * G_USEC_PER_SEC};
    frame_init(&t.frame, MAX_ANSWER, QMP_MAX_DEPTH);
    g_autofree char *line = g_strconcat(json, "\n", NULL);
    char *answer = NULL;
    if (synchronize(&t, error)) {
        t.until_us = g_get_monotonic_time() + seconds * G_USEC_PER_SEC;
        bool sent = send_text(&t, line, error);
        v->told_fd = silent ? fd : -1;
        if (sent && timeout_s != AGENT_NO_WAIT)
            answer = receive_text(&t, silent ? NULL : error);
        v->told_fd = -1;
        if (sent && !answer && (silent || timeout_s == AGENT_NO_WAIT))
            answer = g_strdup("{}");
    }
    frame_done(&t.frame);
    return answer;
}

static const struct def_chardev *channel_of_agent(const struct vm *v)
{
    const struct domain_def *def = v->d ? v->d->live : NULL;
    for (unsigned i = 0; def && i < def->s.chardev_count; i++) {
        const struct def_chardev *c = &def->s.chardevs[i];
        if (!g_strcmp0(c->kind, "channel") && !g_strcmp0(c->target, AGENT_NAME) &&
            !g_strcmp0(c->type, "unix"))
            return c;
    }
    return NULL;
}

GHashTable *vm_ports(struct vm *v)
{
    __attribute__((unused)) auto_vm *keep = vm_ref(v);
    GHashTable *ports = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(JsonNode) n = vm_call(v, "query-chardev", NULL, NULL);
    JsonObject *o;
    for (guint i = 0; (o = vm_json_at(vm_json_array(n), i)); i++) {
        const char *label = vm_json_string(o, "label");
        if (label && g_str_has_prefix(label, "char") && json_object_has_member(o, "frontend-open"))
            g_hash_table_insert(ports, g_strdup(label + strlen("char")),
                                GINT_TO_POINTER(vm_json_bool(o, "frontend-open")));
    }
    return ports;
}

/* The guest has its end of the channel open; where the emulator does not say, it may be. */
static bool is_open(struct vm *v, const char *alias, GError **error)
{
    g_autoptr(GHashTable) ports = vm_ports(v);
    gpointer open;
    return !g_hash_table_lookup_extended(ports, alias, NULL, &open) || GPOINTER_TO_INT(open) ||
           no_agent(v, "QEMU guest agent is not connected", error);
}

/* The agent's own word that it does not do it. */
static bool is_refused(const struct vm *v, const char *json, const char *answer, GError **error)
{
    bool may_be = strstr(answer, "\"error\"") != NULL; /* answers can be long */
    g_autoptr(JsonNode) n = may_be ? json_from_string(answer, NULL) : NULL, asked = NULL;
    JsonObject *refusal = vm_json_sub(vm_json_object(n), "error");
    if (!refusal)
        return false;
    asked = json_from_string(json, NULL);
    const char *what = vm_json_string(vm_json_object(asked), "execute"),
               *why = vm_json_string(refusal, "desc");
    ruche_error(error, MANAGER_ERR_MACHINE, "machine '%s': the guest agent refuses '%s': %.500s",
                v->name, what ? what : "", why ? why : "it does not say why");
    return true;
}

static char *command(struct vm *v, const char *json, int timeout_s, bool silent, GError **error)
{
    auto_vm *keep = vm_ref(v);
    const struct def_chardev *c = channel_of_agent(v);
    g_autofree char *path = c ? g_strdup(c->path) : NULL, *alias = c ? g_strdup(c->alias) : NULL;
    const char *why = frame_check(json, strlen(json), QMP_MAX_INPUT, QMP_MAX_DEPTH);
    if (why) {
        ruche_error(error, RUCHE_ERR_INVALID, "a command to the agent: %s", why);
        return NULL;
    }
    if (!path) {
        ruche_error(error, MANAGER_ERR_CONFIG,
                    "QEMU guest agent is not configured: machine '%s' has no channel '" AGENT_NAME
                    "'",
                    v->name);
        return NULL;
    }
    if (!is_open(v, alias ? alias : "", error))
        return NULL;
    fiber_mutex_lock(&keep->agent_lock);
    char *answer = talk(keep, path, json, timeout_s, silent, error);
    fiber_mutex_unlock(&keep->agent_lock);
    if (answer && is_refused(keep, json, answer, error))
        g_clear_pointer(&answer, g_free);
    return answer;
}

char *vm_agent_command(struct vm *v, const char *json, int timeout_s, GError **error)
{
    return command(v, json, timeout_s, false, error);
}

bool vm_agent_tell(struct vm *v, const char *json, GError **error)
{
    g_autofree char *answer = command(v, json, AGENT_DEFAULT, true, error);
    return answer != NULL;
}

void vm_agent_done(struct vm *v)
{
    if (v->told_fd >= 0)
        shutdown(v->told_fd, SHUT_RDWR); /* whoever waits there goes on */
}
