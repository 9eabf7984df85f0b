/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A secret's description: read, checked, completed, put in order. See secret.h.
 *
 * Thread    Any.
 * Trust     XML is hostile; manager/xml.h and the schema's rows bound it.
 */
#pragma once

#include "manager/secret/secret.h"

struct secret_def {
    uint8_t uuid[16];
    bool has_uuid; /* it was given */
    bool ephemeral, confined;
    enum secret_usage usage;
    char *id, *text;
};
bool secret_def_parse(struct secret_def *d, const char *xml, unsigned flags, GError **error);
void secret_def_done(struct secret_def *d);
#define auto_secret_def __attribute__((cleanup(secret_def_done))) struct secret_def
