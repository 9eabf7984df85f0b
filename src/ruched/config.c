/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Options and keys: a table each. */
#include "ruched/config.h"

#include "manager/manager.h"
#include "manager/uuid.h"

#include <string.h>
#include <unistd.h>

/* ---- the command line ---- */

bool config_options(struct config *c, int argc, char **argv, GError **error)
{
    const GOptionEntry options[] = {
        {"system", 0, 0, G_OPTION_ARG_NONE, &c->system,
         "Look after the host's machines (default for root)", NULL},
        {"session", 0, 0, G_OPTION_ARG_NONE, &c->session,
         "Look after a person's own machines (default for others)", NULL},
        {"config", 'f', 0, G_OPTION_ARG_FILENAME, &c->file,
         "Settings, in place of ruched.conf in the folder of descriptions", "FILE"},
        {"config-dir", 0, 0, G_OPTION_ARG_FILENAME, &c->config_dir, "Descriptions of machines",
         "DIR"},
        {"state-dir", 0, 0, G_OPTION_ARG_FILENAME, &c->state_dir,
         "Images, logs and all that stays (also descriptions, as DIR/config)", "DIR"},
        {"runtime-dir", 0, 0, G_OPTION_ARG_FILENAME, &c->runtime_dir,
         "Sockets and the state of what runs", "DIR"},
        {"daemon", 'd', 0, G_OPTION_ARG_NONE, &c->daemon, "Return to the shell when all is ready",
         NULL},
        {"version", 'V', 0, G_OPTION_ARG_NONE, &c->version, "Print the version", NULL},
        {0},
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);
    g_autofree char *keys = config_help();
    g_option_context_set_summary(context, "Looks after a host's virtual machines: libvirt's "
                                          "protocol, REST, and the command 'ruche'.");
    g_option_context_set_description(context, keys);
    g_option_context_add_main_entries(context, options, NULL);
    if (!g_option_context_parse(context, &argc, &argv, error))
        return false;
    if (argc > 1)
        return ruche_error(error, RUCHE_ERR_UNKNOWN, "'%s': ruched takes options only; see --help",
                           argv[1]);
    if (c->system && c->session)
        return ruche_error(error, RUCHE_ERR_INVALID, "--system and --session exclude each other");
    return true;
}

/* ---- the file ---- */

enum kind { TEXT, LIST, COUNT, YES_NO };

struct key {
    const char *group, *name;
    enum kind kind;
    size_t at; /* of the member in struct config */
    const char *help;
};
#define KEY(group, name, kind, member, help)                                                       \
    {                                                                                              \
        group, name, kind, offsetof(struct config, member), help                                   \
    }

