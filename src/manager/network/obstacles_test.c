/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What of others' firewalls is in a network's way. TAP. */
#include "manager/network/network_priv.h"

#include <string.h>

static GPtrArray *obstacles(const char *ruleset, const char *mode, const char *ip, bool filter)
{
    auto_network_def d = {0};
    g_autofree char *xml =
        g_strdup_printf("<network><name>n</name>%s<bridge name='virbr0'/>%s</network>", mode, ip);
    g_assert_true(network_def_parse(&d, xml, 0, NULL));
    return network_obstacles(ruleset, &d, filter);
}

#define NAT "<forward mode='nat'/>"
#define IP                                                                                         \
    "<ip address='192.168.7.1' netmask='255.255.255.0'><dhcp><range start='192.168.7.2' "          \
    "end='192.168.7.9'/></dhcp></ip>"
#define IPV6 "<ip family='ipv6' address='fd00:7::1' prefix='64'/>"

/* The sentences are these; NULL ends them. */
static void check(const char *ruleset, const char *mode, const char *ip, ...)
{
    va_list ap;
    g_autoptr(GPtrArray) list = obstacles(ruleset, mode, ip, false);
    unsigned i = 0;
    va_start(ap, ip);
    for (const char *part; (part = va_arg(ap, const char *)); i++) {
        g_assert_cmpuint(i, <, list->len);
        if (!strstr(list->pdata[i], part))
            g_error("'%s' is not in '%s'", part, (char *)list->pdata[i]);
    }
    va_end(ap);
    g_assert_cmpuint(list->len, ==, i);
}

/* ---- who ---- */

#define DOCKER(rules)                                                                              \
    "table ip filter {\n\tchain DOCKER-USER {\n" rules                                             \
    "\t\tcounter return\n\t}\n\n\tchain FORWARD {\n"                                               \
    "\t\ttype filter hook forward priority filter; policy drop;\n\t\tcounter jump "                \
    "DOCKER-USER\n\t}\n}\n"

static void test_docker(void)
{
    check(DOCKER(""), NAT, IP,
          "'table ip filter' of Docker drops forwarded packets that it does not know; to let this "
          "network's pass: iptables -I DOCKER-USER -i virbr0 -j ACCEPT; iptables -I DOCKER-USER -o "
          "virbr0",
          NULL);
    check(DOCKER("\t\tiifname \"virbr0\" counter accept\n"), NAT, IP, NULL);
    check(DOCKER("\t\tiifname \"virbr*\" counter accept\n"), NAT, IP, NULL);
    check(DOCKER("\t\tiifname \"virbr01\" counter accept\n"), NAT, IP, "Docker", NULL);
    check(DOCKER("\t\tip daddr 10.0.0.1 accept comment \"virbr0\"\n"), NAT, IP, "Docker", NULL);
    check(DOCKER("\t\tlog prefix \"virbr0\"\n"), NAT, IP, "Docker", NULL);
    check(DOCKER(""), "", IP, NULL); /* nothing of an isolated one is forwarded, ... */
    g_autoptr(GPtrArray) list = obstacles(DOCKER(""), "", IP, true);
    g_assert_cmpuint(list->len, ==, 2); /* ... but for what crosses the bridge */
    g_assert_nonnull(strstr(list->pdata[1], "br_netfilter"));
}

#define UFW(family, six)                                                                           \
    "table " family " filter {\n\tchain ufw" six "-user-forward {\n\t}\n\tchain INPUT {\n"         \
    "\t\ttype filter hook input priority filter; policy drop;\n\t}\n\tchain FORWARD {\n"           \
    "\t\ttype filter hook forward priority filter; policy drop;\n\t\tcounter jump ufw" six         \
    "-user-forward\n\t}\n}\n"

static void test_ufw(void)
{
    check(UFW("ip", "") UFW("ip6", "6"), NAT, IP IPV6, "ufw allow in on virbr0 to any port 53",
          "ufw route allow in on virbr0; ufw route allow out on virbr0", NULL);
    check(UFW("ip6", "6"), NAT, IP, NULL);
    check(UFW("ip", ""), NAT, "<dns enable='no'/><ip address='10.9.0.1' prefix='24'/>",
          "ufw route allow", NULL); /* there is no dnsmasq */
}

#define FIREWALLD(rule)                                                                            \
    "table inet firewalld {\n\tchain filter_INPUT {\n"                                             \
    "\t\ttype filter hook input priority filter + 10; policy accept;\n"                            \
    "\t\tct state { established, related } accept\n\t\tjump filter_INPUT_POLICIES\n"               \
    "\t\treject with icmpx admin-prohibited\n\t}\n\tchain filter_FORWARD {\n"                      \
    "\t\ttype filter hook forward priority filter + 10; policy accept;\n"                          \
    "\t\tjump filter_FORWARD_POLICIES\n\t\treject with icmpx admin-prohibited\n\t}\n"              \
    "\tchain filter_INPUT_POLICIES {\n" rule "\t}\n\tchain filter_FORWARD_POLICIES {\n" rule       \
    "\t}\n\tchain known {\n\t\tiifname \"virbr0\" accept\n\t}\n}\n"

