/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptions of networks, and what is made of them: rules, dnsmasq's configuration, leases. Each
 * file NAME.xml of the folder given as argument becomes NAME.out (canonical text), NAME.nft and
 * NAME.conf. TAP. */
#include "base/golden.h"
#include "manager/network/network_priv.h"
#include "manager/network/nft.h"

#include <string.h>

#define IP "<ip address='192.168.7.1' netmask='255.255.255.0'>%s</ip>"

static const char *golden;

static bool taken(const char *name)
{
    return !strcmp(name, "virbr0");
}

static char *parse_error(const char *xml)
{
    struct network_def d;
    g_autoptr(GError) error = NULL;
    if (network_def_parse(&d, xml, NETWORK_DEF_VALIDATE, &error)) {
        network_def_done(&d);
        return g_strdup("");
    }
    return g_strdup(error->message);
}

static void check_refused(const char *xml, const char *why)
{
    g_autofree char *said = parse_error(xml);
    if (!strstr(said, why))
        g_error("'%s' is not in '%s': %s", why, said, xml);
}

/* ---- what becomes of an example ---- */

/* The same table, made instead of replaced. */
static void check_fresh(const char *rules, const char *fresh)
{
    g_assert_true(!rules == !fresh);
    if (!rules)
        return;
    g_assert_true(g_str_has_prefix(fresh, "create table inet ruche_net_"));
    g_assert_null(strstr(fresh, "delete"));
    g_assert_cmpstr(strstr(fresh, "\ntable inet "), ==, strstr(rules, "\ntable inet "));
}

static void check_example(const char *name, const char *xml)
{
    auto_network_def d = {0}, again = {0};
    g_autoptr(GError) error = NULL;
    network_def_parse(&d, xml, NETWORK_DEF_VALIDATE, &error);
    g_assert_no_error(error);
    network_def_name_bridge(&d, taken);
    g_autofree char *text = network_def_format(&d), *rules = network_rules(&d, false),
                    *fresh = network_rules(&d, true), *twice = NULL;
    golden_check(golden, name, "out", text);
    golden_check(golden, name, "nft", rules);
    check_fresh(rules, fresh);
    g_assert_true(network_def_parse(&again, text, NETWORK_DEF_VALIDATE, NULL));
    twice = network_def_format(&again);
    g_assert_cmpstr(twice, ==, text);
    if (!network_dnsmasq_needed(&d))
        return;
    g_autofree char *conf = network_dnsmasq_conf(&d, "/run/x.pid", "/run/x.leases", "nobody");
    golden_check(golden, name, "conf", conf);
}

static void test_golden(void)
{
    golden_each(golden, check_example, 5);
}

/* ---- what cannot be ---- */

