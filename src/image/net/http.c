/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Drivers "http" and "https": images that a web server gives in ranges, read-only.
 *
 * Spec      RFC 9110, sections 13 and 14 (range requests).
 * Fiber     libsoup blocks: each request runs on a thread of the context's pool, so several are
 *           under way at a time.
 * Memory    WINDOW_COUNT windows of `readahead` bytes; larger reads go straight to their place.
 * Trust     The server is hostile: an answer must be the range that was asked for, of a file that
 *           is still as long and has the same ETag as when it was opened; not a byte more is taken.
 * Errors    -EIO, and one sentence in the log for each reason that comes up anew.
 */
#include "base/log.h"
#include "image/driver.h"
#include "image/secret.h"

#include <errno.h>
#include <libsoup/soup.h>
#include <string.h>

#define WINDOW_COUNT  8
#define READAHEAD_MAX (16 * MIB)

struct http_window {
    uint64_t begin, len; /* len 0: nothing in it */
    uint8_t *data;
    uint64_t used; /* clock of last use */
    bool busy;     /* being filled */
    struct fiber_queue waiters;
};

struct http_node {
    struct node node;
    char *url, *cookie, *cookie_secret, *username, *password_secret;
    uint64_t readahead, timeout_sec;
    bool sslverify;

    SoupSession *session;
    char *password, *etag;
    char *last_error; /* said already */
    struct http_window windows[WINDOW_COUNT];
    uint64_t clock;
};

/* One request for a range, on a thread of the pool. */
struct http_fetch {
    struct http_node *n;
    uint64_t off;
    struct vec v;  /* what is wanted */
    bool opening;  /* size and ETag are learnt */
    uint64_t size; /* of the whole file, as the answer says */
    char *etag;
    GError *error;
};

static struct http_node *http_of(struct node *n)
{
    return container_of(n, struct http_node, node);
}

/* --- one request --- */

static gboolean accept_certificate(SoupMessage *m, GTlsCertificate *cert,
                                   GTlsCertificateFlags flags, gpointer opaque)
{
    return TRUE; /* sslverify=off */
}

/* The password goes only to the server that the user named, however often we are redirected. */
static gboolean authenticate(SoupMessage *m, SoupAuth *auth, gboolean retrying, gpointer opaque)
{
    struct http_node *n = opaque;
    g_autoptr(GUri) named = g_uri_parse(n->url, G_URI_FLAGS_NONE, NULL);
    GUri *asked = soup_message_get_uri(m);
    if (retrying || !named || g_strcmp0(g_uri_get_host(named), g_uri_get_host(asked)) != 0 ||
        g_strcmp0(g_uri_get_scheme(named), g_uri_get_scheme(asked)) != 0 ||
        g_uri_get_port(named) != g_uri_get_port(asked))
        return FALSE;
    soup_auth_authenticate(auth, n->username, n->password ? n->password : "");
    return TRUE;
}

static SoupMessage *new_request(struct http_node *n, uint64_t off, uint64_t len)
{
    SoupMessage *m = soup_message_new("GET", n->url);
    if (!m)
        return NULL;
    SoupMessageHeaders *h = soup_message_get_request_headers(m);
    soup_message_headers_set_range(h, (goffset)off, (goffset)(off + len - 1));
    soup_message_headers_replace(h, "Accept-Encoding", "identity");
    if (n->cookie)
        soup_message_headers_replace(h, "Cookie", n->cookie);
    if (!n->sslverify)
        g_signal_connect(m, "accept-certificate", G_CALLBACK(accept_certificate), NULL);
    if (n->username)
        g_signal_connect(m, "authenticate", G_CALLBACK(authenticate), n);
    return m;
}

static int refuse(struct http_fetch *f, const char *why)
{
    ruche_error(&f->error, RUCHE_ERR_UNSUPPORTED, "'%s': %s", f->n->url, why);
    return -EIO;
}

/* The answer is the range that we asked for. An empty file answers 416 with its size. */
static int check_answer(struct http_fetch *f, SoupMessage *m)
{
    SoupMessageHeaders *h = soup_message_get_response_headers(m);
    unsigned status = soup_message_get_status(m);
    const char *range = soup_message_headers_get_one(h, "Content-Range");
    if (f->opening && status == SOUP_STATUS_REQUESTED_RANGE_NOT_SATISFIABLE &&
        g_strcmp0(range, "bytes */0") == 0)
        return 0;
    if (status == SOUP_STATUS_OK)
        return refuse(f, "the server does not give ranges of the file (it answered 200, not 206)");
    if (status != SOUP_STATUS_PARTIAL_CONTENT) {
        g_autofree char *why =
            g_strdup_printf("the server answered %u %s", status, soup_message_get_reason_phrase(m));
        return refuse(f, why);
    }
    goffset begin = -1, end = -1, total = -1;
    if (!soup_message_headers_get_content_range(h, &begin, &end, &total) || total < 0)
        return refuse(f, "the server does not say which range it sends of how long a file");
    if (begin != (goffset)f->off || end != (goffset)(f->off + f->v.len - 1))
        return refuse(f, "the server sends another range than the one asked for");
    f->size = (uint64_t)total;
    const char *etag = soup_message_headers_get_one(h, "ETag");
    if (f->opening) {
        f->etag = g_strdup(etag);
        return 0;
    }
    if (f->size != f->n->node.size_bytes || (f->n->etag && g_strcmp0(etag, f->n->etag) != 0))
        return refuse(f, "the file has changed since it was opened");
    return 0;
}

