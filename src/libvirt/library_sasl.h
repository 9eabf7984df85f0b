/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SASL's library, loaded by the first connection that asks for it; as base/library_gnutls.h. */
#pragma once

#include "base/plugin.h"

#include <sasl/sasl.h>

#define LIBRARY_SASL(F)                                                                                                \
    F(sasl, client_init)                                                                                               \
    F(sasl, client_new)                                                                                                \
    F(sasl, client_start)                                                                                              \
    F(sasl, client_step)                                                                                               \
    F(sasl, decode)                                                                                                    \
    F(sasl, dispose)                                                                                                   \
    F(sasl, encode)                                                                                                    \
    F(sasl, errstring)                                                                                                 \
    F(sasl, getprop)                                                                                                   \
    F(sasl, listmech)                                                                                                  \
    F(sasl, server_init)                                                                                               \
    F(sasl, server_new)                                                                                                \
    F(sasl, server_start)                                                                                              \
    F(sasl, server_step)                                                                                               \
    F(sasl, setprop)

extern struct library_sasl {
    LIBRARY_SASL(PLUGIN_MEMBER)
} sasl;

bool library_sasl(GError **error);
