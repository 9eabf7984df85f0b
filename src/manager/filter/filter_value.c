/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Values of filter rules: their one form, and nft's words for a match of them.
 *
 * Thread    Any.
 * Trust     Texts are hostile: what leaves filter_value_check() holds nothing that nft could read
 * as more than a value, whatever went in.
 */
#include "manager/filter/filter_priv.h"
#include "manager/network/address.h"

#include "base/units.h"

#include <string.h>

#define IPSET_DIMENSIONS_MAX 6

struct word {
    const char *word;
    unsigned value;
};

static const struct word ethertypes[] = {{"ipv4", 0x0800}, {"arp", 0x0806},  {"rarp", 0x8035},
                                         {"ipv6", 0x86dd}, {"vlan", 0x8100}, {0}};
static const struct word protocols[] = {
    {"tcp", 6},  {"udp", 17}, {"udplite", 136}, {"esp", 50},    {"ah", 51},
    {"icmp", 1}, {"igmp", 2}, {"sctp", 132},    {"icmpv6", 58}, {NULL, 0}};
static const struct word opcodes[] = {
    {"Request", 1},       {"Reply", 2},       {"Request_Reverse", 3}, {"Reply_Reverse", 4},
    {"DRARP_Request", 5}, {"DRARP_Reply", 6}, {"DRARP_Error", 7},     {"InARP_Request", 8},
    {"ARP_NAK", 10},      {NULL, 0}};
static const struct word tcp_flags[] = {{"FIN", 1},  {"SYN", 2},  {"RST", 4}, {"PSH", 8},
                                        {"ACK", 16}, {"URG", 32}, {0}};
static const struct word states[] = {
    {"NEW", 1}, {"ESTABLISHED", 2}, {"RELATED", 4}, {"INVALID", 8}, {0}};

static const struct word *word_find(const struct word *list, const char *text)
{
    for (; list->word; list++)
        if (!g_ascii_strcasecmp(list->word, text))
            return list;
    return NULL;
}

/* ---- variables ---- */

static bool parse_index(const char *p, struct filter_var *v)
{
    p += strspn(p, " ");
    bool iterator = *p == '@';
    p += iterator;
    char *end;
    if (!g_ascii_isdigit(*p))
        return false;
    guint64 n = g_ascii_strtoull(p, &end, 10);
    end += strspn(end, " ");
    if (n > 1000 || *end != ']' || end[1 + strspn(end + 1, " ")])
        return false;
    v->index = iterator ? -1 : (int)n;
    v->iterator = iterator ? (unsigned)n : 0;
    return true;
}

bool filter_var_parse(const char *text, struct filter_var *ret)
{
    if (*text != '$')
        return false;
    const char *p = text + 1 + strspn(text + 1, " ");
    size_t len = strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
    if (!len || len >= sizeof(ret->name))
        return false;
    struct filter_var v = {.index = -1};
    memcpy(v.name, p, len);
    p += len;
    if (*p == '[' ? !parse_index(p + 1, &v) : p[strspn(p, " ")] != 0)
        return false;
    *ret = v;
    return true;
}

/* ---- one form ---- */

bool filter_mac_parse(const char *text, uint8_t ret[6])
{
    for (unsigned i = 0; i < 6; i++) {
        unsigned digits = 0, v = 0;
        for (; g_ascii_isxdigit(*text) && digits < 2; text++, digits++)
            v = v << 4 | (unsigned)g_ascii_xdigit_value(*text);
        if (!digits || *text != (i < 5 ? ':' : 0))
            return false;
        ret[i] = (uint8_t)v;
        text += i < 5;
    }
    return true;
}

static char *mac_form(const uint8_t m[6])
{
    return g_strdup_printf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
}

static bool number(const char *text, uint64_t max, uint64_t *ret)
{
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    const char *digits = hex ? text + 2 : text;
    size_t len = strlen(digits);
    if (!len || len > 10 || strspn(digits, hex ? "0123456789abcdefABCDEF" : "0123456789") != len)
        return false;
    uint64_t v = g_ascii_strtoull(digits, NULL, hex ? 16 : 10);
    if (v > max)
        return false;
    *ret = v;
    return true;
}

static char *number_form(const char *text, uint64_t min, uint64_t max)
{
    uint64_t v;
    return number(text, max, &v) && v >= min ? g_strdup_printf("%" G_GUINT64_FORMAT, v) : NULL;
}

