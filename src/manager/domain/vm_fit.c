/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What clients put into every description, and this emulator has not: taken out where nothing hangs
 * on it.
 *
 * virt-install and virt-manager write a USB controller for every x86 machine of a "qemu"
 * connection, whatever the domain capabilities say. Without a device on it, it becomes <controller
 * type='usb' model='none'/>: the description says what the guest will find. With one,
 * vm_check_def() refuses the device.
 */
#include "manager/domain/def_internal.h"
#include "manager/domain/vm.h"
#include "manager/node/node.h"

static bool has_usb_device(const struct xml_node *devices)
{
    for (const struct xml_node *n = devices->children; n; n = n->next)
        if (xml_is_element(n) && def_is_usb(n))
            return true;
    return false;
}

static bool is_beyond(const struct emulator *e, const struct xml_node *controller)
{
    return xml_is(controller, "@type", "usb") &&
           !emulator_has(e, "controller.usb", xml_get_or(controller, "@model", ""));
}

static bool any_beyond(const struct emulator *e, const struct xml_node *devices)
{
    for (const struct xml_node *c = xml_find(devices, "controller"); c; c = xml_next(c))
        if (is_beyond(e, c))
            return true;
    return false;
}

/* The first says that there is none, its companions go. */
static void take_out(const struct emulator *e, struct xml_node *devices)
{
    bool said = false;
    for (struct xml_node *c = xml_find(devices, "controller"), *next; c; c = next) {
        next = xml_next(c);
        if (!is_beyond(e, c))
            continue;
        xml_free(c);
        if (said)
            continue;
        c = xml_add(devices, "controller");
        xml_set(c, "@type", "usb");
        xml_set(c, "@model", "none");
        said = true;
    }
}

struct domain_def *vm_fit_def(struct domain_def *d, GError **error)
{
    const struct emulator *e = node_emulator(d->s.emulator, d->s.arch, error);
    const struct xml_node *devices = e ? xml_find(domain_def_tree(d), "devices") : NULL;
    if (!e)
        return NULL;
    if (!e->ours || !devices || has_usb_device(devices) || !any_beyond(e, devices))
        return domain_def_ref(d);
    struct xml_node *doc = xml_copy(d->doc);
    take_out(e, xml_find(doc, "devices"));
    return domain_def_from_doc(doc, 0, error);
}
