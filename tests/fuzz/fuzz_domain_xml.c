/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Domain XML: what is defined defines again to the same text, live or not. The first byte gives the
 * flags; bit 3: the rest is a device that is attached to a small domain. */
#include "manager/domain/def.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char small[] =
    "<domain type='kvm'><name>a</name><uuid>00000000-0000-4000-8000-000000000001</uuid>"
    "<memory>65536</memory><os><type arch='x86_64'>hvm</type></os><devices><serial type='pty'/>"
    "<disk><source file='/a'/><target dev='vda'/></disk></devices></domain>";

static struct domain_def *device(const char *text, unsigned action, unsigned flags, GError **error)
{
    auto_domain_def *d = domain_def_parse(small, sizeof(small) - 1, flags, NULL);
    return domain_def_device(d, (enum def_device_action)(action % 3), text, flags, NULL, error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size || size > 1 << 16)
        return 0;
    g_autofree char *text = g_strndup((const char *)data + 1, size - 1);
    unsigned flags = data[0] & (DEF_VALIDATE | DEF_LIVE);
    g_autoptr(GError) error = NULL;
    auto_domain_def *d = data[0] & 8 ? device(text, data[0] >> 4, flags, &error)
                                     : domain_def_parse(text, size - 1, flags, &error);
    if (!d != !!error)
        __builtin_trap();
    if (error && (!*error->message || !g_utf8_validate(error->message, -1, NULL)))
        __builtin_trap();
    if (!d)
        return 0;
    auto_domain_def *again = domain_def_parse(d->text, strlen(d->text), flags, NULL);
    if (!again || strcmp(again->text, d->text))
        __builtin_trap();
    g_autofree char *shown = domain_def_format(d, 0, 5);
    if (!strstr(shown, " id='5'"))
        __builtin_trap();
    return 0;
}
