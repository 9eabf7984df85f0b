/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Launching: image, thin disk, seed, definition, start, as one job that leaves all or nothing.
 *
 * Thread    The loop thread, in tasks.
 */
#include "manager/launch/image.h"

#include "base/util.h"
#include "manager/network/network.h"
#include "manager/store.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MEMORY_DEFAULT (1 * GIB)
#define DISK_OF_RECIPES (10 * GIB)
#define NAMES_TRIED 1000
#define UNFINISHED "unfinished" /* a file in a machine's folder until there is a machine */

struct work {
    struct launch_request *request;
    struct caller who; /* a copy: the connection may end before the job */
};

void launch_request_free(struct launch_request *r)
{
    if (!r)
        return;
    char *const texts[] = { r->image, r->name, r->network, r->user, r->password, r->user_data, r->kernel, r->initrd, r->cmdline };
    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++)
        g_free(texts[i]);
    g_strfreev(r->ssh_keys);
    g_free(r);
}

/* ---- names, ports, folders ---- */

static bool name_is_free(const char *name)
{
    struct domain *d = domain_find_name(name, NULL);
    domain_unref(d);
    g_autofree char *dir = g_build_filename(manager.state_dir, "machines", name, NULL);
    return !d && !g_file_test(dir, G_FILE_TEST_EXISTS);
}

/* "debian", then "debian-2" ... */
static char *free_name(const char *base, GError **error)
{
    for (unsigned i = 1; i < NAMES_TRIED; i++) {
        g_autofree char *name = i == 1 ? g_strdup(base) : g_strdup_printf("%s-%u", base, i);
        if (name_is_free(name))
            return g_steal_pointer(&name);
    }
    ruche_error(error, RUCHE_ERR_EXISTS, "%u machines are called '%s-N' already; give a name", NAMES_TRIED, base);
    return NULL;
}

/* A port of the loopback that nobody listens on now. */
static unsigned free_port(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool good = fd >= 0 && !bind(fd, (struct sockaddr *)&a, len) && !getsockname(fd, (struct sockaddr *)&a, &len);
    if (fd >= 0)
        close(fd);
    return good ? ntohs(a.sin_port) : 0;
}

static char *machine_dir(const char *name)
{
    return g_build_filename(manager.state_dir, "machines", name, NULL);
}

/* Its being there reserves the name: of two launches one fails. */
static bool make_dir(const char *dir, GError **error)
{
    g_autofree char *parent = g_path_get_dirname(dir), *mark = g_build_filename(dir, UNFINISHED, NULL);
    if (g_mkdir_with_parents(parent, 0711) < 0 || g_mkdir(dir, 0711) < 0)
        return errno == EEXIST ? ruche_error(error, RUCHE_ERR_EXISTS, "%s is there already: another launch, or left from a machine "
                                             "that was taken away", dir)
                               : ruche_error_errno(error, errno, "%s could not be made", dir);
    if (g_file_set_contents(mark, "", 0, error))
        return true;
    g_rmdir(dir);
    return false;
}

static void finish_dir(const char *dir)
{
    g_autofree char *mark = g_build_filename(dir, UNFINISHED, NULL);
    g_unlink(mark);
}

static void remove_dir(const char *dir)
{
    static const char *const names[] = { "disk.qcow2", "seed.iso", UNFINISHED };
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_build_filename(dir, names[i], NULL);
        g_unlink(path);
    }
    g_rmdir(dir);
}

/* ---- the job ---- */

static bool make_disk(struct job *j, const struct launch_request *r, const struct launch_image *i, const char *path, GError **error)
{
    uint64_t size = r->disk ? r->disk : i->recipe ? MAX(i->size, DISK_OF_RECIPES) : i->size;
    if (size < i->size)
        return ruche_error(error, RUCHE_ERR_INVALID, "a disk of %" PRIu64 " bytes is smaller than the image's %" PRIu64, size, i->size);
    g_autofree char *bytes = g_strdup_printf("%" PRIu64, size);
    const char *const argv[] = { manager.img, "create", "-q", "-f", "qcow2", "-b", i->disk, "-F", i->format, path, bytes, NULL };
    job_step(j, "cloning the disk");
    return launch_run(j, argv, NULL, error);
}

