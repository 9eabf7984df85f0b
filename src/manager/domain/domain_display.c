/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a person sees and types: pictures of the screen, keys, a viewer's connection.
 *
 * Thread    The loop thread, in a task.
 */
#include "manager/domain/def.h"
#include "manager/domain/domain_priv.h"

#include "base/fd.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define PICTURE_MAX (128u << 20) /* of 7680 by 4320 points it has 95 MiB */

/* ---- pictures ---- */

/* The alias of the video device that has a screen, and which of its heads it is; NULL with *error.
 * Screen 0 is what the emulator shows first. */
static char *find_screen(struct domain *d, unsigned screen, unsigned *ret_head, GError **error)
{
    unsigned left = screen, screens = 0;
    char *alias = NULL;
    for (struct xml_node *n = xml_find(domain_def_tree(d->live), "devices/video"); n && !alias;
         n = xml_next(n)) {
        unsigned heads = (unsigned)xml_get_u64(n, "model@heads", 1);
        if (xml_is(n, "model@type", "none"))
            continue;
        screens += heads;
        if (left < heads)
            alias = g_strdup(xml_get_or(n, "alias@name", ""));
        else
            left -= heads;
    }
    domain_def_shrink(d->live);
    *ret_head = left;
    if (!alias && !screens)
        ruche_error(error, RUCHE_ERR_UNSUPPORTED, "domain '%s' has no screen", d->name);
    else if (!alias)
        ruche_error(error, RUCHE_ERR_INVALID, "domain '%s' has no screen %u; it has %u", d->name,
                    screen, screens);
    return alias;
}

static int take_picture(struct domain *d, struct vm *v, unsigned screen, GError **error)
{
    unsigned head;
    struct stat st;
    g_autofree char *device = find_screen(d, screen, &head, error);
    if (!device)
        return -1;
    autofd fd = memfd_create("screen", MFD_CLOEXEC);
    if (fd < 0) {
        ruche_error_errno(error, errno, "memory for a picture of '%s'", d->name);
        return -1;
    }
    if (!vm_screenshot(v, screen ? device : NULL, head, fd, error))
        return -1;
    if (fstat(fd, &st) < 0 || st.st_size > PICTURE_MAX) {
        ruche_error(error, MANAGER_ERR_OVERFLOW, "domain '%s': the picture has more than %u bytes",
                    d->name, PICTURE_MAX);
        return -1;
    }
    return fd_steal(&fd);
}

int domain_screenshot(const struct caller *who, struct domain *d, unsigned screen, GError **error)
{
    struct vm_use *u = domain_allowed(who, d, RIGHT_CONTROL, "see the screen of", error)
                           ? domain_use(d, error)
                           : NULL;
    if (!u)
        return -1;
    int fd = take_picture(d, u->vm, screen, error);
    domain_use_end(u);
    return fd;
}

/* ---- keys ---- */

enum { SETS = DOMAIN_KEYS_NUMBER, NO_KEY = UINT16_MAX };
static const uint16_t codes[][SETS] = {
#define KEY(on_linux, set1, set2, set3, usb, win32, macos)                                         \
    {                                                                                              \
        [DOMAIN_KEYS_LINUX] = on_linux,        [DOMAIN_KEYS_SET1] = set1,                          \
        [DOMAIN_KEYS_SET2] = (uint16_t)set2,   [DOMAIN_KEYS_SET3] = (uint16_t)set3,                \
        [DOMAIN_KEYS_MAC] = (uint16_t)macos,   [DOMAIN_KEYS_USB] = (uint16_t)usb,                  \
        [DOMAIN_KEYS_WIN32] = (uint16_t)win32,                                                     \
    },
#include "manager/domain/keys.def"
#undef KEY
};
static const char *const set_names[SETS + 1] = {"linux", "xt",     "atset1", "atset2", "atset3",
                                                "os_x",  "xt_kbd", "usb",    "win32",  "qnum"};

