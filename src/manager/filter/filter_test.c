/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptions of filters, and the rules that become of them. Each file NAME.xml of the folder
 * given as argument becomes NAME.out (canonical text) and NAME.nft (of an interface with two
 * addresses). TAP. */
#include "base/golden.h"
#include "manager/filter/filter_learn.h"
#include "manager/filter/filter_priv.h"

#include <string.h>

static const char *golden;
static GHashTable *defs; /* names to struct filter_def */

static const struct filter_def *find(const char *name, void *opaque)
{
    return g_hash_table_lookup(defs, name);
}

static void forget(gpointer d)
{
    filter_def_free(d);
}

static struct filter_def *define(const char *xml)
{
    g_autoptr(GError) error = NULL;
    struct filter_def *d = filter_def_parse(xml, &error);
    g_assert_no_error(error);
    g_hash_table_replace(defs, d->name, d);
    return d;
}

/* The table of an interface with that filter; NULL with the error's text in *ret_said. */
static char *compile(const char *filter, const char *const *params, bool *ret_waits, bool *ret_ct,
                     char **ret_said)
{
    g_autoptr(GHashTable) table = filter_params_new();
    struct filter_target t = {.ifname = "vnet0",
                              .filter = filter,
                              .mac = "52:54:00:12:34:56",
                              .bridge = "br0",
                              .params = table,
                              .find = find};
    struct filter_program p = {0};
    g_autoptr(GError) error = NULL;
    for (; params && *params; params += 2)
        filter_params_add(table, params[0], params[1]);
    if (!filter_compile(&t, &p, &error)) {
        *ret_said = g_strdup(error->message);
        return NULL;
    }
    if (ret_waits)
        *ret_waits = p.waits_for_ip;
    if (ret_ct)
        *ret_ct = p.needs_ct;
    char *text = g_steal_pointer(&p.text);
    filter_program_done(&p);
    return text;
}

static void check_round(const char *text)
{
    g_autoptr(GError) error = NULL;
    struct filter_def *d = filter_def_parse(text, &error);
    g_assert_no_error(error);
    g_autofree char *again = filter_def_format(d);
    g_assert_cmpstr(again, ==, text);
    filter_def_free(d);
}

static void check_example(const char *name, const char *xml)
{
    static const char *const params[] = {"IP",    "192.0.2.7", "IP",   "192.0.2.8",   "PORTS", "80",
                                         "PORTS", "443",       "IPV6", "2001:db8::7", NULL};
    struct filter_def *d = define(xml);
    g_autofree char *said = NULL, *text = filter_def_format(d),
                    *rules = compile(d->name, params, NULL, NULL, &said);
    g_assert_cmpstr(said, ==, NULL);
    golden_check(golden, name, "out", text);
    golden_check(golden, name, "nft", rules);
    check_round(text);
}

static void test_golden(void)
{
    golden_each(golden, check_example, 3);
}

/* Each filter that comes with the program stays as it is, and makes rules. */
static void test_builtin(void)
{
    const char *params[] = {"IP",          "192.0.2.7",         "IPV6",
                            "2001:db8::7", "DHCPSERVER",        "192.0.2.1",
                            "GATEWAY_MAC", "52:54:00:00:00:01", NULL};
    for (unsigned i = 0; filter_builtin[i]; i++) {
        struct filter_def *d = filter_def_parse(filter_builtin[i], NULL);
        params[5] = !strcmp(d->chain, "ipv6") ? "2001:db8::1" : "192.0.2.1";
        g_autofree char *text = filter_def_format(d), *said = NULL,
                        *rules = compile(d->name, params, NULL, NULL, &said);
        g_assert_cmpstr(said, ==, NULL);
        g_assert_nonnull(strstr(rules, "vnet0"));
        check_round(text);
        filter_def_free(d);
    }
}

/* ---- what cannot be ---- */

