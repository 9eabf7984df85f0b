/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Addresses by DHCP: the client that this host has, under our eyes.
 *
 * Spec      dhclient(8), dhcpcd(8), udhcpc of BusyBox.
 * Life      A client waits for its lease, then goes into the background; it outlives the manager,
 *           which finds it again by its file of the process's number. One that dies is started again.
 * Thread    The loop thread, in a task.
 */
#include "base/log.h"
#include "manager/interface/interface_priv.h"
#include "manager/netlink.h"
#include "manager/store.h"

#include <glib-unix.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    WAIT_MS = 90000,
    OUTPUT_MAX = 65536,
    AGAIN_S = 5,
    WORDS_MAX = 16,
    NO_DNS_MAX = 8,
    STEPS = 100,
    STEP_MS = 50,
    LAUNCH_STEPS = WAIT_MS / STEP_MS + 2 * STEPS
};

/* %i: the interface, %p: the file of its number, %l: of its leases, %c: of dhclient's settings.
 * dhcpcd waits for a router to send it to a server, unless it is told not to. */
struct program {
    const char *name;
    const char *no_dns[NO_DNS_MAX];  /* first, with peerdns='no' */
    const char *words[2][WORDS_MAX]; /* for IPv4, IPv6 */
};
static const struct program programs[] = {
    {"dhclient",
     {"-cf", "%c", NULL},
     {{"-4", "-1", "-pf", "%p", "-lf", "%l", "%i", NULL},
      {"-6", "-1", "-pf", "%p", "-lf", "%l", "%i", NULL}}},
    {"dhcpcd",
     {"-C", "resolv.conf", NULL},
     {{"-4", "-w", "-t", "60", "%i", NULL},
      {"-6", "--noipv6rs", "--ia_na", "-w", "-t", "60", "%i", NULL}}},
    {"udhcpc",
     {"-o", "-O", "subnet", "-O", "router", NULL},
     {{"-i", "%i", "-p", "%p", "-n", "-t", "10", "-T", "3", NULL}, {NULL}}},
};
/* All that dhclient asks for when it is not to ask for name servers. Who asks for nothing at all by
 * IPv6 is told everything. */
static const char dhclient_conf[] =
    "option rfc3442-classless-static-routes code 121 = array of unsigned integer 8;\n"
    "request subnet-mask, broadcast-address, routers, interface-mtu, "
    "rfc3442-classless-static-routes, dhcp6.info-refresh-time;\n";

struct client {
    char *name, *pid_path;
    bool v6, no_dns, relaunched; /* relaunched: a task is at it */
    guint source, again;
    int fd;
};
static GHashTable *clients; /* by the file of its number */

static struct client *client_at(const char *path)
{
    return clients ? g_hash_table_lookup(clients, path) : NULL;
}

static void client_free(void *opaque)
{
    struct client *c = opaque;
    g_clear_handle_id(&c->source, g_source_remove);
    g_clear_handle_id(&c->again, g_source_remove);
    if (c->fd >= 0)
        close(c->fd);
    g_free(c->name);
    g_free(c->pid_path);
    g_free(c);
}

static char *expand(const char *word, const struct client *c)
{
    if (!strcmp(word, "%i"))
        return g_strdup(c->name);
    if (!strcmp(word, "%p"))
        return g_strdup(c->pid_path);
    if (!strcmp(word, "%c"))
        return g_strconcat(c->pid_path, ".conf", NULL);
    return !strcmp(word, "%l") ? g_strconcat(c->pid_path, ".leases", NULL) : g_strdup(word);
}

/* A program, or what it calls itself: "/sbin/udhcpc", "dhcpcd:". */
static bool is_program(const char *word)
{
    const char *slash = strrchr(word, '/'), *base = slash ? slash + 1 : word;
    size_t len = strcspn(base, ":");
    for (unsigned i = 0; i < G_N_ELEMENTS(programs); i++)
        if (strlen(programs[i].name) == len && !memcmp(programs[i].name, base, len))
            return true;
    return false;
}

/* Numbers come again: is it a client, and the interface's? It may be a script's or BusyBox's, and
 * dhcpcd's words are one: "dhcpcd: eth0 [ip4]". */