/* Set 1 with a byte of 0xe0 in front: Linux's XT keyboards say 0x100, and the emulator 0x80. */
static unsigned key_of(const uint16_t *row, unsigned set)
{
    unsigned set1 = row[DOMAIN_KEYS_SET1];
    if (set == DOMAIN_KEYS_XT || set == DOMAIN_KEYS_XT_KBD)
        return set1 >= 0xe000 ? 0x100 | (set1 & 0x7f) : set1;
    return row[set];
}

static bool translate(unsigned set, uint32_t code, uint8_t *ret, GError **error)
{
    if (set == DOMAIN_KEYS_NUMBER) {
        *ret = (uint8_t)code;
        return code <= UINT8_MAX ||
               ruche_error(error, RUCHE_ERR_INVALID, "there is no key with the number %u", code);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(codes); i++)
        if (code < NO_KEY && key_of(codes[i], set) == code) {
            unsigned set1 = codes[i][DOMAIN_KEYS_SET1];
            *ret = (uint8_t)((set1 & 0x7f) | (set1 >= 0xe000 ? 0x80 : 0));
            return true;
        }
    return ruche_error(error, RUCHE_ERR_INVALID, "there is no key with the code %u of '%s'", code,
                       set_names[set]);
}

bool domain_send_key(const struct caller *who, struct domain *d, unsigned set, unsigned hold_ms,
                     const uint32_t *keys, unsigned count, GError **error)
{
    uint8_t numbers[DOMAIN_KEYS_MAX];
    if (set > DOMAIN_KEYS_NUMBER)
        return ruche_error(error, RUCHE_ERR_INVALID, "there is no set of key codes %u", set);
    if (count > DOMAIN_KEYS_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "%u keys at a time are too many; %d can be",
                           count, DOMAIN_KEYS_MAX);
    for (unsigned i = 0; i < count; i++)
        if (!translate(set, keys[i], &numbers[i], error))
            return false;
    struct vm_use *u =
        domain_allowed(who, d, RIGHT_CONTROL, "press keys of", error) ? domain_use(d, error) : NULL;
    if (!u)
        return false;
    bool ok = vm_send_keys(u->vm, numbers, count, hold_ms, error);
    domain_use_end(u);
    return ok;
}

/* ---- viewers ---- */

static char *find_graphics(struct domain *d, unsigned number, GError **error)
{
    unsigned i = 0;
    char *type = NULL;
    for (struct xml_node *n = xml_find(domain_def_tree(d->live), "devices/graphics"); n;
         n = xml_next(n))
        if (i++ == number)
            type = g_strdup(xml_get(n, "@type"));
    domain_def_shrink(d->live);
    if (!type)
        ruche_error(error, RUCHE_ERR_INVALID, "domain '%s' has no graphics %u; it has %u", d->name,
                    number, i);
    else if (strcmp(type, "vnc") != 0 && strcmp(type, "spice") != 0) {
        ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                    "domain '%s': graphics of type '%s' take no viewer", d->name, type);
        g_clear_pointer(&type, g_free);
    }
    return type;
}

bool domain_open_graphics(const struct caller *who, struct domain *d, unsigned number, int fd,
                          bool trusted, GError **error)
{
    struct vm_use *u =
        domain_allowed(who, d, RIGHT_CONTROL, "view", error) ? domain_use(d, error) : NULL;
    if (!u)
        return false;
    g_autofree char *type = find_graphics(d, number, error);
    bool ok = type && vm_open_graphics(u->vm, type, fd, trusted, error);
    domain_use_end(u);
    return ok;
}

int domain_view_graphics(const struct caller *who, struct domain *d, unsigned number, bool trusted,
                         GError **error)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        ruche_error_errno(error, errno, "a connection to the screen of '%s'", d->name);
        return -1;
    }
    autofd theirs = pair[1], ours = pair[0];
    return domain_open_graphics(who, d, number, theirs, trusted, error) ? fd_steal(&ours) : -1;
}