static void test_firewalld(void)
{
    check(FIREWALLD("\t\tjump elsewhere\n"), NAT, IP, "of firewalld drops packets to the host",
          "firewall-cmd --permanent --zone=trusted --add-interface=virbr0", NULL);
    check(FIREWALLD("\t\tjump known\n"), NAT, IP, NULL);
    check(FIREWALLD(
              "\t\tiifname vmap { \"eth0\" : jump filter_INPUT_POLICIES, \"lo\" : goto known }\n"),
          NAT, IP, NULL);
}

/* ---- how ---- */

#define CHAIN(hook, policy, rules)                                                                 \
    "table inet mine {\n\tset s {\n\t\ttype ipv4_addr\n\t}\n\tchain in {\n\t\ttype filter "        \
    "hook " hook " priority 0; policy " policy ";\n" rules "\t}\n}\n"

static void test_chains(void)
{
    check(CHAIN("input", "drop", ""), NAT, IP,
          "'table inet mine' of another program drops packets to the host (DHCP and DNS) that it "
          "does not "
          "know; to let this network's pass: nft insert rule inet mine in iifname virbr0 meta "
          "l4proto",
          NULL);
    check(
        CHAIN("forward", "drop", ""), NAT, IP,
        "nft insert rule inet mine in iifname virbr0 accept; nft insert rule inet mine in oifname",
        NULL);
    check(CHAIN("forward", "accept", "\t\tcounter reject with icmp host-prohibited\n"), NAT, IP, "",
          NULL);
    check(CHAIN("forward", "accept", "\t\tip saddr 1.2.3.4 drop\n"), NAT, IP, NULL);
    check(CHAIN("forward", "drop", "\t\tcounter accept\n"), NAT, IP, NULL);
    check(CHAIN("output", "drop", ""), NAT, IP, NULL);
    check("table inet ruche_net_virbr0 {\n\tchain forward {\n\t\ttype filter hook forward priority "
          "filter; "
          "policy drop;\n\t}\n}\n",
          NAT, IP, NULL);
    check("table bridge b {\n\tchain c {\n\t\ttype filter hook input priority 0; policy "
          "drop;\n\t}\n}\n",
          NAT, IP, NULL);
    check("}\n{\nchain x {\ntable {\n\"", NAT, IP, NULL);
}

#define FRAMES(rule)                                                                               \
    "table bridge b {\n\tchain c {\n\t\ttype filter hook forward priority 0; policy drop;\n" rule  \
    "\t}\n}\n"

static void test_frames(void)
{
    check(FRAMES(""), "", IP,
          "drops frames between machines that it does not know; to let this network's pass: nft "
          "insert rule bridge b c meta ibrname virbr0 accept",
          NULL);
    check(FRAMES("\t\tmeta ibrname \"virbr0\" accept\n"), "", IP, NULL);
    g_autoptr(GPtrArray) list = obstacles(FRAMES(""), NAT, IP, true);
    g_assert_cmpuint(list->len, ==, 1); /* whatever br_netfilter asks */
}

static void test_tables(void)
{
    g_autoptr(GPtrArray) names = network_foreign_tables(CHAIN("output", "drop", "") UFW(
        "ip", "") "table inet ruche_net_virbr0 {\n\tchain forward {\n\t\ttype "
                  "filter hook forward priority filter; policy drop;\n\t}\n}\n" FIREWALLD(""));
    g_assert_cmpuint(names->len, ==, 2);
    g_assert_cmpstr(names->pdata[0], ==, "ip filter");
    g_assert_cmpstr(names->pdata[1], ==, "inet firewalld");
}

static void check_legacy(const char *rule, bool blocked)
{
    g_autofree char *rules = g_strdup_printf(
        "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n-N known\n%s-A known -o virbr+ "
        "-j ACCEPT\n",
        rule);
    g_autofree char *table = network_legacy_table(rules);
    if (blocked)
        check(table, NAT, IP, "iptables-legacy -I FORWARD -i virbr0 -j ACCEPT", NULL);
    else
        check(table, NAT, IP, NULL);
}

static void test_legacy(void)
{
    check_legacy("", true);
    check_legacy("-A FORWARD -s 10.0.0.0/8 -i eth0 -j ACCEPT\n", true);
    check_legacy("-A FORWARD -m comment --comment \"virbr0\" -j DROP\n", true);
    check_legacy("-A FORWARD -i virbr0 -o eth0 -j ACCEPT\n", false);
    check_legacy("-A FORWARD -j known\n", false);
    check_legacy("-A FORWARD -j ACCEPT\n", false);
    g_autofree char *docker =
        network_legacy_table("-P FORWARD DROP\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n");
    check(docker, NAT, IP, "iptables -I DOCKER-USER", NULL);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/obstacles/docker", test_docker);
    g_test_add_func("/obstacles/ufw", test_ufw);
    g_test_add_func("/obstacles/firewalld", test_firewalld);
    g_test_add_func("/obstacles/chains", test_chains);
    g_test_add_func("/obstacles/frames", test_frames);
    g_test_add_func("/obstacles/tables", test_tables);
    g_test_add_func("/obstacles/legacy", test_legacy);
    return g_test_run();
}
