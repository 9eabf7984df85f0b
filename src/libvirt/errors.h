/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Our errors as libvirt's: a code, a domain (who says it), a sentence. Thread: any. */
#pragma once

#include "libvirt/types.h"
#include "manager/error.h"

#define LIBVIRT_ERROR_RPC 39
#define LIBVIRT_FROM_RPC  7

/* Errors of the protocol itself: the code is one of libvirt's, `domain` behind it. */
#define WIRE_ERROR (wire_error_quark())
GQuark wire_error_quark(void);
/* Sets *error to libvirt's own code and domain and returns false. */
bool wire_error(GError **error, int libvirt_code, int libvirt_domain, const char *format, ...)
    G_GNUC_PRINTF(4, 5);
/* Fills in what goes over the wire; strings are borrowed from `e`, but for the message (g_free). */
void wire_error_fill(const GError *e, struct wire_error *ret);