static const struct key keys[] = {
    KEY("machines", "user", TEXT, user,
        "user that machines run as; default: ruche-vmm where it exists, else our own"),
    KEY("machines", "group", TEXT, group, "and their group"),
    KEY("machines", "vmm", TEXT, vmm, "path of ruche-vmm"),
    KEY("machines", "img", TEXT, img, "path of ruche-img"),
    KEY("machines", "tls_dir", TEXT, tls_dir,
        "certificates by which machines reach disks of servers; default: /etc/pki/qemu"),
    KEY("machines", "tls_secret", TEXT, tls_secret,
        "the secret (usage tls, by its name or UUID) that the key beside them is locked by"),
    KEY("machines", "start_parallel", COUNT, start_parallel,
        "how many start with the host at a time"),
    KEY("host", "uuid", TEXT, host_uuid,
        "of this host, as other managers know it; default: the firmware's"),
    KEY("migration", "address", TEXT, migration_address,
        "where machines from other hosts come in; default: every address"),
    KEY("migration", "host", TEXT, migration_host,
        "by what name other hosts reach it; default: the host's name"),
    KEY("network", "ovsdb", TEXT, ovsdb,
        "Open vSwitch's database; default: unix:/run/openvswitch/db.sock; or tcp:IP:PORT"),
    KEY("network", "ovsdb_key", TEXT, ovsdb_key, "our private key for ssl:IP:PORT, a PEM file"),
    KEY("network", "ovsdb_certificate", TEXT, ovsdb_certificate, "its certificate"),
    KEY("network", "ovsdb_ca", TEXT, ovsdb_ca, "certificate of the CA that the server's is of"),
    KEY("access", "group", TEXT, access_group,
        "members may use the Unix sockets; default: ruche where it exists"),
    KEY("rest", "socket", TEXT, rest_socket, "path; default: ruche.sock in the runtime folder"),
    KEY("rest", "listen", TEXT, web.listen, "HOST:PORT for HTTPS"),
    KEY("rest", "cert", TEXT, web.cert, "PEM file"),
    KEY("rest", "key", TEXT, web.key, "PEM file"),
    KEY("rest", "ca", TEXT, web.ca, "PEM file; clients show a certificate that it signed"),
    KEY("rest", "token_file", TEXT, web.token_file, "lines NAME SHA256-of-token"),
    KEY("libvirt", "usual_place", YES_NO, libvirt_place,
        "also listen where libvirtd would; default: where there is none"),
    KEY("libvirt", "auth_unix_rw", TEXT, auth[0], "none, local or sasl"),
    KEY("libvirt", "auth_unix_ro", TEXT, auth[1], "none, local or sasl"),
    KEY("libvirt", "tcp", TEXT, libvirt_tcp, "HOST:PORT; HOST * is every address"),
    KEY("libvirt", "auth_tcp", TEXT, auth[2], "none or sasl"),
    KEY("libvirt", "tls", TEXT, libvirt_tls, "HOST:PORT"),
    KEY("libvirt", "auth_tls", TEXT, auth[3], "none or sasl"),
    KEY("libvirt", "tls_ca", TEXT, libvirt.tls_ca, "PEM file"),
    KEY("libvirt", "tls_cert", TEXT, libvirt.tls_cert, "PEM file"),
    KEY("libvirt", "tls_key", TEXT, libvirt.tls_key, "PEM file"),
    KEY("libvirt", "tls_crl", TEXT, libvirt.tls_crl, "PEM file"),
    KEY("libvirt", "tls_any_client", YES_NO, libvirt.tls_any_client, "clients need no certificate"),
    KEY("libvirt", "tls_names", LIST, libvirt.tls_names,
        "patterns of certificates' names that are let in"),
    KEY("libvirt", "sasl_names", LIST, libvirt.sasl_names, "patterns of users that are let in"),
    KEY("libvirt", "max_clients", COUNT, libvirt.max_clients, "connections"),
    KEY("libvirt", "max_half_open", COUNT, libvirt.max_half_open,
        "of them, before they have said who they are"),
    KEY("libvirt", "max_calls", COUNT, libvirt.max_calls, "of one client, under way"),
    KEY("libvirt", "keepalive_s", COUNT, libvirt.keepalive_s,
        "ask a silent client after so long; 0: never"),
    KEY("libvirt", "keepalive_count", COUNT, libvirt.keepalive_count,
        "unanswered questions that end a connection"),
    KEY("libvirt", "stay_awake", YES_NO, libvirt.stay_awake,
        "processors do, while a local client calls in quick succession"),
};

char *config_help(void)
{
    GString *s = g_string_new("Keys of the settings file:\n");
    const char *group = "";
    for (unsigned i = 0; i < G_N_ELEMENTS(keys); i++) {
        if (strcmp(keys[i].group, group) != 0)
            g_string_append_printf(s, "  [%s]\n", keys[i].group);
        group = keys[i].group;
        g_string_append_printf(s, "  %-16s %s\n", keys[i].name, keys[i].help);
    }
    return g_string_free(s, false);
}

static const struct key *find_key(const char *group, const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(keys); i++)
        if (strcmp(keys[i].group, group) == 0 && strcmp(keys[i].name, name) == 0)
            return &keys[i];
    return NULL;
}

/* Keeps a string that structs of front doors borrow. */
static char *own(struct config *c, char *text)
{
    c->owned[c->owned_count++] = text;
    return text;
}

