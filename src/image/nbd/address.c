/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names and addresses of NBD servers, as people and QEMU write them; see client.h. */
#include "image/nbd/client.h"

#include <string.h>

const char *const nbd_server_type_words[] = { "", "inet", "unix", NULL };

static bool bad_name(const char *filename, const char *why, GError **error)
{
    return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is not the name of an NBD export: %s",
                       filename, why);
}

static void set_server(JsonObject *options, const char *host, const char *port, const char *path)
{
    JsonObject *server = json_object_new();
    json_object_set_string_member(server, "type", path ? "unix" : "inet");
    if (path) {
        json_object_set_string_member(server, "path", path);
    } else {
        json_object_set_string_member(server, "host", host);
        json_object_set_string_member(server, "port", port && *port ? port : NBD_DEFAULT_PORT);
    }
    json_object_set_object_member(options, "server", server);
}

/* scheme://[host][:port]/export, or scheme+unix:///export?socket=path. */
static bool parse_uri(const char *filename, JsonObject *options, GError **error)
{
    g_autoptr(GError) why = NULL;
    g_autoptr(GUri) u = g_uri_parse(filename, G_URI_FLAGS_NONE, &why);
    if (!u)
        return bad_name(filename, why->message, error);
    const char *scheme = g_uri_get_scheme(u), *host = g_uri_get_host(u), *path = g_uri_get_path(u);
    const char *query = g_uri_get_query(u);
    g_autoptr(GHashTable) args =
        g_uri_parse_params(query ? query : "", -1, "&", G_URI_PARAMS_NONE, &why);
    if (!args)
        return bad_name(filename, why->message, error);
    const char *socket = g_hash_table_lookup(args, "socket");
    bool is_unix = g_str_has_suffix(scheme, "+unix");
    if (is_unix && !socket)
        return bad_name(filename, "the socket is missing: nbd+unix:///EXPORT?socket=PATH", error);
    if (is_unix && ((host && *host) || g_uri_get_port(u) > 0))
        return bad_name(filename,
                        "with a socket's path there is no host: nbd+unix:///EXPORT?socket=PATH",
                        error);
    if (!is_unix && socket)
        return bad_name(filename, "?socket= is for nbd+unix://", error);
    if (g_hash_table_size(args) > (socket != NULL))
        return bad_name(filename, "the only argument is socket=", error);
    if (g_uri_get_userinfo(u) || g_uri_get_fragment(u))
        return bad_name(filename, "it takes no user and no '#'", error);
    g_autofree char *port = g_uri_get_port(u) > 0 ? g_strdup_printf("%d", g_uri_get_port(u)) : NULL;
    set_server(options, host && *host ? host : "localhost", port, socket);
    if (*path == '/')
        path++;
    if (*path)
        json_object_set_string_member(options, "export", path);
    return true;
}

/* nbd:HOST:PORT[:exportname=NAME] or nbd:unix:PATH[:exportname=NAME] */
static bool parse_old(const char *filename, JsonObject *options, GError **error)
{
    static const char mark[] = ":exportname=";
    const char *rest = filename + strlen("nbd:"), *export = strstr(rest, mark);
    g_autofree char *server = export ? g_strndup(rest, (size_t)(export - rest)) : g_strdup(rest);
    if (g_str_has_prefix(server, "unix:")) {
        if (!server[strlen("unix:")])
            return bad_name(filename, "the socket's path is empty", error);
        set_server(options, NULL, NULL, server + strlen("unix:"));
    } else {
        char *colon = strrchr(server, ':');
        if (!colon || colon == server)
            return bad_name(filename,
                            "it is nbd:HOST:PORT, nbd:unix:PATH or nbd://HOST:PORT/EXPORT", error);
        *colon = '\0';
        size_t len = strlen(server);
        bool bracketed = len > 2 && server[0] == '[' && server[len - 1] == ']';
        g_autofree char *host = bracketed ? g_strndup(server + 1, len - 2) : g_strdup(server);
        set_server(options, host, colon + 1, NULL);
    }
    if (export && export[strlen(mark)])
        json_object_set_string_member(options, "export", export + strlen(mark));
    return true;
}

bool nbd_parse_name(const char *filename, JsonObject *options, GError **error)
{
    /* The scheme of an address by TLS only says that credentials must be named. */
    if (g_str_has_prefix(filename, "nbds") && !json_object_has_member(options, "tls-creds"))
        return bad_name(filename, "TLS needs credentials: add the option tls-creds", error);
    return strstr(filename, "://") ? parse_uri(filename, options, error)
                                   : parse_old(filename, options, error);
}

bool nbd_address_check(struct nbd_node *n, GError **error)
{
    struct nbd_address *a = &n->server, *flat = &n->flat;
    bool has_flat = flat->host || flat->port || flat->path;
    if (has_flat && (a->type || a->host || a->path))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "node '%s': 'server' and 'host', 'port', 'path' exclude one another",
                           node_name(&n->node));
    if (has_flat) {
        struct nbd_address old = *a;
        *a = *flat;
        *flat = old;
    }
    if (!a->type)
        a->type = a->path ? NBD_SERVER_UNIX : a->host ? NBD_SERVER_INET : NBD_SERVER_NONE;
    if (a->type == NBD_SERVER_NONE)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "node '%s': nbd needs a server: server.type, and server.host and "
                           "server.port, or server.path",
                           node_name(&n->node));
    if (a->type == NBD_SERVER_UNIX ? !a->path || a->host || a->port : !a->host || a->path)
        return ruche_error(error, RUCHE_ERR_INVALID, "node '%s': server.type '%s' takes %s",
                           node_name(&n->node), nbd_server_type_words[a->type],
                           a->type == NBD_SERVER_UNIX ? "server.path alone"
                                                      : "server.host and server.port");
    if (a->type == NBD_SERVER_INET && !a->port)
        a->port = g_strdup(NBD_DEFAULT_PORT);
    return true;
}

char *nbd_address_name(const struct nbd_address *a, bool tls)
{
    if (a->type == NBD_SERVER_UNIX)
        return g_strdup_printf("nbd%s+unix://?socket=%s", tls ? "s" : "", a->path);
    bool v6 = strchr(a->host, ':');
    return g_strdup_printf("nbd%s://%s%s%s:%s", tls ? "s" : "", v6 ? "[" : "", a->host,
                           v6 ? "]" : "", a->port);
}

char *nbd_export_name(const struct nbd_node *n)
{
    const struct nbd_address *a = &n->server;
    const char *scheme = n->creds ? "nbds" : "nbd", *export = n->export ? n->export : "";
    if (a->type == NBD_SERVER_UNIX)
        return g_strdup_printf("%s+unix://%s%s?socket=%s", scheme, *export ? "/" : "", export,
                               a->path);
    g_autofree char *base = nbd_address_name(a, n->creds != NULL);
    return g_strdup_printf("%s%s%s", base, *export ? "/" : "", export);
}
