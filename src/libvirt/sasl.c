/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libsasl2, both sides. */
#include "libvirt/sasl.h"

#include "libvirt/library_sasl.h"
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
    /* a client's */
    bool client;
    char *name;            /* owned */
    sasl_secret_t *secret; /* owned: the password */
    sasl_callback_t asks[4];
};

/* Peers are asked on workers. */
static bool library_init(bool client, GError **error)
{
    static GMutex lock;
    static bool ready[2];
    g_autoptr(GMutexLocker) locked __attribute__((unused)) = g_mutex_locker_new(&lock);
    if (!library_sasl(error))
        return false;
    int r = ready[client] ? SASL_OK
            : client      ? sasl.client_init(NULL)
                          : sasl.server_init(NULL, "libvirt");
    if (r != SASL_OK)
        return ruche_error(error, MANAGER_ERR_AUTH, "SASL cannot be used: %s",
                           sasl.errstring(r, NULL, NULL));
    ready[client] = true;
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

/* What the client's side of the library asks for. */
static int tell_name(void *opaque, int id, const char **ret, unsigned *ret_len)
{
    const struct sasl_layer *s = opaque;
    *ret = s->name;
    if (ret_len)
        *ret_len = (unsigned)strlen(s->name);
    return SASL_OK;
}

static int tell_password(sasl_conn_t *conn, void *opaque, int id, sasl_secret_t **ret)
{
    *ret = ((struct sasl_layer *)opaque)->secret;
    return SASL_OK;
}

static void set_asks(struct sasl_layer *s, const char *name, const char *password)
{
    size_t len = strlen(password);
    s->client = true;
    s->name = g_strdup(name);
    s->secret = g_malloc0(sizeof(*s->secret) + len + 1);
    s->secret->len = len;
    memcpy(s->secret->data, password, len);
    s->asks[0] = (sasl_callback_t){SASL_CB_AUTHNAME, (int (*)(void))(void *)tell_name, s};
    s->asks[1] = (sasl_callback_t){SASL_CB_USER, (int (*)(void))(void *)tell_name, s};
    s->asks[2] = (sasl_callback_t){SASL_CB_PASS, (int (*)(void))(void *)tell_password, s};
    s->asks[3] = (sasl_callback_t){SASL_CB_LIST_END, NULL, NULL};
}

static struct sasl_layer *layer_new(int fd, unsigned key_bits, bool local, struct sasl_layer *s,
                                    const char *host, GError **error)
{
    char here[NI_MAXHOST], there[NI_MAXHOST];
    name_end(fd, get_local, here, sizeof(here));
    name_end(fd, get_remote, there, sizeof(there));
    const char *ends[] = {*here ? here : NULL, *there ? there : NULL};
    int r = s->client ? sasl.client_new("libvirt", host, ends[0], ends[1], s->asks,
                                        SASL_SUCCESS_DATA, &s->conn)
                      : sasl.server_new("libvirt", NULL, NULL, ends[0], ends[1], NULL,
                                        SASL_SUCCESS_DATA, &s->conn);
    if (r == SASL_OK)
        r = set_security(s, key_bits, local);
    if (r == SASL_OK)
        return s;
    ruche_error(error, MANAGER_ERR_AUTH, "SASL cannot be used: %s", sasl.errstring(r, NULL, NULL));
    sasl_layer_free(s);
    return NULL;
}

struct sasl_layer *sasl_layer_new(int fd, unsigned key_bits, bool local, GError **error)
{
    return library_init(false, error)
               ? layer_new(fd, key_bits, local, g_new0(struct sasl_layer, 1), NULL, error)
               : NULL;
}

struct sasl_layer *sasl_layer_new_client(int fd, unsigned key_bits, bool local, const char *host,
                                         const char *name, const char *password, GError **error)
{
    if (!library_init(true, error))
        return NULL;
    struct sasl_layer *s = g_new0(struct sasl_layer, 1);
    set_asks(s, name, password);
    return layer_new(fd, key_bits, local, s, host, error);
}

void sasl_layer_free(struct sasl_layer *s)
{
    if (s && s->conn)
        sasl.dispose(&s->conn);
    if (s && s->secret)
        explicit_bzero(s->secret->data, s->secret->len);
    if (s) {
        g_free(s->secret);
        g_free(s->name);
    }
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

bool sasl_layer_start_client(struct sasl_layer *s, const char *mechanisms,
                             const char **ret_mechanism, struct sasl_answer *ret, GError **error)
{
    const char *out = NULL;
    unsigned out_len = 0;
    int r = sasl.client_start(s->conn, mechanisms, NULL, &out, &out_len, ret_mechanism);
    if (r == SASL_NOMECH)
        return ruche_error(error, MANAGER_ERR_AUTH,
                           "SASL: none of its mechanisms (%s) can be used here with a name and a "
                           "password",
                           mechanisms);
    return answer(s, r, out, out_len, ret, error);
}

bool sasl_layer_step(struct sasl_layer *s, const void *data, unsigned len, struct sasl_answer *ret,
                     GError **error)
{
    if (!s->started)
        return ruche_error(error, MANAGER_ERR_AUTH, "SASL: a step before the start");
    const char *out = NULL;
    unsigned out_len = 0;
    int r = s->client ? sasl.client_step(s->conn, data, len, NULL, &out, &out_len)
                      : sasl.server_step(s->conn, data, len, &out, &out_len);
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
