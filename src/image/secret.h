/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Secrets by name: the passwords that images and servers ask for, as `-object secret`, `--object
 * secret` and object-add give them.
 *
 * Spec      QEMU's `secret` object: data or file; format raw or base64; keyid and iv for
 *           AES-256-CBC.
 * Owner     One registry for the process. Bytes handed out are the caller's, and wiped by
 *           secret_free().
 * Thread    Any.
 * Errors    Sentences that name the secret, never its contents.
 */
#pragma once

#include "base/error.h"
#include "base/util.h"

#include <json-glib/json-glib.h>

#define SECRET_BYTES_MAX (1 * MIB)

/* `options`: {"data" or "file", "format": "raw"|"base64", "keyid", "iv"}; "id", "qom-type" and
 * "loaded" are passed over, anything else is refused. Only read. */
bool secret_add(const char *id, JsonObject *options, GError **error);
bool secret_remove(const char *id, GError **error);
bool secret_exists(const char *id);

/* A copy, with a zero byte behind it that is not counted. */
bool secret_get(const char *id, uint8_t **ret, size_t *ret_len, GError **error);
/* The same as text: refused unless it is UTF-8 without zero bytes. NULL with *error. */
char *secret_get_text(const char *id, GError **error);
/* Wipes and frees; NULL is fine. */
void secret_free(void *bytes, size_t len);