static int take_body(struct http_fetch *f, GInputStream *in)
{
    for (size_t done = 0; done < f->v.len;) {
        struct iovec iov;
        size_t len;
        vec_to_iov(vec_slice(f->v, done, f->v.len - done), &iov, 1, &len);
        gsize got = 0;
        if (!g_input_stream_read_all(in, iov.iov_base, len, &got, NULL, &f->error))
            return -EIO;
        if (got < len)
            return refuse(f, "the connection ended in the middle of a range");
        done += len;
    }
    return 0;
}

static int fetch(void *opaque)
{
    struct http_fetch *f = opaque;
    g_autoptr(SoupMessage) m = new_request(f->n, f->off, f->v.len);
    if (!m)
        return refuse(f, "this is no URL");
    g_autoptr(GInputStream) in = soup_session_send(f->n->session, m, NULL, &f->error);
    if (!in)
        return -EIO;
    int rc = check_answer(f, m);
    if (rc == 0 && f->size)
        rc = take_body(f, in);
    g_input_stream_close(in, NULL, NULL);
    return rc;
}

/* The same failure is said once. */
static void complain(struct http_node *n, GError *error)
{
    if (error && g_strcmp0(n->last_error, error->message) != 0) {
        log_warn("node '%s': %s", node_name(&n->node), error->message);
        g_free(n->last_error);
        n->last_error = g_strdup(error->message);
    }
}

static int fetch_range(struct http_node *n, uint64_t off, struct vec v)
{
    struct http_fetch f = { .n = n, .off = off, .v = v };
    int rc = context_offload(n->node.ctx, fetch, &f);
    complain(n, f.error);
    g_clear_error(&f.error);
    return rc;
}

/* --- windows --- */

static struct http_window *find_window(struct http_node *n, uint64_t off)
{
    for (unsigned i = 0; i < WINDOW_COUNT; i++) {
        struct http_window *w = &n->windows[i];
        if (w->len && off >= w->begin && off - w->begin < w->len)
            return w;
    }
    return NULL;
}

/* The longest unused one; NULL: all are being filled. */
static struct http_window *oldest_window(struct http_node *n)
{
    struct http_window *best = NULL;
    for (unsigned i = 0; i < WINDOW_COUNT; i++) {
        struct http_window *w = &n->windows[i];
        if (!w->busy && (!best || w->used < best->used))
            best = w;
    }
    return best;
}

static int fill_window(struct http_node *n, struct http_window *w, uint64_t off)
{
    if (!w->data && !(w->data = g_try_malloc(n->readahead)))
        return -ENOMEM;
    w->begin = off;
    w->len = min_u64(n->readahead, n->node.size_bytes - off);
    w->busy = true;
    struct iovec iov;
    int rc = fetch_range(n, off, vec_flat(&iov, w->data, w->len));
    w->busy = false;
    if (rc < 0)
        w->len = 0;
    fiber_queue_wake_all(&w->waiters);
    return rc;
}

/* Bytes given from a window, 0: look again, -errno. */
static int64_t read_window(struct http_node *n, uint64_t off, struct vec v)
{
    struct http_window *w = find_window(n, off);
    if (w && w->busy) {
        fiber_queue_wait(&w->waiters);
        return 0;
    }
    if (!w) {
        w = oldest_window(n);
        if (!w) {
            int rc = fetch_range(n, off, v);
            return rc < 0 ? rc : (int64_t)v.len;
        }
        int rc = fill_window(n, w, off);
        if (rc < 0)
            return rc;
    }
    w->used = ++n->clock;
    uint64_t skip = off - w->begin, len = min_u64(v.len, w->len - skip);
    vec_write(vec_slice(v, 0, len), w->data + skip);
    return (int64_t)len;
}

static int http_read(struct node *node, uint64_t off, struct vec v, unsigned flags)
{
    struct http_node *n = http_of(node);
    if (v.len >= n->readahead)
        return fetch_range(n, off, v);
    for (size_t done = 0; done < v.len;) {
        int64_t got = read_window(n, off + done, vec_slice(v, done, v.len - done));
        if (got < 0)
            return (int)got;
        done += (size_t)got;
    }
    return 0;
}

/* --- opening --- */

static bool take_secrets(struct http_node *n, GError **error)
{
    if (n->password_secret && !(n->password = secret_get_text(n->password_secret, error)))
        return false;
    if (n->cookie && n->cookie_secret)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "node '%s': cookie and cookie-secret exclude one another",
                           node_name(&n->node));
    return !n->cookie_secret || (n->cookie = secret_get_text(n->cookie_secret, error));
}