static bool is_of(pid_t pid, const char *name)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/cmdline", (int)pid), *cmdline = NULL;
    gsize len = 0;
    if (pid <= 0 || !g_file_get_contents(path, &cmdline, &len, NULL))
        return false;
    for (gsize i = 0; i < len; i++)
        cmdline[i] = cmdline[i] ? cmdline[i] : ' ';
    g_auto(GStrv) words = g_strsplit(cmdline, " ", -1);
    bool client = false;
    for (char **w = words; *w; w++)
        client |= is_program(*w);
    return client && g_strv_contains((const char *const *)words, name);
}

/* dhcpcd keeps its number in a place of its own. */
static pid_t find(const struct client *c)
{
    g_autofree char *other = g_strdup_printf("/run/dhcpcd/%s-%d.pid", c->name, c->v6 ? 6 : 4);
    const char *const paths[] = {c->pid_path, other};
    for (unsigned i = 0; i < G_N_ELEMENTS(paths); i++) {
        g_autofree char *text = store_read(paths[i], 64, NULL);
        pid_t pid = text ? (pid_t)g_ascii_strtoll(text, NULL, 10) : 0;
        if (is_of(pid, c->name))
            return pid;
    }
    return 0;
}

static void again_task(void *opaque);

static gboolean again(gpointer opaque)
{
    struct client *c = opaque;
    c->again = 0;
    task_start(again_task, g_strdup(c->pid_path));
    return G_SOURCE_REMOVE;
}

static gboolean ended(int fd, GIOCondition condition, gpointer opaque)
{
    struct client *c = opaque;
    c->source = 0;
    close(c->fd);
    c->fd = -1;
    log_warn("interface '%s': its DHCP client ended by itself and is started again", c->name);
    c->again = g_timeout_add_seconds(AGAIN_S, again, c);
    return G_SOURCE_REMOVE;
}

static bool watch(struct client *c)
{
    pid_t pid = find(c);
    c->fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    if (c->fd >= 0)
        c->source = g_unix_fd_add(c->fd, G_IO_IN, ended, c);
    return c->fd >= 0;
}

/* A client that has just gone into the background may not have written its number yet. */
static pid_t await(const struct client *c)
{
    pid_t pid = find(c);
    for (int i = 0; !pid && i < STEPS; i++) {
        task_sleep_ms(STEP_MS);
        pid = find(c);
    }
    return pid;
}

/* DHCPv6 is spoken from the interface's own address, which the kernel tries out first. */
static bool has_own_address(const char *name)
{
    auto_host *h = host_read();
    const struct host_link *l = host_find(h, name);
    FOREACH_OF(host_address, a, h->addresses)
    {
        const struct ifaddrmsg *i = g_bytes_get_data(a->raw, NULL);
        if (l && a->index == l->index && a->s.addr.v6 && a->scope == RT_SCOPE_LINK &&
            !(i->ifa_flags & IFA_F_TENTATIVE))
            return true;
    }
    return false;
}

static char **command(const struct program *p, const char *path, const struct client *c)
{
    GPtrArray *argv = g_ptr_array_new();
    g_ptr_array_add(argv, g_strdup(path));
    for (const char *const *w = p->no_dns; c->no_dns && *w; w++)
        g_ptr_array_add(argv, expand(*w, c));
    for (const char *const *w = p->words[c->v6]; *w; w++)
        g_ptr_array_add(argv, expand(*w, c));
    g_ptr_array_add(argv, NULL);
    return (char **)g_ptr_array_free(argv, FALSE);
}

static bool launch(const struct client *c, GError **error)
{
    g_autofree char *conf = expand("%c", c);
    if (c->no_dns && !store_write_volatile(conf, dhclient_conf, 0644, error))
        return false;
    for (int i = 0; c->v6 && i < STEPS && !has_own_address(c->name); i++)
        task_sleep_ms(STEP_MS);
    for (unsigned i = 0; i < G_N_ELEMENTS(programs); i++) {
        const char *const *words = programs[i].words[c->v6];
        g_autofree char *path = *words ? g_find_program_in_path(programs[i].name) : NULL;
        if (!path)
            continue;
        g_auto(GStrv) argv = command(&programs[i], path, c);
        g_autoptr(GError) inner = NULL;
        if (!task_run_program((const char *const *)argv, NULL, OUTPUT_MAX, WAIT_MS, NULL, &inner))
            return ruche_error(error, inner->code, "interface '%s': no address by DHCP: %s",
                               c->name, inner->message);
        return await(c) ||
               ruche_error(error, RUCHE_ERR_IO, "interface '%s': its DHCP client ended", c->name);
    }
    return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                       "interface '%s': this host has no DHCP client%s (Debian: apt install "
                       "isc-dhcp-client; Fedora: dhcp-client; Arch: dhclient)",
                       c->name, c->v6 ? " for IPv6" : "");
}