static void test_refused(void)
{
    static const struct {
        const char *inside, *why;
    } rows[] = {
        {"<rule action='run' direction='in'/>", "action 'run' is not one of drop, accept"},
        {"<rule action='drop' direction='up'/>", "direction 'up'"},
        {"<rule action='drop' direction='in' priority='1001'/>",
         "priority '1001' is not from -1000 to 1000"},
        {"<rule action='drop' direction='in'><ipx/></rule>", "there is no protocol 'ipx'"},
        {"<rule action='drop' direction='in'><ip/><ip/></rule>", "is the second"},
        {"<rule action='drop' direction='in'><ip colour='red'/></rule>",
         "there is no attribute 'colour'"},
        {"<rule action='drop' direction='in'><ip srcipaddr='1.2.3'/></rule>",
         "'1.2.3' is not an IPv4 address"},
        {"<rule action='drop' direction='in'><ip srcipaddr='::1'/></rule>",
         "is not an IPv4 address"},
        {"<rule action='drop' direction='in'><ip srcipmask='8'/></rule>",
         "srcipmask needs srcipaddr"},
        {"<rule action='drop' direction='in'><ip srcipaddr='1.2.3.4' srcipmask='33'/></rule>",
         "mask of IPv4"},
        {"<rule action='drop' direction='in'><mac srcmacaddr='1:2:3:4:5'/></rule>", "MAC address"},
        {"<rule action='drop' direction='in'><mac srcmacaddr='$A; flush ruleset'/></rule>",
         "MAC address"},
        {"<rule action='drop' direction='in'><mac protocolid='0x1'/></rule>", "0x600"},
        {"<rule action='drop' direction='in'><tcp flags='SYN'/></rule>", "flags"},
        {"<rule action='drop' direction='in'><tcp srcportstart='65536'/></rule>", "65535"},
        {"<rule action='drop' direction='in'><tcp state='OLD'/></rule>", "NEW, ESTABLISHED"},
        {"<rule action='drop' direction='in'><tcp comment='a&#10;b'/></rule>", "a line"},
        {"<rule action='drop' direction='in'><tcp ipset='a' ipsetflags='src,up'/></rule>",
         "src or dst"},
        {"<filterref filter='../x'/>", "begin with a letter"},
        {"<filterref filter='x'><parameter name='IP' value='1.2.3.4 }'/></filterref>",
         "is not of letters"},
        {"<chain/>", "no element <chain>"},
        {"<uuid>1</uuid>", "is not a UUID"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *xml = g_strdup_printf("<filter name='f'>%s</filter>", rows[i].inside);
        g_autoptr(GError) error = NULL;
        g_assert_null(filter_def_parse(xml, &error));
        golden_says(error->message, rows[i].why);
    }
}

#define RULE(proto)                                                                                \
    "<filter name='f'><rule action='accept' direction='out'>" proto "</rule></filter>"

static void test_not_compiled(void)
{
    static const struct {
        const char *xml, *why;
    } rows[] = {
        {"<filter name='f'><filterref filter='nowhere'/></filter>",
         "no network filter with matching name 'nowhere'"},
        {"<filter name='f'><filterref filter='f'/></filter>", "filter 'f' includes itself"},
        {RULE("<ip srcipaddr='$OTHER'/>"), "variable 'OTHER' has no value"},
        {RULE("<ip srcipaddr='$PAIR' dstipaddr='$THREE'/>"), "have 2 and 3 values"},
        {RULE("<ip srcipaddr='$PAIR[2]'/>"), "none at 2"},
        {RULE("<ipv6 srcipaddr='$PAIR'/>"), "variable 'PAIR': '192.0.2.1' is not an IPv6 address"},
        {RULE("<tcp ipset='bad' ipsetflags='src'/>"), "ipset 'bad'"},
        {RULE("<arp match='no' gratuitous='yes'/>"), "gratuitous"},
        {"<filter name='f' chain='arp' priority='7'><rule action='drop' direction='in'/><filterref "
         "filter='g'/></filter>",
         "give chain 'arp' two priorities, 7 and -500"},
    };
    static const char *const params[] = {"PAIR",  "192.0.2.1", "PAIR",  "192.0.2.2",
                                         "THREE", "192.0.2.3", "THREE", "192.0.2.4",
                                         "THREE", "192.0.2.5", NULL};
    define("<filter name='g' chain='arp'><rule action='drop' direction='in'/></filter>");
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *said = NULL;
        define(rows[i].xml);
        g_assert_null(compile("f", params, NULL, NULL, &said));
        golden_says(said, rows[i].why);
    }
}

