/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Authentication on the wire, for both ends.
 *
 * Spec      libvirt's remote protocol at 9.0.0, procedures 66 to 70.
 */
#pragma once

#include "libvirt/types.h"

enum { AUTH_NONE = 0, AUTH_SASL = 1, AUTH_POLKIT = 2 };

/* `nil`: there is no data, which is another thing than empty data. */
struct sasl_start {
    char *mechanism;
    int32_t nil;
    struct xdr_array data; /* of words, each a byte */
};
struct sasl_step {
    int32_t nil;
    struct xdr_array data; /* of words, each a byte */
};
struct sasl_reply {
    int32_t complete, nil;
    struct xdr_array data; /* of words, each a byte */
};
extern const struct xdr_row sasl_start_xdr[], sasl_step_xdr[], sasl_reply_xdr[];
