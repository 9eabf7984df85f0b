/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SASL, the client's side: name and password of a file, the exchange. Thread: a worker.
 *
 * File      auth.conf, as libvirt's clients have it: [auth-libvirt-HOST] or [auth-libvirt-default]
 * with credentials=NAME, and [credentials-NAME] with authname= and password=.
 * Trust     What the peer sends goes into the library, capped. A password is never sent as it is but
 * through TLS whose certificate was checked, or where nobody can listen.
 */
#include "libvirt/peer_sasl.h"

#include "libvirt/auth.h"
#include "libvirt/sasl.h"
#include "libvirt/xdr.h"
#include "manager/error.h"
#include "manager/manager.h"

#include <glib/gstdio.h>
#include <string.h>

#define FILE_MAX (1u << 20)
#define ROUNDS   16

enum { PROC_SASL_INIT = 67, PROC_SASL_START = 68, PROC_SASL_STEP = 69, TLS_BITS = 256 };

struct credentials {
    char *name, *password;
};

static void credentials_done(struct credentials *c)
{
    if (c->password)
        explicit_bzero(c->password, strlen(c->password));
    g_free(c->password);
    g_free(c->name);
}

/* ---- the file ---- */

static bool missing(const char *uri, const char *host, const char *path, const char *what,
                    GError **error)
{
    return ruche_error(error, MANAGER_ERR_AUTH,
                       "'%s' asks for a name and a password, and %s: '%s' needs "
                       "[auth-libvirt-%s] with credentials=NAME, and [credentials-NAME] with "
                       "authname= and password=",
                       uri, what, path, host);
}

static char *group_of(GKeyFile *file, const char *host)
{
    const char *const names[] = {host, "default"};
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *section = g_strdup_printf("auth-libvirt-%s", names[i]);
        g_autofree char *name = g_key_file_get_string(file, section, "credentials", NULL);
        if (name)
            return g_strdup_printf("credentials-%s", name);
    }
    return NULL;
}

static bool load(GKeyFile *file, const char *path, GError **error)
{
    GStatBuf s;
    if (g_stat(path, &s) == 0 && s.st_size > FILE_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s' has over %u bytes", path, FILE_MAX);
    return g_key_file_load_from_file(file, path, G_KEY_FILE_NONE, error);
}

static bool find(const struct peer_link *l, const char *uri, struct credentials *ret,
                 GError **error)
{
    g_autofree char *path = g_build_filename(manager.config_dir, "auth.conf", NULL);
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_autoptr(GError) why = NULL;
    if (!load(file, path, &why))
        return missing(uri, l->host, path, why->message, error);
    g_autofree char *group = group_of(file, l->host);
    if (!group)
        return missing(uri, l->host, path, "there are none for it", error);
    ret->name = g_key_file_get_string(file, group, "authname", NULL);
    if (!ret->name)
        ret->name = g_strdup(l->user);
    ret->password = g_key_file_get_string(file, group, "password", NULL);
    return (ret->name && ret->password) || missing(uri, l->host, path, "one is missing", error);
}

/* ---- the exchange ---- */

struct exchange {
    struct sasl_layer *sasl;
    peer_ask_fn *ask;
    void *opaque;
    bool ours_done, theirs_done;
};

/* What it has answered, in place of the words; then what we say to it. */
static bool take_answer(struct exchange *x, struct sasl_reply *r, struct sasl_answer *ret,
                        GError **error)
{
    char *bytes = r->data.items;
    for (uint32_t i = 0; i < r->data.count; i++)
        bytes[i] = (char)((struct wire_u32 *)r->data.items)[i].v;
    x->theirs_done = r->complete;
    *ret = (struct sasl_answer){.complete = true};
    if (x->ours_done)
        return true;
    bool ok = sasl_layer_step(x->sasl,
                              r->nil  ? NULL
                              : bytes ? bytes
                                      : "",
                              r->data.count, ret, error);
    x->ours_done = ok && ret->complete;
    return ok;
}

static bool send_start(struct exchange *x, const char *mechanism, const struct sasl_answer *a,
                       struct sasl_reply *ret, GError **error)
{
    struct sasl_start s = {(char *)mechanism, !a->data, wire_chars(a->data, a->len)};
    bool ok = x->ask(x->opaque, PROC_SASL_START, sasl_start_xdr, &s, sasl_reply_xdr, ret,
                     sizeof(*ret), error);
    g_free(s.data.items);
    return ok;
}

static bool send_step(struct exchange *x, const struct sasl_answer *a, struct sasl_reply *ret,
                      GError **error)
{
    struct sasl_step s = {!a->data, wire_chars(a->data, a->len)};
    bool ok = x->ask(x->opaque, PROC_SASL_STEP, sasl_step_xdr, &s, sasl_reply_xdr, ret,
                     sizeof(*ret), error);
    g_free(s.data.items);
    return ok;
}

static bool talk(struct exchange *x, const char *mechanisms, GError **error)
{
    const char *mechanism = NULL;
    struct sasl_answer a = {0};
    if (!sasl_layer_start_client(x->sasl, mechanisms, &mechanism, &a, error))
        return false;
    x->ours_done = a.complete;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct sasl_reply r = {0};
        bool ok = round ? send_step(x, &a, &r, error) : send_start(x, mechanism, &a, &r, error);
        ok = ok && take_answer(x, &r, &a, error);
        xdr_free(sasl_reply_xdr, &r);
        if (!ok || (x->ours_done && x->theirs_done))
            return ok;
    }
    return ruche_error(error, MANAGER_ERR_AUTH, "SASL: no end after %u rounds", ROUNDS);
}

bool peer_sasl(struct peer_link *l, const char *uri, peer_ask_fn *ask, void *opaque, GError **error)
{
    struct exchange x = {.ask = ask, .opaque = opaque};
    struct credentials c = {0};
    struct r_text offered = {0};
    const char *name = NULL;
    bool protects = false,
         ok = find(l, uri, &c, error) &&
              ask(opaque, PROC_SASL_INIT, NULL, NULL, r_text_xdr, &offered, sizeof(offered), error);
    if (ok)
        x.sasl = sasl_layer_new_client(g_socket_get_fd(l->socket), l->checked_tls ? TLS_BITS : 0,
                                       l->local, l->host, c.name, c.password, error);
    ok = x.sasl && talk(&x, offered.text ? offered.text : "", error) &&
         sasl_layer_result(x.sasl, &name, &protects, error);
    if (ok && protects)
        l->sasl = g_steal_pointer(&x.sasl);
    sasl_layer_free(x.sasl);
    xdr_free(r_text_xdr, &offered);
    credentials_done(&c);
    return ok;
}