/* Includes that double at each step, and lists that multiply, end. */
static void test_bounded(void)
{
    for (unsigned i = 0; i < 14; i++) {
        g_autofree char *xml =
            g_strdup_printf("<filter name='d%u'><filterref filter='d%u'/><filterref filter='d%u'/>"
                            "</filter>",
                            i, i + 1, i + 1);
        define(xml);
    }
    define("<filter name='d14'><rule action='drop' direction='in'/></filter>");
    g_autofree char *said = NULL, *again = NULL;
    g_assert_null(compile("d0", NULL, NULL, NULL, &said));
    g_assert_nonnull(strstr(said, "more than 512 together"));
    const char *params[401] = {NULL};
    for (unsigned i = 0; i < 200; i++) {
        params[2 * i] = i % 2 ? "A" : "B";
        params[2 * i + 1] = "192.0.2.1";
    }
    define(RULE("<ip srcipaddr='$A[@1]' dstipaddr='$B[@2]'/>"));
    g_assert_null(compile("f", params, NULL, NULL, &again));
    g_assert_nonnull(strstr(again, "more than 8192 rules"));
}

/* Without an address only DHCP passes, from its own MAC address. */
static void test_waiting(void)
{
    bool waits = false, ct = true;
    g_autofree char *said = NULL, *rules = compile("clean-traffic", NULL, &waits, &ct, &said);
    g_assert_true(waits && !ct);
    g_assert_nonnull(strstr(
        rules,
        "ether saddr 52:54:00:12:34:56 ether type ip ip protocol 17 udp sport 68 udp dport 67 "
        "@th,288,48 0x525400123456 accept\n\t\tdrop"));
    static const char *const none[] = {"CTRL_IP_LEARNING", "none", NULL};
    g_assert_null(compile("clean-traffic", none, NULL, NULL, &said));
    g_assert_nonnull(strstr(said, "variable 'IP' has no value"));
}

/* Accepting connections asks for their state; refusing them does not. */
static void test_state(void)
{
    bool ct = false;
    g_autofree char *said = NULL;
    define(RULE("<tcp dstportstart='22'/>"));
    g_autofree char *accept = compile("f", NULL, NULL, &ct, &said);
    g_assert_true(ct);
    g_assert_nonnull(strstr(accept, "ip protocol 6 th dport 22 ct state new,established accept"));
    g_assert_nonnull(strstr(accept, "ip protocol 6 th sport 22 ct state established accept"));
    define("<filter name='f'><rule action='drop' direction='out'><tcp "
           "dstportstart='22'/></rule></filter>");
    g_autofree char *drop = compile("f", NULL, NULL, &ct, &said);
    g_assert_false(ct);
    g_assert_nonnull(strstr(drop, "th sport 22 drop"));
}

/* What the machine sends is answered where it comes in, and so is what comes for it; frames of no
 * connection are dropped. */
