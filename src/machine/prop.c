/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Properties: text to field and back, driven by struct prop. */
#include "base/units.h"
#include "machine/device.h"

#include <string.h>

static const struct { uint8_t bytes; uint64_t max; } widths[] = {
    [PROP_KIND_U8] = { 1, UINT8_MAX },   [PROP_KIND_U16] = { 2, UINT16_MAX },
    [PROP_KIND_U32] = { 4, UINT32_MAX }, [PROP_KIND_U64] = { 8, UINT64_MAX },
    [PROP_KIND_SIZE] = { 8, INT64_MAX },
};

static bool is_number(const struct prop *p)
{
    return (p->kind >= PROP_KIND_U8 && p->kind <= PROP_KIND_U64) || p->kind == PROP_KIND_SIZE;
}

static bool parse_number(const struct prop *p, void *at, const char *owner, const char *value, GError **error)
{
    uint64_t v, max = p->max ? p->max : widths[p->kind].max;
    bool size = p->kind == PROP_KIND_SIZE;
    if (!(size ? units_parse_size(value, 1, &v) : units_parse_u64(value, &v)))
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: property '%s' is '%s', which is not a %s", owner,
                           p->name, value, size ? "size" : "number");
    if (v < p->min || v > max)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: property '%s' is %s, but must be from %" G_GUINT64_FORMAT
                           " to %" G_GUINT64_FORMAT,
                           owner, p->name, value, p->min, max);
    if (p->power_of_2 && !is_power_of_2(v))
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: property '%s' is %s, but must be a power of two",
                           owner, p->name, value);
    memcpy(at, &v, widths[p->kind].bytes);
    return true;
}

static const struct { const char *word; bool on; } bool_words[] = {
    { "on", true },   { "yes", true }, { "true", true },   { "y", true },   { "1", true },
    { "off", false }, { "no", false }, { "false", false }, { "n", false }, { "0", false },
};

static bool parse_bool(const struct prop *p, bool *ret, const char *owner, const char *value, GError **error)
{
    for (size_t i = 0; i < ARRAY_COUNT(bool_words); i++) {
        if (!strcmp(value, bool_words[i].word)) {
            *ret = bool_words[i].on;
            return true;
        }
    }
    return ruche_error(error, RUCHE_ERR_INVALID, "%s: property '%s' is '%s', but must be on or off%s", owner,
                       p->name, value, p->kind == PROP_KIND_ONOFFAUTO ? " or auto" : "");
}

static bool parse_on_off_auto(const struct prop *p, int *ret, const char *owner, const char *value,
                              GError **error)
{
    bool on;
    if (!strcmp(value, "auto")) {
        *ret = -1;
        return true;
    }
    if (!parse_bool(p, &on, owner, value, error))
        return false;
    *ret = on;
    return true;
}

static bool parse_enum(const struct prop *p, int *ret, const char *owner, const char *value, GError **error)
{
    for (int i = 0; p->words[i]; i++) {
        if (!strcmp(value, p->words[i])) {
            *ret = i;
            return true;
        }
    }
    g_autofree char *all = g_strjoinv(", ", (char **)(uintptr_t)p->words);
    return ruche_error(error, RUCHE_ERR_INVALID, "%s: property '%s' is '%s', but must be one of %s", owner,
                       p->name, value, all);
}

static bool parse_i32(const struct prop *p, int32_t *ret, const char *owner, const char *value, GError **error)
{
    char *end;
    gint64 v = g_ascii_strtoll(value, &end, 0);
    if (!*value || *end || v < INT32_MIN || v > INT32_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: property '%s' is '%s', which is not a number",
                           owner, p->name, value);
    *ret = (int32_t)v;
    return true;
}

static bool parse_mac(const struct prop *p, uint8_t *ret, const char *owner, const char *value, GError **error)
{
    uint8_t mac[6];
    const char *s = value;
    int i = 0;
    for (; i < 6; i++) {
        int high = g_ascii_xdigit_value(s[0]);
        int low = high < 0 ? -1 : g_ascii_xdigit_value(s[1]);
        if (low < 0 || (i < 5 ? s[2] != ':' && s[2] != '-' : s[2] != 0))
            break;
        mac[i] = (uint8_t)(high << 4 | low);
        s += 3;
    }
    if (i < 6)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: property '%s' is '%s', but must look like 52:54:00:12:34:56", owner, p->name,
                           value);
    if (mac[0] & 1)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: property '%s' is '%s', a multicast address (first byte is odd)", owner,
                           p->name, value);
    memcpy(ret, mac, 6);
    return true;
}

bool prop_parse(const struct prop *p, void *base, const char *owner, const char *value, GError **error)
{
    void *at = (uint8_t *)base + p->offset;
    if (is_number(p))
        return parse_number(p, at, owner, value, error);
    switch (p->kind) {
    case PROP_KIND_BOOL:
        return parse_bool(p, at, owner, value, error);
    case PROP_KIND_ONOFFAUTO:
        return parse_on_off_auto(p, at, owner, value, error);
    case PROP_KIND_ENUM:
        return parse_enum(p, at, owner, value, error);
    case PROP_KIND_I32:
        return parse_i32(p, at, owner, value, error);
    case PROP_KIND_MAC:
        return parse_mac(p, at, owner, value, error);
    default:
        g_free(*(char **)at);
        *(char **)at = g_strdup(value);
        return true;
    }
}

char *prop_format(const struct prop *p, const void *base)
{
    const uint8_t *at = (const uint8_t *)base + p->offset;
    uint64_t v = 0;
    int i;
    if (is_number(p)) {
        memcpy(&v, at, widths[p->kind].bytes);
        return g_strdup_printf("%" G_GUINT64_FORMAT, v);
    }
    switch (p->kind) {
    case PROP_KIND_BOOL:
        return g_strdup(*(const bool *)at ? "on" : "off");
    case PROP_KIND_ONOFFAUTO:
        memcpy(&i, at, sizeof(i));
        return g_strdup(i < 0 ? "auto" : i ? "on" : "off");
    case PROP_KIND_ENUM:
        memcpy(&i, at, sizeof(i));
        return g_strdup(p->words[i]);
    case PROP_KIND_I32:
        memcpy(&i, at, sizeof(i));
        return g_strdup_printf("%d", i);
    case PROP_KIND_MAC:
        return g_strdup_printf("%02x:%02x:%02x:%02x:%02x:%02x", at[0], at[1], at[2], at[3], at[4], at[5]);
    default:
        return g_strdup(*(char *const *)(const void *)at);
    }
}

static void set_default(const struct prop *p, void *at)
{
    int i = (int)p->def;
    if (is_number(p))
        memcpy(at, &p->def, widths[p->kind].bytes);
    else if (p->kind == PROP_KIND_BOOL)
        *(bool *)at = p->def;
    else if (p->kind == PROP_KIND_STRING)
        *(char **)at = g_strdup(p->def_str);
    else if (p->kind != PROP_KIND_MAC)
        memcpy(at, &i, sizeof(i));
}

void prop_set_defaults(const struct prop *props, void *base)
{
    for (const struct prop *p = props; p && p->name; p++)
        set_default(p, (uint8_t *)base + p->offset);
}

void prop_free_strings(const struct prop *props, void *base)
{
    for (const struct prop *p = props; p && p->name; p++) {
        if (p->kind == PROP_KIND_STRING)
            g_clear_pointer((char **)(void *)((uint8_t *)base + p->offset), g_free);
    }
}
