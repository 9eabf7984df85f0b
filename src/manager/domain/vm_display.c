/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a person sees and types: pictures of the screen, keys, a viewer's connection.
 *
 * Spec      QEMU's QMP: screendump, send-key, add_client, add-fd, getfd.
 */
#include "manager/domain/vm_internal.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>

#define VIEWER "ruche-viewer" /* the descriptor's name in the monitor */

/* The machine opens files for writing only: so must be what it finds in the set. */
static int write_only(const struct vm *v, int fd, GError **error)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
    int w = open(path, O_WRONLY | O_CLOEXEC);
    if (w < 0)
        ruche_error_errno(error, errno, "a picture of '%s'", v->name);
    return w;
}

bool vm_screenshot(struct vm *v, const char *device, unsigned head, int fd, GError **error)
{
    auto_vm *keep = vm_ref(v);
    autofd to = write_only(v, fd, error);
    g_autoptr(JsonNode) n = to < 0 ? NULL : vm_call_fd(v, "add-fd", NULL, to, error);
    if (!n)
        return false;
    int64_t set = vm_json_int(vm_json_object(n), "fdset-id", -1);
    g_autofree char *path = g_strdup_printf("/dev/fdset/%" G_GINT64_FORMAT, set);
    JsonObject *args = vm_json("filename", 's', path, "device", 's', device, NULL);
    if (device)
        json_object_set_int_member(args, "head", head);
    bool ok = vm_do(v, "screendump", args, error);
    vm_do(keep, "remove-fd", vm_json("fdset-id", 'i', set, NULL), NULL);
    return ok;
}

bool vm_send_keys(struct vm *v, const uint8_t *keys, unsigned count, unsigned hold_ms,
                  GError **error)
{
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < count; i++)
        json_array_add_object_element(
            list, vm_json("type", 's', "number", "data", 'i', (int64_t)keys[i], NULL));
    JsonObject *args = vm_json("keys", 'a', list, NULL);
    if (hold_ms)
        json_object_set_int_member(args, "hold-time", hold_ms);
    return vm_do(v, "send-key", args, error);
}

bool vm_open_graphics(struct vm *v, const char *protocol, int fd, bool trusted, GError **error)
{
    auto_vm *keep = vm_ref(v);
    if (!vm_do_fd(v, "getfd", vm_json("fdname", 's', VIEWER, NULL), fd, error))
        return false;
    if (vm_do(v, "add_client",
              vm_json("protocol", 's', protocol, "fdname", 's', VIEWER, "skipauth", 'b', trusted,
                      NULL),
              error))
        return true;
    vm_do(keep, "closefd", vm_json("fdname", 's', VIEWER, NULL), NULL);
    return false;
}
