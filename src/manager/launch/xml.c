/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The description of a launched machine. Everything in it that somebody typed is escaped. */
#include "manager/launch/image.h"

#include "base/util.h"
#include "manager/node/node.h"

#include <cpuid.h>
#include <inttypes.h>
#include <string.h>

#define CPUID_VMX (1u << 5)
#define CPUID_SVM (1u << 2)
#define ROOT_PORTS 10 /* six for its own devices, the others for what comes while it runs */

/* Appends text made by a format whose strings are escaped. */
static void put(GString *out, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void put(GString *out, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    g_autofree char *text = g_markup_vprintf_escaped(format, ap);
    va_end(ap);
    g_string_append(out, text);
}

static void put_os(GString *out, const struct launch_request *r, const struct launch_image *i)
{
    const char *kernel = r->kernel ? r->kernel : i->kernel, *initrd = r->kernel ? r->initrd : i->initrd;
    put(out, "  <os>\n    <type arch='x86_64' machine='q35'>hvm</type>\n");
    if (kernel)
        put(out, "    <kernel>%s</kernel>\n", kernel);
    if (initrd)
        put(out, "    <initrd>%s</initrd>\n", initrd);
    if (kernel)
        put(out, "    <cmdline>%s</cmdline>\n", r->cmdline ? r->cmdline : "root=/dev/vda rw console=ttyS0");
    put(out, "    <boot dev='hd'/>\n  </os>\n");
}

static void put_interface(GString *out, const char *network, unsigned ssh_port)
{
    if (!strcmp(network, "none"))
        return;
    const char *colon = strchr(network, ':');
    if (colon) {
        g_autofree char *type = g_strndup(network, (size_t)(colon - network));
        put(out, "    <interface type='%s'>\n      <source %s='%s'/>\n", type, type, colon + 1);
    } else {
        put(out, "    <interface type='user'>\n      <portForward proto='tcp' address='127.0.0.1'>\n"
                 "        <range start='%u' to='22'/>\n      </portForward>\n", ssh_port);
    }
    put(out, "      <model type='virtio'/>\n    </interface>\n");
}

/* What `ruche ssh` asks for. */
static void put_metadata(GString *out, const struct launch_request *r, unsigned ssh_port)
{
    put(out, "  <metadata>\n    <launch xmlns='" LAUNCH_NAMESPACE "' image='%s' user='%s'", r->image, r->user);
    if (ssh_port)
        put(out, " ssh-port='%u'", ssh_port);
    put(out, "/>\n  </metadata>\n");
}

/* A KVM in software (no VMX, no SVM) is there in some clouds; our own CPU does more. */
static bool kvm_is_hardware(void)
{
    unsigned a, b, c, d;
    bool vmx = __get_cpuid(1, &a, &b, &c, &d) && (c & CPUID_VMX);
    return vmx || (__get_cpuid(0x80000001, &a, &b, &c, &d) && (c & CPUID_SVM));
}

char *launch_xml(const struct launch_request *r, const char *name, const struct launch_image *i, const char *disk,
                 const char *seed, unsigned ssh_port)
{
    const struct emulator *e = node_emulator(NULL, NULL, NULL);
    GString *out = g_string_new(NULL);
    put(out, "<domain type='%s'>\n  <name>%s</name>\n", e && e->kvm && kvm_is_hardware() ? "kvm" : "qemu", name);
    put_metadata(out, r, ssh_port);
    put(out, "  <memory unit='b'>%" PRIu64 "</memory>\n  <vcpu>%u</vcpu>\n", r->memory, r->cpus);
    put_os(out, r, i);
    put(out, "  <features>\n    <acpi/>\n    <apic/>\n  </features>\n  <on_crash>restart</on_crash>\n  <devices>\n");
    put(out, "    <disk type='file' device='disk'>\n      <driver name='qemu' type='qcow2' discard='unmap'/>\n"
             "      <source file='%s'/>\n      <target dev='vda' bus='virtio'/>\n    </disk>\n", disk);
    put(out, "    <disk type='file' device='disk'>\n      <driver name='qemu' type='raw'/>\n      <source file='%s'/>\n"
             "      <target dev='vdb' bus='virtio'/>\n      <readonly/>\n    </disk>\n", seed);
    put_interface(out, r->network, ssh_port);
    for (unsigned i = 0; i < ROOT_PORTS; i++)
        put(out, "    <controller type='pci' model='pcie-root-port'/>\n");
    put(out, "    <channel type='unix'>\n      <target type='virtio' name='org.qemu.guest_agent.0'/>\n    </channel>\n");
    put(out, "    <serial type='pty'/>\n    <console type='pty'/>\n"
             "    <rng model='virtio'>\n      <backend model='random'>/dev/urandom</backend>\n    </rng>\n");
    if (!e || !emulator_has(e, "memballoon.model", "virtio"))
        put(out, "    <memballoon model='none'/>\n");
    put(out, "  </devices>\n</domain>\n");
    return g_string_free(out, FALSE);
}
