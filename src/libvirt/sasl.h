/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SASL by libsasl2: the exchange that shows who a client is, and the security layer that may
 * follow.
 *
 * Spec      RFC 4422; service "libvirt", as clients ask for.
 * Thread    sasl_layer_start() and sasl_layer_step() block (password databases): on a worker, one
 *           at a time for each object. The rest on the loop thread.
 * Trust     What the client sends goes into the library, capped by the protocol; what comes out is
 *           checked.
 */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct sasl_layer;

struct sasl_answer {
    bool complete;
    const char *data; /* the library's until the next step; NULL: nothing */
    unsigned len;
};

/* `fd` names the two ends. key_bits: strength of TLS around it, 0: none. `local`: nobody can
 * listen. Without either, a mechanism must bring a security layer. */
struct sasl_layer *sasl_layer_new(int fd, unsigned key_bits, bool local, GError **error);
void sasl_layer_free(struct sasl_layer *s); /* NULL is fine */
const char *sasl_layer_mechanisms(struct sasl_layer *s, GError **error);
/* data NULL: none was sent. A step without a start is an error. */
bool sasl_layer_start(struct sasl_layer *s, const char *mechanism, const void *data, unsigned len,
                      struct sasl_answer *ret, GError **error);
bool sasl_layer_step(struct sasl_layer *s, const void *data, unsigned len, struct sasl_answer *ret,
                     GError **error);
/* The other end: we show who we are to `host`, by what can be done with a name and a password (copied). `mechanisms` are
 * those that are offered; *ret_mechanism is the library's. sasl_layer_step() goes on. */
struct sasl_layer *sasl_layer_new_client(int fd, unsigned key_bits, bool local, const char *host,
                                         const char *name, const char *password, GError **error);
bool sasl_layer_start_client(struct sasl_layer *s, const char *mechanisms,
                             const char **ret_mechanism, struct sasl_answer *ret, GError **error);
/* After completion: who it is (borrowed), and whether bytes are to be protected from now on. False:
 * the layer is too weak for the connection. */
bool sasl_layer_result(struct sasl_layer *s, const char **ret_name, bool *ret_protects,
                       GError **error);

/* Bytes from the wire; 0 or -EPROTO. sasl_layer_pending() hands out what came of it. */
int sasl_layer_decode(struct sasl_layer *s, const void *data, size_t len);
ssize_t sasl_layer_pending(struct sasl_layer *s, void *buf, size_t len);
/* Encodes at most *len bytes (set to how many); the result is the library's until the next call. */
int sasl_layer_encode(struct sasl_layer *s, const void *data, size_t *len, const char **ret,
                      unsigned *ret_len);
