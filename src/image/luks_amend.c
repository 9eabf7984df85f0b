/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Changing the keys of a LUKS1 header: adding one to a slot, erasing slots.
 *
 * Spec      QEMU's amend options of luks; LUKS On-Disk Format Specification 1.2.3, section 4.
 * Crash     A key is added by its material first, and counts only when the header says so. It is
 * erased from the header first: without its salt, what is left of the material opens nothing. Trust
 * Options come from users and QMP peers.
 */
#include "image/luks_header.h"

#include <errno.h>
#include <string.h>

enum { STATE_NONE, STATE_ACTIVE, STATE_INACTIVE };
static const char *const state_words[] = {"", "active", "inactive", NULL};

struct amend {
    int state;
    char *new_secret, *old_secret;
    uint64_t keyslot, iter_time_ms;
    bool force;
    bool has_keyslot, has_iter_time;
};

const struct image_option luks_amend_options[] = {
    OPT_WORD("state", struct amend, state, state_words, STATE_NONE,
             "What the slots become: active, inactive"),
    OPT_STRING("new-secret", struct amend, new_secret, "ID of the secret to add"),
    OPT_STRING("old-secret", struct amend, old_secret, "ID of the secret whose slots are erased"),
    OPT_U64("keyslot", struct amend, keyslot, 0, 0, LUKS_SLOTS - 1,
            "The slot; else a free one, or all that match"),
    OPT_U64("iter-time", struct amend, iter_time_ms, 2000, 1, 3600000,
            "Milliseconds that deriving the key is to take"),
    {0},
};

static bool refuse(struct luks *l, GError **error, const char *why)
{
    return ruche_error(error, RUCHE_ERR_INVALID, "%s: %s", l->what, why);
}

static unsigned count_active(const struct luks *l)
{
    unsigned n = 0;
    for (unsigned i = 0; i < LUKS_SLOTS; i++)
        n += l->h.slots[i].active;
    return n;
}

static bool erase_slot(struct luks *l, unsigned slot, GError **error)
{
    struct luks_slot *s = &l->h.slots[slot];
    s->active = false;
    s->iterations = 0;
    memset(s->salt, 0, sizeof(s->salt));
    if (!luks_write_header(l, error))
        return false;
    size_t len = luks_material_bytes(&l->h, s->stripes);
    g_autofree uint8_t *noise = g_try_malloc(len);
    int r = noise ? crypto_random(noise, len) : -ENOMEM;
    if (!r)
        r = l->io.write(l->io.opaque, s->offset, noise, len);
    if (!r && l->io.flush)
        r = l->io.flush(l->io.opaque);
    return !r ||
           ruche_error_errno(error, -r, "%s: cannot overwrite the key of slot %u", l->what, slot);
}

static bool erase_one(struct luks *l, const struct amend *a, GError **error)
{
    unsigned slot = (unsigned)a->keyslot;
    uint8_t key[CRYPTO_KEY_MAX];
    if (!l->h.slots[slot].active)
        return ruche_error(error, RUCHE_ERR_STATE, "%s: key slot %u is inactive already", l->what,
                           slot);
    if (a->old_secret) {
        int r = luks_try_slot(l, slot, a->old_secret, key, error);
        crypto_wipe(key, sizeof(key));
        if (r <= 0)
            return r < 0 ? false
                         : ruche_error(error, RUCHE_ERR_INVALID,
                                       "%s: secret '%s' does not open slot %u", l->what,
                                       a->old_secret, slot);
    }
    if (count_active(l) == 1 && !a->force)
        return ruche_error(error, RUCHE_ERR_STATE,
                           "%s: slot %u holds the only key; without it all data is lost", l->what,
                           slot);
    return erase_slot(l, slot, error);
}

static bool erase_matching(struct luks *l, const struct amend *a, GError **error)
{
    uint8_t key[CRYPTO_KEY_MAX];
    unsigned matching = 0;
    bool hit[LUKS_SLOTS] = {false};
    for (unsigned i = 0; i < LUKS_SLOTS; i++) {
        int r = l->h.slots[i].active ? luks_try_slot(l, i, a->old_secret, key, error) : 0;
        crypto_wipe(key, sizeof(key));
        if (r < 0)
            return false;
        hit[i] = r > 0;
        matching += hit[i];
    }
    if (!matching)
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: secret '%s' opens no key slot", l->what,
                           a->old_secret);
    if (matching == count_active(l) && !a->force)
        return refuse(l, error,
                      "the secret opens every active slot; without them all data is lost");
    for (unsigned i = 0; i < LUKS_SLOTS; i++)
        if (hit[i] && !erase_slot(l, i, error))
            return false;
    return true;
}

static bool erase(struct luks *l, const struct amend *a, GError **error)
{
    if (a->new_secret || a->has_iter_time)
        return refuse(l, error, "'new-secret' and 'iter-time' do not go with 'state=inactive'");
    if (!a->old_secret && !a->has_keyslot)
        return refuse(l, error, "'state=inactive' needs 'keyslot' or 'old-secret'");
    return a->has_keyslot ? erase_one(l, a, error) : erase_matching(l, a, error);
}

static int free_slot(const struct luks *l)
{
    for (int i = 0; i < LUKS_SLOTS; i++)
        if (!l->h.slots[i].active)
            return i;
    return -1;
}

static bool add(struct luks *l, const struct amend *a, GError **error)
{
    if (!a->new_secret || a->old_secret)
        return refuse(l, error, "'state=active' needs 'new-secret', and no 'old-secret'");
    if (!l->unlocked)
        return refuse(l, error, "a key can be added only when 'key-secret' opens the image");
    int slot = a->has_keyslot ? (int)a->keyslot : free_slot(l);
    if (slot < 0)
        return refuse(l, error, "all 8 key slots are in use; erase one first");
    if (l->h.slots[slot].active) {
        if (!a->force)
            return ruche_error(error, RUCHE_ERR_STATE, "%s: key slot %d is active; erase it first",
                               l->what, slot);
        if (!erase_slot(l, (unsigned)slot, error))
            return false;
    }
    size_t len = luks_material_bytes(&l->h, l->h.slots[slot].stripes);
    if (!range_fits(l->h.slots[slot].offset, len, min_u64(l->h.payload_offset, l->io.bytes)))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: the material of key slot %d does not fit its header", l->what,
                           slot);
    return luks_fill_slot(l, (unsigned)slot, a->new_secret, a->iter_time_ms, error);
}

bool luks_amend(struct luks *l, JsonObject *given, bool force, GError **error)
{
    struct amend a = {0};
    g_autoptr(JsonObject) left = json_object_new();
    g_autoptr(GList) names = json_object_get_members(given);
    for (GList *n = names; n; n = n->next)
        json_object_set_member(left, n->data,
                               json_node_copy(json_object_get_member(given, n->data)));
    a.has_keyslot = json_object_has_member(given, "keyslot");
    a.has_iter_time = json_object_has_member(given, "iter-time");
    a.force = force || json_object_get_boolean_member_with_default(left, "force", FALSE);
    json_object_remove_member(left, "force");
    bool ok = option_parse(luks_amend_options, left, l->what, &a, error) &&
              option_all_used(left, luks_amend_options, NULL, l->what, error);
    if (ok && a.state == STATE_NONE)
        ok = refuse(l, error, "'state' is needed: active or inactive");
    ok = ok && (a.state == STATE_ACTIVE ? add(l, &a, error) : erase(l, &a, error));
    option_clear(luks_amend_options, &a);
    return ok;
}
