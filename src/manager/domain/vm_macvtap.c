/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Macvtap interfaces for machines: made on an interface of the host, opened, limited.
 *
 * Spec      rtnetlink(7); Linux drivers/net/macvtap.c: a character device tapN, N its index.
 * Cut off   The name is noted before the link is made (vm_note_link): it goes with the machine,
 * whatever moment we are killed in.
 */
#include "manager/domain/vm_internal.h"
#include "manager/network/network.h"

#include "base/fd.h"

#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define NAMES_MAX 1000

/* ---- its device ---- */

/* The number that the kernel gave it; 0: not known here. */
static dev_t device_number(unsigned index)
{
    g_autofree char *path = g_strdup_printf("/sys/class/macvtap/tap%u/dev", index), *text = NULL;
    unsigned major, minor;
    if (!g_file_get_contents(path, &text, NULL, NULL) || sscanf(text, "%u:%u", &major, &minor) != 2)
        return 0;
    return makedev(major, minor);
}

static bool is_device(const char *path, dev_t number)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISCHR(st.st_mode) && (!number || st.st_rdev == number);
}

/* /dev/tapN is of the first network namespace that has an interface N, and may come late: then a
 * node of our own is made, and taken away as soon as it is open. 0 or a positive errno. */
static int open_queues(const char *name, unsigned queues, int *ret)
{
    unsigned index = if_nametoindex(name);
    dev_t number = device_number(index);
    g_autofree char *usual = g_strdup_printf("/dev/tap%u", index);
    g_autofree char *own = g_strdup_printf("/dev/.ruche-%d-tap%u", (int)getpid(), index);
    const char *path = is_device(usual, number) || !number ? usual : own;
    int err = path == own && mknod(own, S_IFCHR | 0600, number) < 0 ? errno : 0;
    for (unsigned i = 0; !err && i < queues; i++) {
        ret[i] = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
        err = ret[i] < 0 ? errno : 0;
        while (err && i)
            fd_close_keep_errno(ret[--i]);
        if (err)
            break;
    }
    if (path == own)
        unlink(own);
    return err;
}

/* ---- the link ---- */

static bool check_lower(const struct network_plug *p, GError **error)
{
    const char *lower = p->dev;
    if (!*lower || strlen(lower) >= IFNAMSIZ || strchr(lower, '/'))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "interface '%s': names of interfaces have 1 to %d bytes", lower,
                           IFNAMSIZ - 1);
    if (!if_nametoindex(lower))
        return ruche_error(error, MANAGER_ERR_CONFIG, "there is no interface '%s' on this host",
                           lower);
    return !p->vlan ||
           ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                       "interface '%s' is given to the machine by macvtap, which sets no <vlan>; "
                       "make one of the host (ip link add link %s type vlan) and give that",
                       lower, lower);
}

/* "vnet%d" becomes the first macvtapN that is free. */
static bool choose_name(char name[IFNAMSIZ], GError **error)
{
    bool pattern = strchr(name, '%');
    for (unsigned i = 0; pattern && i < NAMES_MAX; i++) {
        g_snprintf(name, IFNAMSIZ, "macvtap%u", i);
        if (!if_nametoindex(name))
            return true;
    }
    return (!pattern && !if_nametoindex(name)) ||
           ruche_error(error, RUCHE_ERR_EXISTS, "interface '%s' exists already on this host", name);
}

bool vm_macvtap(const struct vm *v, const struct xml_node *n, const struct network_plug *p,
                unsigned queues, int *ret, char name[IFNAMSIZ], GError **error)
{
    if (!check_lower(p, error) || !choose_name(name, error))
        return false;
    vm_note_link(v, name);
    int err = vm_macvtap_make(name, if_nametoindex(p->dev), p->macvtap, xml_get(n, "mac@address"));
    if (err)
        vm_forget_link(v, name);
    if (err)
        return ruche_error_errno(error, err,
                                 err == EBUSY || err == EINVAL
                                     ? "macvtap '%s' on '%s' cannot be made in mode '%s': another "
                                       "has it (passthrough is for one alone)"
                                     : "macvtap '%s' on '%s' cannot be made in mode '%s'",
                                 name, p->dev, p->macvtap);
    err = vm_link_up(name);
    err = err ? err : open_queues(name, queues, ret);
    if (!err && (!p->bandwidth || network_qos(name, p->bandwidth, true, error)))
        return true;
    for (unsigned i = 0; !err && i < queues; i++)
        fd_close_keep_errno(ret[i]);
    vm_link_delete(name);
    vm_forget_link(v, name);
    return err ? ruche_error_errno(error, err, "macvtap '%s' cannot be opened", name) : false;
}