static bool read_key(struct config *c, GKeyFile *f, const struct key *k, GError **error)
{
    char *at = (char *)c + k->at;
    g_autoptr(GError) why = NULL;
    int number;
    switch (k->kind) {
    case TEXT:
        *(char **)at = own(c, g_key_file_get_string(f, k->group, k->name, &why));
        break;
    case LIST:
        *(char ***)at = c->lists[c->list_count++] =
            g_key_file_get_string_list(f, k->group, k->name, NULL, &why);
        break;
    case YES_NO:
        *(bool *)at = g_key_file_get_boolean(f, k->group, k->name, &why);
        break;
    case COUNT:
        number = g_key_file_get_integer(f, k->group, k->name, &why);
        if (!why && (number < 0 || number > 1000000))
            return ruche_error(error, RUCHE_ERR_INVALID, "[%s] %s: %d is not between 0 and 1000000",
                               k->group, k->name, number);
        *(int *)at = number;
        break;
    }
    return !why ||
           ruche_error(error, RUCHE_ERR_INVALID, "[%s] %s: %s", k->group, k->name, why->message);
}

static bool read_file(struct config *c, const char *path, GError **error)
{
    g_autoptr(GKeyFile) f = g_key_file_new();
    g_autoptr(GError) why = NULL;
    if (!g_key_file_load_from_file(f, path, G_KEY_FILE_NONE, &why))
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: %s", path, why->message);
    g_auto(GStrv) groups = g_key_file_get_groups(f, NULL);
    for (char **g = groups; *g; g++) {
        g_auto(GStrv) names = g_key_file_get_keys(f, *g, NULL, NULL);
        for (char **n = names; n && *n; n++) {
            const struct key *k = find_key(*g, *n);
            if (!k)
                return ruche_error(error, RUCHE_ERR_UNKNOWN,
                                   "%s: [%s] has no key '%s'; see ruched --help", path, *g, *n);
            if (!read_key(c, f, k, &why))
                return ruche_error(error, RUCHE_ERR_INVALID, "%s: %s", path, why->message);
        }
    }
    return true;
}

/* ---- what follows from both ---- */

static bool read_auth(const char *word, enum libvirt_auth *ret, GError **error)
{
    static const char *const words[] = {"none", "local", "sasl", NULL};
    static const enum libvirt_auth values[] = {LIBVIRT_AUTH_NONE, LIBVIRT_AUTH_LOCAL,
                                               LIBVIRT_AUTH_SASL};
    for (unsigned i = 0; word && words[i]; i++)
        if (strcmp(words[i], word) == 0) {
            *ret = values[i];
            return true;
        }
    return !word || ruche_error(error, RUCHE_ERR_UNKNOWN,
                                "'%s' is no way to authenticate: none, local or sasl%s", word,
                                suggest_phrase(word, words));
}

/* "HOST:PORT", the last colon counts. */
static bool read_address(struct config *c, const char *text, const char **ret_host,
                         const char **ret_port, GError **error)
{
    const char *colon = text ? strrchr(text, ':') : NULL;
    if (!text)
        return true;
    if (!colon || !colon[1])
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is not HOST:PORT", text);
    *ret_host = own(c, g_strndup(text, (gsize)(colon - text)));
    *ret_port = colon + 1;
    return true;
}

static void replace(char **where, const char *with)
{
    if (!with)
        return;
    g_free(*where);
    *where = g_strdup(with);
}

static void place_dirs(struct config *c)
{
    manager_config_init(c->session || (!c->system && geteuid() != 0));
    if (c->state_dir) { /* a place of its own takes all that stays with it */
        g_autofree char *config = g_build_filename(c->state_dir, "config", NULL),
                        *log = g_build_filename(c->state_dir, "log", NULL);
        g_autofree char *cache = g_build_filename(c->state_dir, "cache", NULL);
        replace(&manager.config_dir, config);
        replace(&manager.log_dir, log);
        replace(&manager.cache_dir, cache);
    }
    replace(&manager.state_dir, c->state_dir);
    replace(&manager.config_dir, c->config_dir);
    replace(&manager.runtime_dir, c->runtime_dir);
}

static bool has_libvirtd(void)
{
    static const char *const names[] = {"libvirtd", "virtqemud", "/usr/sbin/libvirtd",
                                        "/usr/sbin/virtqemud"};
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *found = g_find_program_in_path(names[i]);
        if (found)
            return true;
    }
    return false;
}

