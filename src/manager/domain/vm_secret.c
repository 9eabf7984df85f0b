/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Secrets of a machine's disks, as `secret` objects of its process. See vm_args.h.
 *
 * Where     A machine that starts reads them from descriptors in memory that it gets with its
 *           files: its command line and the line of its log have only their numbers. What is added
 *           to a running one goes over the monitor's socket, which only its user can open.
 * Memory    Words of argv are wiped when they are freed; what stays in pages of the sealed files
 *           goes with them.
 */
#include "manager/domain/vm_args.h"

#include "base/memfile.h"
#include "manager/domain/vm_spawn.h"
#include "manager/error.h"
#include "manager/uuid.h"

#include <string.h>

static bool add_by_file(struct vm_args *a, GString *s, GBytes *value, GError **error)
{
    size_t len;
    const void *data = g_bytes_get_data(value, &len);
    int fd = memfile_sealed("secret", data, len);
    if (fd < 0) {
        g_string_free(s, TRUE);
        return ruche_error_errno(error, -fd, "memory for a secret");
    }
    opt_addf(s, "file", "/proc/self/fd/%u", args_pass(a, fd));
    args_take(a, "-object", s);
    return true;
}

static void add_by_word(struct vm_args *a, GString *s, GBytes *value)
{
    size_t len;
    const uint8_t *data = g_bytes_get_data(value, &len);
    char *text = g_base64_encode(data, len);
    opt_add(s, "format", "base64");
    opt_add(s, "data", text);
    explicit_bzero(text, strlen(text));
    g_free(text);
    args_take(a, "-object", s);
}

/* To be read: whose value a person has to put into which file. */
static char *add_to_read(struct vm_args *a, const char *name, const struct xml_node *secret)
{
    const char *uuid = xml_get(secret, "@uuid");
    GString *s = opt_new("secret");
    opt_add(s, "id", name);
    opt_addf(s, "file", "secret-%s", uuid ? uuid : xml_get_or(secret, "@usage", ""));
    args_take(a, "-object", s);
    return g_strdup(name);
}

char *args_secret(struct vm_args *a, const struct xml_node *disk, const char *name,
                  const struct xml_node *secret, enum secret_usage usage, GError **error)
{
    if (a->by_path && secret)
        return add_to_read(a, name, secret);
    g_autofree char *id = g_strdup(name);
    g_autoptr(GBytes) value = secret ? a->ops->secret(a->opaque, secret, usage, error) : NULL;
    if (!value) {
        if (!secret)
            ruche_error(error, RUCHE_ERR_XML, "no <secret> is given");
        g_prefix_error(error, "disk '%s': ", xml_get_or(disk, "target@dev", ""));
        return NULL;
    }
    GString *s = opt_new("secret");
    opt_add(s, "id", id);
    if (a->live)
        add_by_word(a, s, value);
    else if (!add_by_file(a, s, value, error))
        return NULL;
    return g_steal_pointer(&id);
}

/* The secret that the configuration names, as a <secret> would. */
static char *tls_password(struct vm_args *a, const struct xml_node *disk, const char *id,
                          GError **error)
{
    uint8_t uuid[16];
    auto_xml *secret = xml_new("secret");
    xml_set(secret, uuid_parse(a->tls_secret, uuid) ? "@uuid" : "@usage", a->tls_secret);
    g_autofree char *name = g_strconcat(id, "-key", NULL);
    return args_secret(a, disk, name, secret, SECRET_TLS, error);
}

char *args_tls(struct vm_args *a, const struct xml_node *disk, const char *node, GError **error)
{
    g_autofree char *id = g_strconcat(node, "-tls", NULL),
                    *password = a->tls_secret ? tls_password(a, disk, id, error) : NULL;
    if (a->tls_secret && !password)
        return NULL;
    GString *s = opt_new("tls-creds-x509");
    opt_add(s, "id", id);
    opt_add(s, "passwordid", password);
    opt_add(s, "dir", a->tls_dir ? a->tls_dir : VM_TLS_DIR);
    opt_add(s, "endpoint", "client");
    opt_add(s, "verify-peer", "on");
    args_take(a, "-object", s);
    return g_steal_pointer(&id);
}

/* ---- what is said when a key does not fit ---- */

static bool is_about_keys(const char *text)
{
    static const char *const words[] = {"password", "passphrase", "keyslot", "key slot",
                                        "unlock",   "uthenticat", "CHAP"};
    for (size_t i = 0; i < G_N_ELEMENTS(words); i++)
        if (strstr(text, words[i]))
            return true;
    return false;
}

static void name_secret(GString *s, const struct xml_node *disk, const struct xml_node *element)
{
    const struct xml_node *secret = element ? xml_find(element, "secret") : NULL;
    const char *uuid = secret ? xml_get(secret, "@uuid") : NULL,
               *usage = secret ? xml_get(secret, "@usage") : NULL;
    if (uuid || usage)
        g_string_append_printf(s, "%sdisk '%s' uses secret '%s'", s->len ? ", " : "; ",
                               xml_get_or(disk, "target@dev", ""), uuid ? uuid : usage);
}

void vm_explain_secrets(const struct xml_node *domain, GError **error)
{
    static const char *const places[] = {"encryption", "source/encryption", "auth", "source/auth"};
    if (!error || !*error || !is_about_keys((*error)->message))
        return;
    g_autoptr(GString) s = g_string_new(NULL);
    for (const struct xml_node *d = xml_find(domain, "devices/disk"); d; d = xml_next(d))
        for (size_t i = 0; i < G_N_ELEMENTS(places); i++)
            name_secret(s, d, xml_find(d, places[i]));
    if (!s->len)
        return;
    GError *old = *error;
    *error = g_error_new(old->domain, old->code, "%s%s", old->message, s->str);
    g_error_free(old);
}