static void test_reject(void)
{
    g_autofree char *said = NULL;
    define("<filter name='f'><rule action='reject' direction='in'><tcp dstportstart='22' "
           "comment='no'/></rule><rule action='reject' direction='out'><all-ipv6/></rule><rule "
           "action='reject' direction='out'><arp/></rule></filter>");
    g_autofree char *rules = compile("f", NULL, NULL, NULL, &said);
    static const char *const has[] = {
        "\tchain from_ip {\n\t\tether type ip ip protocol 6 th sport 22 reject with icmp type "
        "port-unreachable comment \"no\"\n\t\tether type ip6 reject with icmpv6 type "
        "port-unreachable\n\t}",
        "\tchain to_ip {\n\t\tether type ip ip protocol 6 th dport 22 drop comment "
        "\"no\"\n\t\tether "
        "type ip6 drop\n\t}",
        "\tchain to_ip_early {\n\t\tether type ip ip protocol 6 th dport 22 reject with icmp type "
        "port-unreachable comment \"no\"\n\t\tether type ip6 reject",
        "hook prerouting priority -130; policy accept;\n\t\tiifname != \"vnet0\" meta ibrname "
        "\"br0\" ether daddr 52:54:00:12:34:56 jump to_ip_early",
        "\t\tether type arp drop\n"};
    for (size_t i = 0; i < G_N_ELEMENTS(has); i++)
        golden_says(rules, has[i]);
}

/* ---- what frames tell ---- */

static const uint8_t us[6] = {0x52, 0x54, 0, 0, 0, 0x0a}, them[6] = {0x52, 0x54, 0, 0, 0, 0x0b};

/* A DHCP message with a lease of 600 s, as `server` sends it; `type` is option 53. Its bytes. */
static size_t dhcp(uint8_t frame[400], bool to, uint8_t type, uint8_t server)
{
    static const uint8_t head[] = {0x08, 0, 0x45, 0, 1, 34, 0, 1, 0x40, 0, 64, 17, 0, 0};
    uint8_t *p = frame;
    memset(frame, 0, 400);
    memcpy(p, to ? us : them, 6);
    memcpy(p + 6, to ? them : us, 6);
    memcpy(p + 12, head, sizeof(head));
    memcpy(p + 26, to ? (const uint8_t[]){10, 77, 0, server} : (const uint8_t[]){0, 0, 0, 0}, 4);
    memcpy(p + 30, "\xff\xff\xff\xff", 4);
    memcpy(p + 34, to ? (const uint8_t[]){0, 67, 0, 68} : (const uint8_t[]){0, 68, 0, 67}, 4);
    p += 42;
    memcpy(p, (const uint8_t[]){to ? 2 : 1, 1, 6}, 3);
    memcpy(p + 12, (const uint8_t[]){10, 77, 0, 9}, 4); /* ciaddr */
    memcpy(p + 16, (const uint8_t[]){10, 77, 0, 50}, 4);
    memcpy(p + 28, us, 6);
    memcpy(p + 236,
           (const uint8_t[]){0x63, 0x82, 0x53, 0x63, 0, 53, 1, type, 51, 4, 0, 0, 2, 88, 255}, 15);
    return 14 + 290;
}

static void test_dhcp_frames(void)
{
    struct filter_learner_of of = {.how = FILTER_LEARN_DHCP},
                             one = {.how = FILTER_LEARN_DHCP, .server = {10, 77, 0, 2}};
    uint8_t frame[400];
    memcpy(of.mac, us, 6);
    memcpy(one.mac, us, 6);
    size_t len = dhcp(frame, true, 5, 2);
    struct filter_sighting s = filter_sight(&of, frame, len, true);
    g_assert_cmpint(s.kind, ==, FILTER_SEEN_LEASED);
    g_assert_cmpmem(s.ip, 4, "\x0a\x4d\0\x32", 4);
    g_assert_cmpuint(s.seconds, ==, 600);
    g_assert_cmpint(filter_sight(&one, frame, len, true).kind, ==, FILTER_SEEN_LEASED);
    g_assert_cmpint(filter_sight(&of, frame, len, false).kind, ==,
                    FILTER_SEEN_NOTHING); /* the machine says so itself */
    for (size_t cut = 0; cut < 42 + 250; cut++)
        g_assert_cmpint(filter_sight(&of, frame, cut, true).kind, ==, FILTER_SEEN_NOTHING);
    len = dhcp(frame, true, 5, 3); /* another server */
    g_assert_cmpint(filter_sight(&one, frame, len, true).kind, ==, FILTER_SEEN_NOTHING);
    len = dhcp(frame, true, 6, 2); /* not granted */
    g_assert_cmpint(filter_sight(&of, frame, len, true).kind, ==, FILTER_SEEN_NOTHING);
    len = dhcp(frame, false, 7, 2);
    s = filter_sight(&of, frame, len, false);
    g_assert_cmpint(s.kind, ==, FILTER_SEEN_RELEASED);
    g_assert_cmpmem(s.ip, 4, "\x0a\x4d\0\x09", 4);
    frame[42 + 28] ^= 1; /* for another's MAC address */
    g_assert_cmpint(filter_sight(&of, frame, len, false).kind, ==, FILTER_SEEN_NOTHING);
}

