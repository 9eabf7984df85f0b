/* SPDX-License-Identifier: GPL-2.0-or-later */
/* key=value lists as QEMU's options write them: text in, list out, no meaning attached.
 *
 * Spec      QEMU's -help and qemu-options manual: "key=value,key2=value2"; a comma in a value is
 *           written ",,"; the first word may stand alone and is then the value of the option's
 *           implied key; later words that stand alone are switches ("server" is server=on,
 *           "nowait" is wait=off). A text that begins with '{' is JSON: nested members become
 *           dotted keys, list members numbered ones.
 * Owner     kv_list_free() frees everything; keys and values are the list's.
 * Trust     The text is hostile: bounded in pairs, depth and length, and any byte may come.
 */
#pragma once

#include "base/error.h"

#include <stdint.h>

#define KV_MAX_PAIRS 1024
#define KV_MAX_KEY 127
#define KV_MAX_TEXT (1u << 20)

struct kv {
    char *key, *value;
    bool alone; /* stood without '=' */
};

struct kv_list {
    struct kv *pairs;
    size_t count, room;
};

/* implied: key of a leading word that stands alone; NULL: it is a switch like the others. */
struct kv_list *kv_parse(const char *text, const char *implied, GError **error);
void kv_list_free(struct kv_list *l);
static inline void kv_list_auto(struct kv_list **l)
{
    kv_list_free(*l);
}
#define auto_kv __attribute__((cleanup(kv_list_auto))) struct kv_list

/* The last value of a key; NULL: not there. */
const char *kv_get(const struct kv_list *l, const char *key);
bool kv_has(const struct kv_list *l, const char *key);
bool kv_add(struct kv_list *l, const char *key, const char *value, GError **error);
/* "help" or "?" stands somewhere in the list. */
bool kv_wants_help(const struct kv_list *l);

/* Typed readers: true and untouched *ret when the key is absent. Sentences do not name
 * the option: the caller puts that before. */
bool kv_get_bool(const struct kv_list *l, const char *key, bool *ret, GError **error);
bool kv_get_u64(const struct kv_list *l, const char *key, uint64_t min, uint64_t max, uint64_t *ret,
                GError **error);
bool kv_get_size(const struct kv_list *l, const char *key, uint64_t unit, uint64_t *ret, GError **error);
/* One of `words` (NULL-ended): *ret is its index. */
bool kv_get_word(const struct kv_list *l, const char *key, const char *const *words, int *ret,
                 GError **error);
/* "on", "yes", "true", "y" and their opposites. */
bool parse_on_off(const char *text, bool *ret);

/* False with "unknown property 'x'; did you mean ...?" when a pair is not among `known`
 * (NULL-ended). */
bool kv_check_known(const struct kv_list *l, const char *const *known, GError **error);
/* An id= as QEMU allows it: a letter, then letters, digits, '-', '.', '_'. */
bool kv_check_id(const char *id, GError **error);