static void test_refused(void)
{
    static const struct {
        const char *inside, *why;
    } rows[] = {
        {"<forward mode='nat'/>", "needs an <ip>"},
        {"<forward mode='nat'><interface dev='a'/><interface dev='b'/></forward>" IP,
         "takes one <interface>"},
        {"<forward mode='open' dev='eth0'/>" IP, "takes no dev"},
        {"<forward mode='vepa'/><bridge name='br0'/>", "a bridge is not for"},
        {"<forward mode='bridge'/><bridge name='br0' stp='on'/>", "bridge stp, delay"},
        {"<forward mode='bridge'/>" IP, "element <ip> is not for"},
        {"<bridge name='abcdefghijklmnop'/>", "has 16 bytes; names of interfaces have 1 to 15"},
        {"<bridge name='a b'/>", "a b"},
        {IP "<ip address='192.168.0.1' prefix='16'/>", "192.168.7.0/24 and 192.168.0.0/16 overlap"},
        {"<ip address='192.168.7.1' netmask='255.0.255.0'/>", "netmask"},
        {"<ip address='192.168.7.0' prefix='24'/>", "is the network address"},
        {"<ip address='fd00::1' prefix='64'/>", "is not of family 'ipv4'"},
        {IP "<route address='10.0.0.0' prefix='8' gateway='10.0.0.1'/>", "in no <ip>"},
        {IP "<route address='10.0.0.1' prefix='8' gateway='192.168.7.2'/>", "first address"},
        {"<portgroup name='a' default='yes'/><portgroup name='b' default='yes'/>",
         "both the default"},
        {"<vlan><tag id='1'/></vlan>", "openvswitch"},
        {"<bandwidth><inbound average='10' peak='5'/></bandwidth>", "less than average"},
        {"<sideways/>", "sideways"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *inside = g_strjoinv("", (char *[]){(char *)rows[i].inside, NULL});
        g_auto(GStrv) parts = g_strsplit(inside, "%s", -1);
        g_autofree char *filled = g_strjoinv("", parts);
        g_autofree char *xml = g_strdup_printf("<network><name>n</name>%s</network>", filled);
        check_refused(xml, rows[i].why);
    }
}

static void test_refused_dhcp(void)
{
    static const struct {
        const char *inside, *why;
    } rows[] = {
        {"<range start='192.168.8.2' end='192.168.8.9'/>", "is not in 192.168.7.0/24"},
        {"<range start='192.168.7.9' end='192.168.7.2'/>", "ends (192.168.7.2) before it starts"},
        {"<range start='192.168.7.2' end='192.168.7.255'/>", "broadcast address"},
        {"<range start='192.168.7.2' end='192.168.7.9'/><range start='192.168.7.5' "
         "end='192.168.7.6'/>",
         "overlaps"},
        {"<host mac='52:54:00:00:00:01' ip='192.168.7.5'/><host mac='52:54:00:00:00:02' "
         "ip='192.168.7.5'/>",
         "two DHCP hosts have ip"},
        {"<host mac='52:54:00:00:00:01' ip='192.168.7.5'/><host mac='52:54:00:00:00:01' "
         "ip='192.168.7.6'/>",
         "two DHCP hosts have mac"},
        {"<host ip='192.168.7.5'/>", "neither"},
        {"<host mac='52:54:00:00:00:01'/>", "has no ip"},
        {"<bootp file='a&#10;b'/>", "control character"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *xml = g_strdup_printf("<network><name>n</name><ip address='192.168.7.1' "
                                               "prefix='24'><dhcp>%s</dhcp></ip></network>",
                                               rows[i].inside);
        check_refused(xml, rows[i].why);
    }
}

/* ---- updates ---- */

enum { MODIFY = 1, DELETE = 2, ADD_LAST = 3, ADD_FIRST = 4, HOST = 4, RANGE = 5, DNS_HOST = 10 };

static void test_update(void)
{
    static const struct {
        unsigned command, section;
        const char *xml, *in_text, *why; /* why: it is refused */
    } rows[] = {
        {ADD_LAST, HOST, "<host mac='52:54:00:00:00:01' name='a' ip='192.168.7.5'/>",
         "name='a' ip='192.168.7.5'", NULL},
        {ADD_LAST, HOST, "<host mac='52:54:00:00:00:02' ip='192.168.7.5'/>", NULL,
         "already an entry"},
        {MODIFY, HOST, "<host mac='52:54:00:00:00:01' name='b' ip='192.168.7.6'/>",
         "name='b' ip='192.168.7.6'", NULL},
        {MODIFY, HOST, "<host mac='52:54:00:00:00:09' ip='192.168.7.7'/>", NULL,
         "no entry matches"},
        {DELETE, HOST, "<host mac='52:54:00:00:00:01' ip='192.168.7.99'/>", NULL,
         "no entry matches"},
        {ADD_FIRST, RANGE, "<range start='192.168.7.20' end='192.168.7.30'/>",
         "start='192.168.7.20'", NULL},
        {MODIFY, RANGE, "<range start='192.168.7.20' end='192.168.7.30'/>", NULL,
         "cannot be modified"},
        {ADD_LAST, RANGE, "<range start='10.0.0.1' end='10.0.0.2'/>", NULL, "is not in"},
        {ADD_LAST, DNS_HOST, "<host ip='192.168.7.8'><hostname>x</hostname></host>",
         "<hostname>x</hostname>", NULL},
        {DELETE, DNS_HOST, "<host ip='192.168.7.8'/>", "<network", NULL},
        {ADD_LAST, 1, "<bridge name='x'/>", NULL, "cannot be updated"},
        {9, HOST, "<host/>", NULL, "no update command 9"},
    };
    g_autofree char *text = g_strdup(
        "<network><name>n</name><bridge name='b0'/><ip address='192.168.7.1' prefix='24'><dhcp>"
        "<range start='192.168.7.100' end='192.168.7.120'/></dhcp></ip></network>");
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        auto_network_def d = {0};
        g_autoptr(GError) error = NULL;
        g_assert_true(network_def_parse(&d, text, 0, NULL));
        bool ok = network_def_update(&d, rows[i].command, rows[i].section, -1, rows[i].xml, &error);
        if (rows[i].why) {
            g_assert_false(ok);
            g_assert_nonnull(strstr(error->message, rows[i].why));
            continue;
        }
        g_assert_no_error(error);
        g_free(text);
        text = network_def_format(&d);
        g_assert_nonnull(strstr(text, rows[i].in_text));
    }
    g_assert_null(strstr(text, "hostname"));
}

/* ---- leases, addresses, names ---- */

static void test_leases(void)
{
    static const char text[] =
        "2000 52:54:00:00:00:01 192.168.7.5 guest 01:52:54:00:00:00:01\n"
        "900 52:54:00:00:00:02 192.168.7.6 late *\n"
        "0 52:54:00:00:00:03 192.168.7.7 * *\n"
        "junk\n2000 <script> 192.168.7.8 x *\n2000 52:54:00:00:00:04 not-an-ip x *\n"
        "2000 52:54:00:00:00:05 192.168.7.9 a<b *\n"
        "duid 00:01:00:01:2c:2f:7a:1a:52:54:00:00:00:ff\n"
        "2000 11 fd00::5 six 00:03:00:01:52:54:00:00:00:06\n";
    g_autoptr(GPtrArray) list = network_leases_parse(text, 1000);
    g_assert_cmpuint(list->len, ==, 4);
    const struct network_lease *one = list->pdata[0], *ever = list->pdata[1], *odd = list->pdata[2],
                               *six = list->pdata[3];
    g_assert_cmpstr(one->hostname, ==, "guest");
    g_assert_cmpstr(one->client_id, ==, "01:52:54:00:00:00:01");
    g_assert_cmpint(ever->expiry, ==, 0);
    g_assert_null(ever->hostname);
    g_assert_null(odd->hostname);
    g_assert_cmpstr(six->mac, ==, "52:54:00:00:00:06");
    g_assert_cmpstr(six->iaid, ==, "11");
    g_assert_true(six->v6);
}

/* dnsmasq reads '\' between quotes as the beginning of an escape. */
static void test_txt(void)
{
    static const char xml[] = "<network><name>n</name><bridge name='b'/><dns><txt name='a' "
                              "value='C:\\temp\\'/></dns><ip address='192.168.7.1' prefix='24'/>"
                              "</network>";
    auto_network_def d = {0};
    g_autoptr(GError) error = NULL;
    network_def_parse(&d, xml, NETWORK_DEF_VALIDATE, &error);
    g_assert_no_error(error);
    g_autofree char *conf = network_dnsmasq_conf(&d, "/run/x.pid", "/run/x.leases", NULL);
    g_assert_nonnull(strstr(conf, "\ntxt-record=a,\"C:\\\\temp\\\\\"\n"));
}

static void test_addresses(void)
{
    struct net_subnet a = {.prefix = 24}, b = {.prefix = 30};
    struct net_addr mask, other;
    unsigned prefix = 0;
    g_assert_true(net_addr_parse("192.168.7.129", &a.addr) &&
                  net_addr_parse("192.168.7.1", &b.addr));
    g_assert_true(net_subnets_overlap(&a, &b) && net_subnets_overlap(&b, &a));
    a.prefix = 25;
    g_assert_false(net_subnets_overlap(&a, &b));
    struct net_addr last = net_subnet_last(&a);
    char text[64];
    net_addr_format(&last, text);
    g_assert_cmpstr(text, ==, "192.168.7.255");
    g_assert_true(net_addr_parse("255.255.240.0", &mask) && net_prefix_of_mask(&mask, &prefix));
    g_assert_cmpuint(prefix, ==, 20);
    g_assert_true(net_addr_parse("0.0.0.0", &mask) && net_prefix_of_mask(&mask, &prefix));
    g_assert_cmpuint(prefix, ==, 0);
    g_assert_false(net_addr_parse("255.0.255.0", &mask) && net_prefix_of_mask(&mask, &prefix));
    g_assert_false(net_addr_parse("1.2.3", &other) || net_addr_parse("x", &other) ||
                   net_addr_parse("", &other));
}

static void test_table_names(void)
{
    g_autofree char *a = nft_table_name("ruche_net_", "virbr0"),
                    *b = nft_table_name("ruche_net_", "a-b"),
                    *c = nft_table_name("ruche_net_", "a_2db");
    g_assert_cmpstr(a, ==, "ruche_net_virbr0");
    g_assert_cmpstr(b, ==, "ruche_net_a_2db");
    g_assert_cmpstr(c, !=, b);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    golden = argc > 1 ? argv[1] : "tests/golden/network";
    g_test_add_func("/network/golden", test_golden);
    g_test_add_func("/network/refused", test_refused);
    g_test_add_func("/network/refused-dhcp", test_refused_dhcp);
    g_test_add_func("/network/update", test_update);
    g_test_add_func("/network/leases", test_leases);
    g_test_add_func("/network/txt", test_txt);
    g_test_add_func("/network/addresses", test_addresses);
    g_test_add_func("/network/table-names", test_table_names);
    return g_test_run();
}