static bool check_url(struct http_node *n, GError **error)
{
    g_autofree char *scheme = n->url ? g_uri_parse_scheme(n->url) : NULL;
    if (g_strcmp0(scheme, n->node.driver->name) == 0 &&
        g_uri_is_valid(n->url, G_URI_FLAGS_NONE, NULL))
        return true;
    return ruche_error(error, RUCHE_ERR_INVALID, "node '%s': url '%s' is not an %s:// address",
                       node_name(&n->node), n->url ? n->url : "", n->node.driver->name);
}

/* Asks for the first byte: the answer says how long the file is, and that ranges work. */
static bool learn_size(struct http_node *n, GError **error)
{
    uint8_t byte;
    struct iovec iov;
    struct http_fetch f = { .n = n, .v = vec_flat(&iov, &byte, 1), .opening = true };
    int rc = context_offload(n->node.ctx, fetch, &f);
    n->etag = f.etag;
    if (rc == 0 && f.size <= IMAGE_SIZE_MAX) {
        n->node.size_bytes = f.size;
        return true;
    }
    if (f.error && f.error->domain != RUCHE_ERROR)
        ruche_error(error, RUCHE_ERR_IO, "'%s': %s", n->url, f.error->message);
    else if (f.error)
        g_propagate_error(error, g_steal_pointer(&f.error));
    else
        ruche_error(error, RUCHE_ERR_INVALID,
                    "'%s': the server says that it is %" G_GUINT64_FORMAT " bytes long", n->url,
                    f.size);
    g_clear_error(&f.error);
    return false;
}

static bool http_open(struct node *node, GError **error)
{
    struct http_node *n = http_of(node);
    if (!node->read_only)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "node '%s': %s gives images only for reading; use read-only=on",
                           node_name(node), node->driver->name);
    if (!check_url(n, error) || !take_secrets(n, error))
        return false;
    n->session = soup_session_new_with_options(
        "timeout", (guint)n->timeout_sec, "max-conns-per-host", (int)context_threads(node->ctx),
        "user-agent", "ruche/" RUCHE_VERSION, NULL);
    soup_session_remove_feature_by_type(n->session, SOUP_TYPE_CONTENT_DECODER);
    if (!learn_size(n, error))
        return false;
    if (!node->filename || !*node->filename) {
        g_free(node->filename);
        node->filename = g_strdup(n->url);
    }
    return true;
}

static void http_close(struct node *node)
{
    struct http_node *n = http_of(node);
    g_clear_object(&n->session);
    for (unsigned i = 0; i < WINDOW_COUNT; i++)
        g_clear_pointer(&n->windows[i].data, g_free);
    if (n->password)
        secret_free(n->password, strlen(n->password));
    n->password = NULL;
    g_clear_pointer(&n->etag, g_free);
    g_clear_pointer(&n->last_error, g_free);
}

static bool http_set_read_only(struct node *node, bool read_only, GError **error)
{
    return read_only ||
           ruche_error(error, RUCHE_ERR_UNSUPPORTED, "node '%s': %s gives images only for reading",
                       node_name(node), node->driver->name);
}

static bool http_parse_name(const char *filename, JsonObject *options, GError **error)
{
    json_object_set_string_member(options, "url", filename);
    return true;
}

static const struct image_option http_options[] = {
    OPT_STRING("url", struct http_node, url, "Address of the image"),
    OPT_SIZE("readahead", struct http_node, readahead, 256 * KIB, 512, READAHEAD_MAX,
             "Bytes of one request at least"),
    OPT_BOOL("sslverify", struct http_node, sslverify, true, "Check the server's certificate"),
    OPT_STRING("cookie", struct http_node, cookie, "Cookies, as the header says them"),
    OPT_STRING("cookie-secret", struct http_node, cookie_secret,
               "Id of the secret that holds them"),
    OPT_STRING("username", struct http_node, username, "User that the server asks for"),
    OPT_STRING("password-secret", struct http_node, password_secret,
               "Id of the secret that holds the password"),
    OPT_U64("timeout", struct http_node, timeout_sec, 5, 1, 3600,
            "Seconds without an answer that make an error"),
    { 0 },
};

#define HTTP_DRIVER(word)                                                                          \
    {                                                                                              \
        .name = word, .summary = "Image on a web server, read-only", .spec = "RFC 9110",           \
        .kind = DRIVER_PROTOCOL, .size = sizeof(struct http_node),                                 \
        .schemes = (const char *const[]){ word, NULL }, .open_options = http_options,              \
        .parse_name = http_parse_name, .open = http_open, .close = http_close, .read = http_read,  \
        .set_read_only = http_set_read_only,                                                       \
    }
static const struct image_driver http_driver = HTTP_DRIVER("http");
static const struct image_driver https_driver = HTTP_DRIVER("https");

extern const struct image_driver *const ruche_image_drivers[];
__attribute__((visibility("default")))
const struct image_driver *const ruche_image_drivers[] = { &http_driver, &https_driver, NULL };