static void again_task(void *opaque)
{
    g_autofree char *key = opaque;
    struct client *c = client_at(key);
    g_autoptr(GError) error = NULL;
    if (!c || c->fd >= 0 || c->relaunched)
        return;
    c->relaunched = true;
    struct client copy = {
        .name = g_strdup(c->name), .pid_path = g_strdup(key), .v6 = c->v6, .no_dns = c->no_dns};
    bool ok = launch(&copy, &error);
    g_free(copy.name);
    g_free(copy.pid_path);
    c = client_at(key);
    if (c)
        c->relaunched = false;
    if (!c || c->fd >= 0 || c->again || (ok && watch(c)))
        return;
    if (error)
        log_warn("%s", error->message);
    c->again = g_timeout_add_seconds(AGAIN_S, again, c);
}

static char *pid_path(const char *name, bool v6)
{
    return interface_run_path(name, v6 ? "dhcp6" : "dhcp4");
}

static bool start_one(const char *name, bool v6, bool no_dns, GError **error)
{
    g_autofree char *path = pid_path(name, v6);
    struct client *c = client_at(path);
    if (c)
        return true;
    c = g_new0(struct client, 1);
    *c = (struct client){
        .name = g_strdup(name), .pid_path = g_strdup(path), .v6 = v6, .no_dns = no_dns, .fd = -1};
    if (!watch(c) && (!launch(c, error) || !watch(c))) {
        client_free(c);
        if (error && !*error)
            ruche_error(error, RUCHE_ERR_IO, "interface '%s': its DHCP client does not run", name);
        return false;
    }
    g_hash_table_insert(clients, c->pid_path, c);
    return true;
}

bool lease_client_start(const char *name, const struct xml_node *root, GError **error)
{
    if (!clients)
        clients = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, client_free);
    for (int v6 = 0; v6 < 2; v6++) {
        const struct xml_node *p = interface_protocol(root, v6);
        if (p && xml_find(p, "dhcp") &&
            !start_one(name, v6, xml_is(p, "dhcp@peerdns", "no"), error))
            return false;
    }
    return true;
}

/* Ends the client: as what it becomes, while it is being started again (it leaves for the background
 * under another number); and by force, if it does not heed. */
static void end_client(const struct client *key)
{
    const struct client *c;
    for (int i = 0; i < LAUNCH_STEPS && (c = client_at(key->pid_path)) && c->relaunched; i++) {
        pid_t starting = find(key);
        if (starting > 0)
            kill(starting, SIGTERM);
        task_sleep_ms(STEP_MS);
    }
    if (clients)
        g_hash_table_remove(clients, key->pid_path);
    pid_t pid = find(key);
    if (pid > 0)
        kill(pid, SIGTERM);
    for (int i = 0; i < 2 * STEPS && is_of(pid, key->name); i++)
        task_sleep_ms(STEP_MS);
    if (is_of(pid, key->name))
        kill(pid, SIGKILL);
}

void lease_client_stop(const char *name)
{
    for (int v6 = 0; v6 < 2; v6++) {
        g_autofree char *path = pid_path(name, v6), *leases = g_strconcat(path, ".leases", NULL),
                        *conf = g_strconcat(path, ".conf", NULL);
        struct client key = {.name = (char *)name, .pid_path = path, .v6 = v6};
        end_client(&key);
        g_unlink(path);
        g_unlink(leases);
        g_unlink(conf);
    }
}

void lease_client_forget_all(void)
{
    g_clear_pointer(&clients, g_hash_table_unref);
}