static char *word_or_number(const struct word *list, const char *text, uint64_t min, uint64_t max)
{
    const struct word *w = word_find(list, text);
    return w ? g_strdup(w->word) : number_form(text, min, max);
}

static char *address_form(const char *text, bool v6)
{
    struct net_addr a;
    char form[64];
    if (!net_addr_parse(text, &a) || a.v6 != v6)
        return NULL;
    net_addr_format(&a, form);
    return g_strdup(form);
}

/* A count of bits, where the mask is one. */
static char *mask_form(const char *text, bool v6)
{
    struct net_addr a;
    unsigned bits;
    if (!strpbrk(text, ".:"))
        return number_form(text, 0, v6 ? 128 : 32);
    if (!net_addr_parse(text, &a) || a.v6 != v6)
        return NULL;
    return net_prefix_of_mask(&a, &bits) ? g_strdup_printf("%u", bits) : address_form(text, v6);
}

/* Words with commas between them, in the list's order. */
static bool flags_parse(const struct word *list, const char *text, unsigned *ret)
{
    g_auto(GStrv) words = g_strsplit(text, ",", 32);
    *ret = 0;
    for (char **w = words; *w; w++) {
        const struct word *known = word_find(list, *w);
        if (!known)
            return false;
        *ret |= known->value;
    }
    return *words != NULL;
}

static char *flags_form(const struct word *list, unsigned flags, const char *between)
{
    g_autoptr(GString) s = g_string_new(NULL);
    for (; list->word; list++)
        if (flags & list->value)
            g_string_append_printf(s, "%s%s", s->len ? between : "", list->word);
    return g_strdup(s->str);
}

static bool tcp_flags_parse(const char *text, unsigned *ret)
{
    if (!strcmp(text, "ALL") || !strcmp(text, "NONE")) {
        *ret = *text == 'A' ? 63 : 0;
        return true;
    }
    return flags_parse(tcp_flags, text, ret);
}

static char *tcp_flags_half(const char *text)
{
    unsigned flags;
    if (!tcp_flags_parse(text, &flags))
        return NULL;
    return flags == 63 ? g_strdup("ALL")
           : flags     ? flags_form(tcp_flags, flags, ",")
                       : g_strdup("NONE");
}

static char *tcp_flags_form(const char *text)
{
    g_auto(GStrv) halves = g_strsplit(text, "/", 3);
    if (g_strv_length(halves) != 2)
        return NULL;
    g_autofree char *mask = tcp_flags_half(halves[0]), *value = tcp_flags_half(halves[1]);
    return mask && value ? g_strconcat(mask, "/", value, NULL) : NULL;
}

static char *state_form(const char *text)
{
    unsigned flags;
    if (!strcmp(text, "NONE"))
        return g_strdup(text);
    return flags_parse(states, text, &flags) ? flags_form(states, flags, ",") : NULL;
}

static char *bool_form(const char *text)
{
    static const struct word words[] = {{"yes", 1},   {"true", 1}, {"1", 1}, {"no", 0},
                                        {"false", 0}, {"0", 0},    {0}};
    const struct word *w = word_find(words, text);
    return w ? g_strdup(w->value ? "true" : "false") : NULL;
}

static char *chars_form(const char *text, const char *also, size_t max)
{
    for (const char *p = text; *p; p++)
        if (!g_ascii_isalnum(*p) && !strchr(also, *p))
            return NULL;
    return *text && strlen(text) <= max ? g_strdup(text) : NULL;
}

/* Which end each dimension of a set is compared with. */
static char *ipset_flags_form(const char *text)
{
    g_auto(GStrv) words = g_strsplit(text, ",", IPSET_DIMENSIONS_MAX + 1);
    bool ok = *words && g_strv_length(words) <= IPSET_DIMENSIONS_MAX;
    for (char **w = words; *w && ok; w++)
        ok = !g_ascii_strcasecmp(*w, "src") || !g_ascii_strcasecmp(*w, "dst");
    return ok ? g_ascii_strdown(text, -1) : NULL;
}

static char *comment_form(const char *text)
{
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < ' ')
            return NULL;
    return strlen(text) <= 256 ? g_strdup(text) : NULL;
}