static void test_used(void)
{
    struct filter_learner_of any = {.how = FILTER_LEARN_ANY}, leases = {.how = FILTER_LEARN_DHCP};
    uint8_t frame[64] = {[12] = 8, 6, 0, 1, 8, 0, 6, 4, 0, 1};
    memcpy(any.mac, us, 6);
    memcpy(leases.mac, us, 6);
    memcpy(frame + 6, us, 6);
    memcpy(frame + 22, us, 6);
    memcpy(frame + 28, (const uint8_t[]){10, 77, 0, 7}, 4);
    struct filter_sighting s = filter_sight(&any, frame, 60, false);
    g_assert_cmpint(s.kind, ==, FILTER_SEEN_USED);
    g_assert_cmpmem(s.ip, 4, "\x0a\x4d\0\x07", 4);
    g_assert_cmpint(filter_sight(&leases, frame, 60, false).kind, ==, FILTER_SEEN_NOTHING);
    g_assert_cmpint(filter_sight(&any, frame, 60, true).kind, ==, FILTER_SEEN_NOTHING);
    g_assert_cmpint(filter_sight(&any, frame, 31, false).kind, ==, FILTER_SEEN_NOTHING);
    frame[22] ^= 1; /* the frame's sender speaks for another one */
    g_assert_cmpint(filter_sight(&any, frame, 60, false).kind, ==, FILTER_SEEN_NOTHING);
    uint8_t packet[34] = {[12] = 8, 0, 0x45, 0, 0, 20, [26] = 10, 77, 0, 8};
    memcpy(packet + 6, us, 6);
    g_assert_cmpint(filter_sight(&any, packet, 34, false).kind, ==, FILTER_SEEN_USED);
    static const uint8_t nobody[] = {0, 127, 224, 255};
    for (size_t i = 0; i < sizeof(nobody); i++) {
        packet[26] = nobody[i];
        g_assert_cmpint(filter_sight(&any, packet, 34, false).kind, ==, FILTER_SEEN_NOTHING);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_cmpint(argc, ==, 2);
    golden = argv[1];
    defs = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, forget);
    for (unsigned i = 0; filter_builtin[i]; i++)
        define(filter_builtin[i]);
    g_test_add_func("/filter/golden", test_golden);
    g_test_add_func("/filter/builtin", test_builtin);
    g_test_add_func("/filter/refused", test_refused);
    g_test_add_func("/filter/not compiled", test_not_compiled);
    g_test_add_func("/filter/bounded", test_bounded);
    g_test_add_func("/filter/waiting", test_waiting);
    g_test_add_func("/filter/state", test_state);
    g_test_add_func("/filter/reject", test_reject);
    g_test_add_func("/filter/dhcp frames", test_dhcp_frames);
    g_test_add_func("/filter/addresses used", test_used);
    int failed = g_test_run();
    g_hash_table_unref(defs);
    return failed;
}
