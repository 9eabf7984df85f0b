/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libsasl2, server's side. */
#include "libvirt/sasl.h"

#include "libvirt/library.h"
#include "manager/error.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum { MIN_BITS = 56, MAX_BITS = 100000, MAX_PACKET = 65536 };

struct sasl_layer {
    sasl_conn_t *conn;
    bool started;
    unsigned need_bits;  /* of the layer itself */
    unsigned max_encode; /* plain bytes at a time */
    const char *decoded; /* not yet handed out */
    unsigned decoded_len;
};

static bool library_init(GError **error)
{
    static bool ready;
    if (!library_sasl(error))
        return false;
    int r = ready ? SASL_OK : sasl.server_init(NULL, "libvirt");
    if (r != SASL_OK)
        return ruche_error(error, MANAGER_ERR_AUTH, "SASL cannot be used: %s",
                           sasl.errstring(r, NULL, NULL));
    ready = true;
    return true;
}

/* "192.0.2.1;16509" as the library wants it; "" where there are no addresses. */
static void name_end(int fd, int (*get)(int, struct sockaddr *, socklen_t *), char *ret,
                     size_t room)
{
    struct sockaddr_storage a;
    socklen_t len = sizeof(a);
    char host[INET6_ADDRSTRLEN + 16], port[8];
    *ret = 0;
    if (get(fd, (struct sockaddr *)&a, &len) < 0 || a.ss_family == AF_UNIX)
        return;
    if (!getnameinfo((struct sockaddr *)&a, len, host, sizeof(host), port, sizeof(port),
                     NI_NUMERICHOST | NI_NUMERICSERV))
        snprintf(ret, room, "%s;%s", host, port);
}

static int get_local(int fd, struct sockaddr *a, socklen_t *len)
{
    return getsockname(fd, a, len);
}

static int get_remote(int fd, struct sockaddr *a, socklen_t *len)
{
    return getpeername(fd, a, len);
}

static int set_security(struct sasl_layer *s, unsigned key_bits, bool local)
{
    sasl_ssf_t outside = key_bits;
    if (key_bits) {
        int r = sasl.setprop(s->conn, SASL_SSF_EXTERNAL, &outside);
        if (r != SASL_OK)
            return r;
    }
    bool covered = key_bits || local;
    s->need_bits = covered ? 0 : MIN_BITS;
    sasl_security_properties_t p = {.min_ssf = s->need_bits,
                                    .max_ssf = covered ? 0 : MAX_BITS,
                                    .maxbufsize = MAX_PACKET,
                                    .security_flags = SASL_SEC_NOANONYMOUS |
                                                      (covered ? 0 : SASL_SEC_NOPLAINTEXT)};
    return sasl.setprop(s->conn, SASL_SEC_PROPS, &p);
}

struct sasl_layer *sasl_layer_new(int fd, unsigned key_bits, bool local, GError **error)
{
    if (!library_init(error))
        return NULL;
    char here[NI_MAXHOST], there[NI_MAXHOST];
    name_end(fd, get_local, here, sizeof(here));
    name_end(fd, get_remote, there, sizeof(there));
    struct sasl_layer *s = g_new0(struct sasl_layer, 1);
    int r = sasl.server_new("libvirt", NULL, NULL, *here ? here : NULL, *there ? there : NULL, NULL,
                            SASL_SUCCESS_DATA, &s->conn);
    if (r == SASL_OK)
        r = set_security(s, key_bits, local);
    if (r == SASL_OK)
        return s;
    ruche_error(error, MANAGER_ERR_AUTH, "SASL cannot be used: %s", sasl.errstring(r, NULL, NULL));
    sasl_layer_free(s);
    return NULL;
}

void sasl_layer_free(struct sasl_layer *s)
{
    if (s && s->conn)
        sasl.dispose(&s->conn);
    g_free(s);
}