static char *form(enum filter_kind kind, const char *text)
{
    uint8_t mac[6];
    switch (kind) {
    case FK_MAC:
        return filter_mac_parse(text, mac) ? mac_form(mac) : NULL;
    case FK_IPV4:
    case FK_IPV6:
        return address_form(text, kind == FK_IPV6);
    case FK_MASK4:
    case FK_MASK6:
        return mask_form(text, kind == FK_MASK6);
    case FK_ETHERTYPE:
        return word_or_number(ethertypes, text, 0x600, 0xffff);
    case FK_IPPROTO:
        return word_or_number(protocols, text, 0, 255);
    case FK_OPCODE:
        return word_or_number(opcodes, text, 0, 65535);
    case FK_BOOL:
        return bool_form(text);
    case FK_TCPFLAGS:
        return tcp_flags_form(text);
    case FK_STATE:
        return state_form(text);
    case FK_IPSET:
        return chars_form(text, "_.:-+ ", 31);
    case FK_IPSETFLAGS:
        return ipset_flags_form(text);
    case FK_COMMENT:
        return comment_form(text);
    default:;
        static const uint64_t max[] = {[FK_U8] = 255,  [FK_U16] = 65535, [FK_U32] = UINT32_MAX,
                                       [FK_DSCP] = 63, [FK_VLAN] = 4095, [FK_CONNLIMIT] = 65535};
        return number_form(text, 0, max[kind]);
    }
}

char *filter_value_check(enum filter_kind kind, const char *text, GError **error)
{
    static const char *const what[] = {
        [FK_MAC] = "a MAC address",
        [FK_IPV4] = "an IPv4 address",
        [FK_IPV6] = "an IPv6 address",
        [FK_MASK4] = "a mask of IPv4",
        [FK_MASK6] = "a mask of IPv6",
        [FK_U8] = "a number up to 255",
        [FK_U16] = "a number up to 65535",
        [FK_U32] = "a number up to 4294967295",
        [FK_ETHERTYPE] = "a protocol's number from 0x600 to 0xffff, arp, rarp, ipv4, ipv6 or vlan",
        [FK_IPPROTO] = "the name of an IP protocol or its number",
        [FK_DSCP] = "a number up to 63",
        [FK_VLAN] = "a number up to 4095",
        [FK_OPCODE] = "an operation of ARP or its number",
        [FK_BOOL] = "true or false",
        [FK_TCPFLAGS] = "a list of flags, '/', and a list of flags",
        [FK_STATE] = "a list of NEW, ESTABLISHED, RELATED, INVALID, or NONE",
        [FK_CONNLIMIT] = "a number up to 65535",
        [FK_IPSET] = "the name of a set",
        [FK_IPSETFLAGS] = "a list of 1 to 6 words, src or dst",
        [FK_COMMENT] = "a line of up to 256 bytes"};
    char *value = form(kind, text);
    if (!value)
        ruche_error(error, RUCHE_ERR_XML, "'%.80s' is not %s", text, what[kind]);
    return value;
}

/* ---- nft's words ---- */

static void raw(GString *s, const uint8_t *b, unsigned count)
{
    g_string_append(s, "0x");
    for (unsigned i = 0; i < count; i++)
        g_string_append_printf(s, "%02x", b[i]);
}

/* An address as nft writes it; where the field is a place in the frame, as a number. */
static void put_bytes(GString *s, const struct filter_attr *a, bool is_raw, const uint8_t *b)
{
    unsigned count = a->kind == FK_MAC ? 6 : a->kind == FK_IPV4 ? 4 : 16;
    if (is_raw) {
        raw(s, b, count);
    } else if (a->kind == FK_MAC) {
        g_autofree char *text = mac_form(b);
        g_string_append(s, text);
    } else {
        struct net_addr addr = {.v6 = a->kind == FK_IPV6};
        char text[64];
        memcpy(addr.b, b, count);
        net_addr_format(&addr, text);
        g_string_append(s, text);
    }
}

static void get_bytes(const struct filter_attr *a, const char *text, bool mask, uint8_t ret[16])
{
    struct net_addr addr = {0};
    if (a->kind == FK_MAC) {
        filter_mac_parse(text, ret);
        return;
    }
    if (mask && !strpbrk(text, ".:"))
        addr = net_prefix_mask(a->kind == FK_IPV6, (unsigned)g_ascii_strtoull(text, NULL, 10));
    else
        net_addr_parse(text, &addr);
    memcpy(ret, addr.b, 16);
}