static bool define_and_start(struct work *w, const char *xml, GError **error)
{
    struct domain *d = domain_define(&w->who, xml, 0, error);
    bool good = d && (!w->request->autostart || domain_set_autostart(&w->who, d, true, error)) &&
                (w->request->no_start || domain_start(&w->who, d, 0, error));
    if (d && !good)
        domain_undefine(&caller_self, d, 0, NULL);
    domain_unref(d);
    return good;
}

static bool launch_in(struct job *j, struct work *w, const char *name, const struct launch_image *image, const char *dir,
                      GError **error)
{
    g_autofree char *disk = g_build_filename(dir, "disk.qcow2", NULL), *seed = g_build_filename(dir, "seed.iso", NULL);
    const struct launch_request *r = w->request;
    if (!image->kernel && !r->kernel)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "image '%s' brings no kernel, and ruche-vmm has no firmware yet: "
                           "give --kernel and --initrd", r->image);
    if (!make_disk(j, r, image, disk, error) || !launch_seed_make(r, name, seed, error))
        return false;
    bool user_network = !strcmp(r->network, "user");
    g_autofree char *xml = launch_xml(r, name, image, disk, seed, user_network ? free_port() : 0);
    job_step(j, "starting");
    return define_and_start(w, xml, error);
}

static bool launch_job(struct job *j, void *opaque, char **ret_result, GError **error)
{
    struct work *w = opaque;
    struct launch_image image = { 0 };
    bool good = launch_image_get(j, w->request->image, &image, error);
    g_autofree char *name = !good ? NULL : w->request->name ? g_strdup(w->request->name) : free_name(image.default_name, error);
    g_autofree char *dir = name ? machine_dir(name) : NULL;
    good = dir != NULL;
    if (good && !make_dir(dir, error))
        good = false;
    else if (good && !(good = launch_in(j, w, name, &image, dir, error)))
        remove_dir(dir);
    if (good) {
        finish_dir(dir);
        *ret_result = g_steal_pointer(&name);
    }
    launch_image_done(&image);
    caller_done(&w->who);
    launch_request_free(w->request);
    g_free(w);
    return good;
}

/* ---- the request ---- */

static bool check_network(const char *network, GError **error)
{
    if (!strcmp(network, "user") || !strcmp(network, "none") ||
        ((g_str_has_prefix(network, "bridge:") || g_str_has_prefix(network, "network:")) && strchr(network, ':')[1]))
        return true;
    return ruche_error(error, RUCHE_ERR_INVALID, "network '%s' is none of 'user', 'none', 'bridge:NAME', 'network:NAME'", network);
}

/* The name of a network alone is enough. */
static char *full_network(char *network)
{
    struct network *n = strchr(network, ':') || !strcmp(network, "user") || !strcmp(network, "none") ? NULL : network_find_name(network, NULL);
    char *full = n ? g_strconcat("network:", network, NULL) : g_strdup(network);
    network_unref(n);
    g_free(network);
    return full;
}

/* As useradd takes them. */
static bool check_user(const char *user, GError **error)
{
    size_t len = strspn(user, "abcdefghijklmnopqrstuvwxyz0123456789_-");
    if (len && len <= 32 && !user[len] && (g_ascii_islower(*user) || *user == '_'))
        return true;
    return ruche_error(error, RUCHE_ERR_INVALID, "user '%s': a name has up to 32 of a-z, 0-9, _ and -, and begins with a letter", user);
}