/* libvirt-sock in the runtime folder; and where libvirt's clients look without being told. */
static void place_sockets(struct config *c)
{
    char **dirs = g_new0(char *, 3);
    dirs[0] = g_strdup(manager.runtime_dir);
    if (c->libvirt_place)
        dirs[1] = manager.session ? g_build_filename(g_get_user_runtime_dir(), "libvirt", NULL)
                                  : g_strdup("/run/libvirt");
    c->lists[c->list_count++] = dirs;
    c->libvirt.socket_dirs = (const char *const *)dirs;
    c->libvirt.own_only = manager.session;
    c->libvirt.group = c->web.unix_group = c->access_group;
    c->web.unix_path = c->rest_socket
                           ? c->rest_socket
                           : own(c, g_build_filename(manager.runtime_dir, "ruche.sock", NULL));
}

/* The package's own accounts stand in the host's files. To ask all name services would load their modules for good. */
static bool is_local(const char *file, const char *name)
{
    g_autofree char *text = NULL, *start = g_strconcat("\n", name, ":", NULL);
    return g_file_get_contents(file, &text, NULL, NULL) &&
           (g_str_has_prefix(text, start + 1) || strstr(text, start));
}

/* Users and groups that the package makes count where they are there. */
static void default_owners(struct config *c)
{
    if (manager.session)
        return;
    if (!c->user && geteuid() == 0 && is_local("/etc/passwd", "ruche-vmm"))
        c->user = own(c, g_strdup("ruche-vmm"));
    if (!c->access_group && is_local("/etc/group", "ruche"))
        c->access_group = own(c, g_strdup("ruche"));
}

bool config_read(struct config *c, GError **error)
{
    place_dirs(c);
    libvirt_server_config_init(&c->libvirt);
    c->libvirt_place = !c->runtime_dir && !has_libvirtd();
    g_autofree char *usual = g_build_filename(manager.config_dir, "ruched.conf", NULL);
    if (c->file ? !read_file(c, c->file, error)
                : g_file_test(usual, G_FILE_TEST_EXISTS) && !read_file(c, usual, error))
        return false;
    default_owners(c);
    replace(&manager.user, c->user);
    replace(&manager.group, c->group);
    replace(&manager.vmm, c->vmm);
    replace(&manager.img, c->img);
    replace(&manager.migration_address, c->migration_address);
    replace(&manager.migration_host, c->migration_host);
    if (c->host_uuid &&
        (!uuid_parse(c->host_uuid, manager.host_uuid) || !uuid_is_valid(manager.host_uuid)))
        return ruche_error(error, RUCHE_ERR_INVALID, "[host] uuid: '%s' is no UUID", c->host_uuid);
    replace(&manager.ovsdb, c->ovsdb);
    replace(&manager.ovsdb_key, c->ovsdb_key);
    replace(&manager.ovsdb_certificate, c->ovsdb_certificate);
    replace(&manager.ovsdb_ca, c->ovsdb_ca);
    replace(&manager.tls_dir, c->tls_dir);
    replace(&manager.tls_secret, c->tls_secret);
    if (c->start_parallel)
        manager.start_parallel = (unsigned)c->start_parallel;
    place_sockets(c);
    struct libvirt_server_config *l = &c->libvirt;
    return read_auth(c->auth[0], &l->auth_unix_rw, error) &&
           read_auth(c->auth[1], &l->auth_unix_ro, error) &&
           read_auth(c->auth[2], &l->auth_tcp, error) &&
           read_auth(c->auth[3], &l->auth_tls, error) &&
           read_address(c, c->libvirt_tcp, &l->tcp_host, &l->tcp_port, error) &&
           read_address(c, c->libvirt_tls, &l->tls_host, &l->tls_port, error);
}

void config_done(struct config *c)
{
    for (unsigned i = 0; i < c->owned_count; i++)
        g_free(c->owned[i]);
    for (unsigned i = 0; i < c->list_count; i++)
        g_strfreev(c->lists[i]);
    g_free(c->runtime_dir);
    g_free(c->state_dir);
    g_free(c->config_dir);
    g_free(c->file);
}