const char *sasl_layer_mechanisms(struct sasl_layer *s, GError **error)
{
    const char *list = NULL;
    int r = sasl.listmech(s->conn, NULL, "", ",", "", &list, NULL, NULL);
    if (r == SASL_OK && list && *list)
        return list;
    ruche_error(error, MANAGER_ERR_AUTH, "SASL has no mechanism that can be used here");
    return NULL;
}

static bool answer(struct sasl_layer *s, int r, const char *data, unsigned len,
                   struct sasl_answer *ret, GError **error)
{
    if (r != SASL_OK && r != SASL_CONTINUE) {
        s->started = false;
        return ruche_error(error, MANAGER_ERR_AUTH, "SASL refuses: %s",
                           sasl.errstring(r, NULL, NULL));
    }
    if (len > MAX_PACKET)
        return ruche_error(error, MANAGER_ERR_AUTH,
                           "SASL's answer of %u bytes is over the limit of %d", len, MAX_PACKET);
    s->started = r == SASL_CONTINUE;
    *ret = (struct sasl_answer){.complete = r == SASL_OK, .data = data, .len = len};
    return true;
}

bool sasl_layer_start(struct sasl_layer *s, const char *mechanism, const void *data, unsigned len,
                      struct sasl_answer *ret, GError **error)
{
    const char *out = NULL;
    unsigned out_len = 0;
    int r = sasl.server_start(s->conn, mechanism, data, len, &out, &out_len);
    return answer(s, r, out, out_len, ret, error);
}

bool sasl_layer_step(struct sasl_layer *s, const void *data, unsigned len, struct sasl_answer *ret,
                     GError **error)
{
    if (!s->started)
        return ruche_error(error, MANAGER_ERR_AUTH, "SASL: a step before the start");
    const char *out = NULL;
    unsigned out_len = 0;
    int r = sasl.server_step(s->conn, data, len, &out, &out_len);
    return answer(s, r, out, out_len, ret, error);
}

bool sasl_layer_result(struct sasl_layer *s, const char **ret_name, bool *ret_protects,
                       GError **error)
{
    const void *name = NULL, *bits = NULL, *max = NULL;
    if (sasl.getprop(s->conn, SASL_USERNAME, &name) != SASL_OK || !name)
        return ruche_error(error, MANAGER_ERR_AUTH, "SASL gives no user name");
    unsigned strength =
        sasl.getprop(s->conn, SASL_SSF, &bits) == SASL_OK && bits ? *(const sasl_ssf_t *)bits : 0;
    if (strength < s->need_bits)
        return ruche_error(
            error, MANAGER_ERR_AUTH,
            "SASL's security layer of %u bits is under the %u bits that are asked for", strength,
            s->need_bits);
    if (sasl.getprop(s->conn, SASL_MAXOUTBUF, &max) == SASL_OK && max)
        s->max_encode = *(const unsigned *)max;
    s->max_encode = CLAMP(s->max_encode, 1, MAX_PACKET);
    *ret_name = name;
    *ret_protects = strength > 0;
    return true;
}

int sasl_layer_decode(struct sasl_layer *s, const void *data, size_t len)
{
    return sasl.decode(s->conn, data, (unsigned)len, &s->decoded, &s->decoded_len) == SASL_OK
               ? 0
               : -EPROTO;
}

ssize_t sasl_layer_pending(struct sasl_layer *s, void *buf, size_t len)
{
    size_t n = MIN(len, s->decoded_len);
    if (n)
        memcpy(buf, s->decoded, n);
    s->decoded += n;
    s->decoded_len -= (unsigned)n;
    return (ssize_t)n;
}

int sasl_layer_encode(struct sasl_layer *s, const void *data, size_t *len, const char **ret,
                      unsigned *ret_len)
{
    *len = MIN(*len, s->max_encode);
    return sasl.encode(s->conn, data, (unsigned)*len, ret, ret_len) == SASL_OK ? 0 : -EPROTO;
}
