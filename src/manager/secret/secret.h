/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Secrets: passwords and keys that images, pools and machines need, kept apart from their
 * descriptions.
 *
 * Spec      libvirt's secret API and formatsecret at 9.0.0; flags are its numbers. docs/storage.md.
 * Thread    The loop thread; what writes files waits.
 * Lock      A secret's own, for its changes.
 * Stored    config_dir/secrets/UUID.xml, and UUID.base64 (mode 0600), which never goes through the
 * log of changes, so that no copy of it stays there. Of an ephemeral secret nothing is stored.
 * Values    Bytes that are wiped when their last user lets go of them. No text of ours has them in
 * it: no log, no error, no audit line, no answer of REST, no command line.
 * Trust     XML is hostile. Files are the
 * host's, but are checked: what is broken is named and left out.
 */
#pragma once

#include "manager/manager.h"
#include "base/xml.h"

#define SECRET_VALUE_MAX (64u << 10) /* REMOTE_SECRET_VALUE_MAX */

/* virSecretUsageType */
enum secret_usage {
    SECRET_NONE,
    SECRET_VOLUME,
    SECRET_CEPH,
    SECRET_ISCSI,
    SECRET_TLS,
    SECRET_VTPM,
    SECRET_USAGES
};

struct secret {
    unsigned refs;
    uint8_t uuid[16];
    enum secret_usage usage;
    char *id;       /* what it is for: a path, a target, a name; "" with SECRET_NONE */
    char *text;     /* canonical XML */
    bool ephemeral; /* memory only */
    bool confined;  /* "private": never given back */
    bool removed;
    GBytes *value; /* NULL: it has none yet */
    struct fiber_mutex lock;
};
struct secret *secret_ref(struct secret *s);
void secret_unref(struct secret *s);

struct secret *secret_find_uuid(const uint8_t *uuid, GError **error);
struct secret *secret_find_usage(int usage, const char *id, GError **error);
GPtrArray *secret_list(const struct caller *who,
                       unsigned list_flags);            /* virConnectListAllSecretsFlags */
const char *secret_usage_word(enum secret_usage usage); /* "none", "volume", ... */
char *secret_description(const struct secret *s);       /* NULL: it says none */

enum { SECRET_DEFINE_VALIDATE = 1 };
struct secret *secret_define(const struct caller *who, const char *xml, unsigned flags,
                             GError **error);                                     /* (waits) */
bool secret_undefine(const struct caller *who, struct secret *s, GError **error); /* (waits) */
char *secret_xml(const struct caller *who, struct secret *s, unsigned flags, GError **error);
/* At most SECRET_VALUE_MAX bytes, copied. (waits) */
bool secret_set_value(const struct caller *who, struct secret *s, const void *data, size_t len,
                      GError **error);
/* For somebody outside: needs the right, and that the secret is not private. A reference. */
GBytes *secret_get_value(const struct caller *who, struct secret *s, GError **error);
/* For machines and pools: the value of what <secret uuid=''> or <secret usage=''> means, private or
 * not. A reference. */
GBytes *secret_value_of(const struct xml_node *element, enum secret_usage usage, GError **error);

/* As Ceph's programs take a key: base64, as clients gave it to virsh. A reference. */
GBytes *secret_base64(GBytes *value);
/* A value for a program that reads it from a path: a file in memory, which programs of our own user reach while it is
 * open. A value with a zero byte or a newline is refused where `text` is asked for. */
struct secret_file {
    int fd; /* -1: none */
    char path[48];
};
#define SECRET_FILE_NONE ((struct secret_file){.fd = -1})
bool secret_file_open(struct secret_file *f, GBytes *value, GError **error);
void secret_file_close(struct secret_file *f); /* again is fine */
#define auto_secret_file __attribute__((cleanup(secret_file_close))) struct secret_file
/* The value as a line of text for a program's standard input, with the newline; secret_text_free(). NULL with *error. */
char *secret_line(GBytes *value, GError **error);
void secret_text_free(char *text);

bool secrets_load(GError **error);
void secrets_stop(void);
