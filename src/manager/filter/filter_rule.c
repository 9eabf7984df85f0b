/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One rule whose values are known: its lines of nftables. See filter_work.h. */
#include "manager/filter/filter_work.h"

#include <string.h>

const char filter_ip_chain[] = "ip*";

/* Which of a connection's packets a rule of libvirt's iptables half means. */
enum state_match { ANY_STATE, NEW_AND_ESTABLISHED, ESTABLISHED };

static const char *const verdicts[] = {
    [FILTER_DROP] = "drop",     [FILTER_ACCEPT] = "accept",
    [FILTER_REJECT] = "drop", /* libvirt's, too, where no connections are looked at */
    [FILTER_RETURN] = "return", [FILTER_CONTINUE] = "continue",
};

bool filter_add_line(struct filter_work *w, const char *chain, bool to, int priority, char *text,
                     char *early, GError **error)
{
    struct filter_line *l = g_new0(struct filter_line, 1);
    *l = (struct filter_line){chain, to, priority, w->lines->len, text, early};
    g_ptr_array_add(w->lines, l);
    return w->lines->len <= FILTER_RULES_MAX ||
           ruche_error(error, MANAGER_ERR_CONFIG,
                       "filter '%s': interface '%s' would need more than %d rules", w->t->filter,
                       w->t->ifname, FILTER_RULES_MAX);
}

/* iptables' own answer; the kernel gives none to what is no question. */
static const char *answer(const struct filter_rule *r)
{
    if (r->action != FILTER_REJECT || !r->proto || !r->proto->stateful)
        return NULL;
    return strstr(r->proto->match, "ip6") ? "reject with icmpv6 type port-unreachable"
                                          : "reject with icmp type port-unreachable";
}

static char *finish(const GString *match, const char *verdict, const struct filter_attr *comment,
                    const char *text)
{
    GString *s = g_string_new_len(match->str, (gssize)match->len);
    g_string_append_printf(s, " %s", verdict);
    if (text)
        filter_match(s, comment, false, false, text, NULL);
    return g_string_free(s, FALSE);
}

/* The kernel's bridge can answer where a frame comes in, and not where it leaves. */
static bool emit(struct filter_work *w, const char *chain, bool to, bool swapped,
                 enum state_match state, const struct filter_rule *r, char *const *values,
                 GError **error)
{
    static const char *const states[] = {"", " ct state new,established", " ct state established"};
    g_autoptr(GString) s = g_string_new(r->proto ? r->proto->match : "");
    const struct filter_attr *comment = NULL;
    const char *said = NULL, *reject = answer(r), *plain = verdicts[r->action];
    for (int i = 0; r->proto && r->proto->attrs[i].name; i++) {
        const struct filter_attr *a = &r->proto->attrs[i];
        if (a->kind == FK_COMMENT) {
            comment = a;
            said = values[i];
        } else if (values[i] && a->expr) {
            filter_match(s, a, swapped, r->negate, values[i],
                         a->partner ? values[filter_attr_index(r->proto, a->partner)] : NULL);
        }
    }
    w->p->needs_ct |= state != ANY_STATE;
    w->p->rejects |= reject != NULL;
    g_string_append(s, states[state]);
    return filter_add_line(w, chain, to, r->priority,
                           finish(s, reject && !to ? reject : plain, comment, said),
                           reject && to ? finish(s, reject, comment, said) : NULL, error);
}

static const char *value(const struct filter_rule *r, char *const *values, const char *name)
{
    int i = filter_attr_index(r->proto, name);
    return i >= 0 ? values[i] : NULL;
}

/* A rule of "in" and one of "inout" is written as frames to the machine look; the other way its
 * ends are swapped. */
static bool emit_stateful(struct filter_work *w, const struct filter_rule *r, char *const *values,
                          GError **error)
{
    bool in = r->direction != FILTER_OUT, both = r->direction == FILTER_INOUT;
    if (value(r, values, "ipset"))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "%s: ipset '%s': nftables cannot use sets of ipset", r->proto->name,
                           value(r, values, "ipset"));
    bool own = value(r, values, "state") != NULL;
    w->p->needs_ct |=
        (own && strcmp(value(r, values, "state"), "NONE")) || value(r, values, "connlimit-above");
    if (own)
        return (r->direction == FILTER_IN ||
                emit(w, filter_ip_chain, false, both, ANY_STATE, r, values, error)) &&
               (r->direction == FILTER_OUT ||
                emit(w, filter_ip_chain, true, false, ANY_STATE, r, values, error));
    bool plain = both || r->stateless || r->action != FILTER_ACCEPT;
    enum state_match from = in ? ESTABLISHED : NEW_AND_ESTABLISHED,
                     to = in ? NEW_AND_ESTABLISHED : ESTABLISHED;
    return emit(w, filter_ip_chain, false, in, plain ? ANY_STATE : from, r, values, error) &&
           emit(w, filter_ip_chain, true, !in, plain ? ANY_STATE : to, r, values, error);
}

bool filter_emit_rule(struct filter_work *w, const struct filter_def *d,
                      const struct filter_rule *r, char *const *values, GError **error)
{
    if (r->proto && r->proto->stateful)
        return emit_stateful(w, r, values, error);
    if (r->proto && r->negate && !g_strcmp0(value(r, values, "gratuitous"), "true"))
        return ruche_error(
            error, MANAGER_ERR_CONFIG,
            "%s: gratuitous: nftables cannot tell that two fields of a frame differ; "
            "match='no' does not go with it",
            r->proto->name);
    return (r->direction == FILTER_IN ||
            emit(w, d->chain, false, r->direction == FILTER_INOUT, ANY_STATE, r, values, error)) &&
           (r->direction == FILTER_OUT ||
            emit(w, d->chain, true, false, ANY_STATE, r, values, error));
}