static void match_bytes(GString *s, const struct filter_attr *a, const char *expr, bool negate,
                        const char *value, const char *partner)
{
    uint8_t v[16] = {0}, m[16] = {0};
    bool is_raw = *expr == '@';
    get_bytes(a, value, false, v);
    if (partner)
        get_bytes(a, partner, a->how == FP_MASK, m);
    if (partner && a->how == FP_MASK) {
        g_string_append_printf(s, " %s & ", expr);
        put_bytes(s, a, is_raw, m);
        g_string_append(s, negate ? " != " : " == ");
        for (unsigned i = 0; i < 16; i++)
            v[i] &= m[i];
    } else {
        g_string_append_printf(s, " %s %s", expr, negate ? "!= " : "");
    }
    put_bytes(s, a, is_raw, v);
    if (partner && a->how == FP_END) {
        g_string_append_c(s, '-');
        put_bytes(s, a, is_raw, m);
    }
}

static void match_tcp_flags(GString *s, bool negate, const char *value)
{
    g_auto(GStrv) halves = g_strsplit(value, "/", 2);
    unsigned mask, flags;
    tcp_flags_parse(halves[0], &mask);
    tcp_flags_parse(halves[1], &flags);
    g_string_append_printf(s, " tcp flags & 0x%x %s 0x%x", mask, negate ? "!=" : "==", flags);
}

/* Nothing that nft reads as the end of the text. */
static void put_comment(GString *s, const char *value)
{
    g_string_append(s, " comment \"");
    for (unsigned i = 0; value[i] && i < 100; i++)
        g_string_append_c(
            s, value[i] < ' ' || value[i] > '~' || strchr("\"\\", value[i]) ? '_' : value[i]);
    g_string_append_c(s, '"');
}

static void match_number(GString *s, const struct filter_attr *a, const char *expr, bool negate,
                         const char *value, const char *partner)
{
    const struct word *list = a->kind == FK_ETHERTYPE ? ethertypes
                              : a->kind == FK_IPPROTO ? protocols
                              : a->kind == FK_OPCODE  ? opcodes
                                                      : NULL;
    const struct word *w = list ? word_find(list, value) : NULL;
    g_string_append_printf(s, " %s %s", expr, negate ? "!= " : "");
    if (w)
        g_string_append_printf(s, "%u", w->value);
    else
        g_string_append(s, value);
    if (partner && strcmp(value, partner) != 0)
        g_string_append_printf(s, "-%s", partner);
}

/* nftables compares no field with another one: each byte of the sender's address and that of the
 * target's are looked up together in all pairs of equal bytes. */
static void match_gratuitous(GString *s)
{
    for (unsigned i = 0; i < 4; i++) {
        g_string_append_printf(s, " @nh,%u,8 . @nh,%u,8 { 0 . 0", 112 + 8 * i, 192 + 8 * i);
        for (unsigned b = 1; b < 256; b++)
            g_string_append_printf(s, ", %u . %u", b, b);
        g_string_append(s, " }");
    }
}

void filter_match(GString *s, const struct filter_attr *a, bool swapped, bool negate,
                  const char *value, const char *partner)
{
    const char *expr = swapped && a->swapped ? a->swapped : a->expr;
    switch (a->kind) {
    case FK_MAC:
    case FK_IPV4:
    case FK_IPV6:
        match_bytes(s, a, expr, negate, value, partner);
        return;
    case FK_TCPFLAGS:
        match_tcp_flags(s, negate, value);
        return;
    case FK_CONNLIMIT:
        g_string_append_printf(s, " ct count %s%s", negate ? "" : "over ", value);
        return;
    case FK_BOOL: /* the only one of its kind */
        if (!strcmp(value, "true"))
            match_gratuitous(s);
        return;
    case FK_STATE:
        if (strcmp(value, "NONE") != 0) {
            g_autofree char *low = g_ascii_strdown(value, -1);
            g_string_append_printf(s, " ct state %s%s", negate ? "!= " : "", low);
        }
        return;
    case FK_COMMENT:
        put_comment(s, value);
        return;
    default:
        match_number(s, a, expr, negate, value, partner);
    }
}