static bool check_name(const char *name, GError **error)
{
    if (!store_name_check("machine", name, error))
        return false;
    struct domain *d = domain_find_name(name, NULL);
    domain_unref(d);
    return !d || ruche_error(error, RUCHE_ERR_EXISTS, "there is a machine '%s' already", name);
}

static char *or_default(char *text, const char *otherwise)
{
    return text ? text : g_strdup(otherwise);
}

struct job *launch(const struct caller *who, struct launch_request *r, GError **error)
{
    r->network = full_network(or_default(r->network, "user"));
    r->user = or_default(r->user, "ruche");
    r->cpus = r->cpus ? r->cpus : 1;
    r->memory = r->memory ? r->memory : MEMORY_DEFAULT;
    if (!access_check(who, RIGHT_WRITE, "launch a machine", error) || (r->name && !check_name(r->name, error)) ||
        !check_network(r->network, error) || !check_user(r->user, error)) {
        launch_request_free(r);
        return NULL;
    }
    struct work *w = g_new0(struct work, 1);
    *w = (struct work){ .request = r, .who = *who };
    w->who.name = g_strdup(who->name);
    return job_start(who, "launch", r->name ? r->name : r->image, launch_job, w);
}

/* ---- after an end in the middle ---- */

/* A machine that is defined is whole; what is marked without one is not. */
static void clean_machines(void)
{
    g_autofree char *parent = g_build_filename(manager.state_dir, "machines", NULL);
    g_autoptr(GDir) list = g_dir_open(parent, 0, NULL);
    const char *name;
    while (list && (name = g_dir_read_name(list))) {
        g_autofree char *dir = machine_dir(name), *mark = g_build_filename(dir, UNFINISHED, NULL);
        if (!g_file_test(mark, G_FILE_TEST_EXISTS))
            continue;
        struct domain *d = domain_find_name(name, NULL);
        if (d)
            g_unlink(mark);
        else
            remove_dir(dir);
        domain_unref(d);
    }
}

void launch_clean(void)
{
    clean_machines();
    launch_images_clean();
}

/* ---- afterwards ---- */

/* The first that a network of ours gave one of its interfaces. */
static char *leased_address(const struct domain *d)
{
    const struct domain_summary *s = domain_summary(d);
    char *address = NULL;
    for (unsigned i = 0; i < s->interface_count && !address; i++) {
        g_autoptr(GPtrArray) leases = s->interfaces[i].source ? network_leases_of(s->interfaces[i].source, s->interfaces[i].mac) : NULL;
        if (leases && leases->len)
            address = g_strdup(((struct network_lease *)leases->pdata[0])->ip);
    }
    return address;
}

bool launch_ssh(const struct caller *who, struct domain *d, char **ret_host, unsigned *ret_port, char **ret_user, GError **error)
{
    g_autofree char *text = domain_get_metadata(who, d, 2, LAUNCH_NAMESPACE, 0, error);
    if (!text)
        return false;
    auto_xml *root = xml_parse(text, strlen(text), NULL, error);
    if (!root)
        return false;
    uint64_t port = xml_get_u64(root, "@ssh-port", 0);
    char *host = port ? g_strdup("127.0.0.1") : leased_address(d);
    if (!host)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "machine '%s' has no address that is known: its interfaces are on no network of "
                           "this host with DHCP, or it has not asked yet", domain_summary(d)->name);
    *ret_host = host;
    *ret_port = port ? (unsigned)port : 22;
    *ret_user = g_strdup(xml_get_or(root, "@user", "ruche"));
    return true;
}

bool launch_remove_files(const struct caller *who, const char *name, GError **error)
{
    if (!access_check(who, RIGHT_WRITE, "delete a machine's files", error) || !store_name_check("machine", name, error))
        return false;
    g_autofree char *dir = machine_dir(name);
    remove_dir(dir);
    return !g_file_test(dir, G_FILE_TEST_EXISTS) ||
           ruche_error(error, RUCHE_ERR_BUSY, "%s holds files that were not made by 'launch': they stay", dir);
}
