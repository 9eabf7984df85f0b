/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of secrets share. Thread, lock and trust: secret.h. */
#pragma once

#include "manager/secret/secret_def.h"

/* ---- secret_table.c ---- */
struct secret *secret_new(const struct secret_def *d);
void secret_insert(struct secret *s);
void secret_remove(struct secret *s);
void secret_table_done(void);
/* virSecretEventLifecycleType; a value that changes is an event of its own. */
enum { SECRET_EVENT_DEFINED, SECRET_EVENT_UNDEFINED };
void secret_emit(const struct secret *s, int event);
void secret_emit_value(const struct secret *s);
/* In an error and in the audit log: "secret '<UUID>'". */
char *secret_name(const struct secret *s);

/* ---- secret_value.c ---- */
/* Bytes that are wiped with their last reference. */
GBytes *secret_bytes(const void *data, size_t len);
void secret_wipe(char *text); /* and frees; NULL is fine */

/* ---- secret_store.c; the first two wait ---- */
bool secret_save(const struct secret *s,
                 GError **error); /* the description, or that there is none */
bool secret_save_value(const struct secret *s, GBytes *value,
                       GError **error); /* NULL: takes it away */
